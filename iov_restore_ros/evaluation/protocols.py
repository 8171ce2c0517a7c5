"""The protocol of each data set in the literature, and the article's tables."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from iov_restore_ros.evaluation.metrics import (
    aligned_psnr_ssim,
    features_kept,
    luma,
    psnr,
    ssim,
    ssim_3d,
)
from iov_restore_ros.tasks import DEBLUR, DERAIN

# The name of a measure, and its number of digits.
DIGITS = {
    'PSNR dB': 2, 'PSNR-Y dB': 2, 'SSIM': 4, 'SSIM 3-D': 4, 'SSIM-Y': 4, 'features kept %': 2,
}
LEGEND = (
    'SSIM: per channel, Gaussian 11x11, sigma 1.5 (Wang et al.). SSIM 3-D: Gaussian 11x11x11 over '
    'rows, columns and channels (MATLAB on colour, NAFNet). -Y: on the Y of rgb2ycbcr. '
    'Features kept: share of the 2000 strongest SIFT features of the sharp picture that are '
    'matched (ratio 0.8) within 3 pixels of their place. Means over the pictures, those of PSNR '
    'over the pictures that differ from the sharp one; inf if none does.'
)


def full_frame(picture: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Measure two uint8 H x W x 3 RGB images pixel by pixel, on RGB and on Y."""
    y, true_y = luma(picture), luma(truth)
    return {
        'PSNR dB': psnr(picture, truth),
        'SSIM': ssim(picture, truth),
        'SSIM 3-D': ssim_3d(picture, truth),
        'PSNR-Y dB': psnr(y, true_y),
        'SSIM-Y': ssim(y, true_y),
        'features kept %': 100 * features_kept(picture, truth),
    }


def aligned(picture: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Measure two uint8 H x W x 3 RGB images after alignment; features without alignment."""
    decibels, similarity = aligned_psnr_ssim(picture, truth)
    return {
        'PSNR dB': decibels,
        'SSIM': similarity,
        'features kept %': 100 * features_kept(picture, truth),
    }


@dataclass(frozen=True)
class Protocol:
    """The measurement of a layout's pictures, and their task ('': any)."""

    name: str
    task: str = ''
    measure: Callable[[np.ndarray, np.ndarray], dict[str, float]] = full_frame


GOPRO = Protocol('GOPRO: RGB, full frame', DEBLUR.name)
REALBLUR = Protocol('RealBlur: RGB, ECC-aligned, pixels in the mask', DEBLUR.name, aligned)
RAIN = Protocol('rain: Y of MATLAB rgb2ycbcr, and RGB; full frame', DERAIN.name)
PROTOCOLS = {
    'gopro': GOPRO,
    'gopro_gamma': GOPRO,
    'realblur_j': REALBLUR,
    'realblur_r': REALBLUR,
    'rain800': RAIN,
    'rain800_clean_right': RAIN,
    'rain100l': RAIN,
    'rain100h': RAIN,
    'rain1400': RAIN,
    'raindrop': RAIN,
    'folders': Protocol('pairs: RGB and Y, full frame'),
    'clean': Protocol('clean pictures against themselves restored: RGB and Y, full frame'),
    'synthetic': Protocol('sharp pictures degraded here: RGB and Y, full frame'),
}


@dataclass(frozen=True)
class Published:
    """A table of the article. ``columns`` has the layouts of each column."""

    title: str
    columns: dict[str, tuple[str, ...]]
    rows: dict[str, tuple[tuple[str, str], ...]]  # method: (PSNR, SSIM) by column
    ours: dict[str, tuple[str, str]]  # name of our row: the measures in it
    note: str = ''


PUBLISHED = (
    Published(
        'Table 2: GOPRO',
        {'GOPRO': ('gopro', 'gopro_gamma')},
        {
            'Xu [6]': (('21.00', '0.741'),),
            'Kim [33]': (('23.64', '0.824'),),
            'Sun [20]': (('24.64', '0.843'),),
            'Gong [21]': (('26.40', '0.863'),),
            'DeblurGAN [12]': (('28.70', '0.858'),),
            'Ours (Wei et al.)': (('29.19', '0.883'),),
        },
        {'this run': ('PSNR dB', 'SSIM'), 'this run, SSIM 3-D': ('PSNR dB', 'SSIM 3-D')},
        'The article does not say which SSIM it means.',
    ),
    Published(
        'Table 3: RealBlur',
        {'RealBlur-J': ('realblur_j',), 'RealBlur-R': ('realblur_r',)},
        {
            'Hu [34]': (('26.41', '0.803'), ('33.67', '0.916')),
            'Nah [10]': (('27.87', '0.827'), ('32.51', '0.841')),
            'DeblurGAN [12]': (('27.97', '0.834'), ('33.79', '0.903')),
            'Pan [18]': (('27.22', '0.790'), ('34.01', '0.916')),
            'Ours (Wei et al.)': (('27.73', '0.833'), ('34.32', '0.911')),
        },
        {'this run': ('PSNR dB', 'SSIM')},
    ),
    Published(
        'Table 4: rain',
        {
            'Rain800': ('rain800', 'rain800_clean_right'),
            'Rain100L': ('rain100l',),
            'Rain100H': ('rain100h',),
        },
        {
            'DerainNet [38]': (('22.77', '0.810'), ('27.03', '0.884'), ('14.92', '0.592')),
            'SEMI [39]': (('23.64', '0.788'), ('25.03', '0.842'), ('16.56', '0.486')),
            'DIDMDN [8]': (('22.56', '0.818'), ('25.23', '0.471'), ('17.35', '0.524')),
            'Ours (Wei et al.)': (('25.50', '0.825'), ('29.91', '0.934'), ('21.99', '0.787')),
        },
        {'this run, Y': ('PSNR-Y dB', 'SSIM-Y'), 'this run, RGB': ('PSNR dB', 'SSIM')},
        'The text of the article (Sec. 4.4) says 18.30 / 0.476 for Rain100H and 26.21 / 0.865 for '
        'Rain100L, trained on Rain800 alone, without the further fine-tuning. It does not say '
        'whether Y or RGB was measured.',
    ),
)
