"""
Quality of a picture for people (PSNR, SSIM) and for machines (SIFT features kept).

It also measures the flicker of a sequence.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import torch
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from iov_restore_ros.pictures.files import DataError
from iov_restore_ros.video.clear import Clearer

FEATURES = 2000
MATCH_RATIO = 0.8
MATCH_DISTANCE = 3.0  # pixels
SMALLEST = 11  # pixels, SSIM's window
SIGMA = 1.5  # of SSIM's Gaussian, 11 pixels wide
TRUNCATE = 3.5  # half of these 11 in units of SIGMA


def check_size(name: str, picture: np.ndarray) -> None:
    """Raise ``DataError`` if a picture is too small to be measured."""
    if min(picture.shape[:2]) < SMALLEST:
        raise DataError(f'{name}: {picture.shape}, no side may be below {SMALLEST}')


def psnr(picture: np.ndarray, truth: np.ndarray) -> float:
    """Return the PSNR in dB of two uint8 images of the same shape (H x W or H x W x 3)."""
    if np.array_equal(picture, truth):
        return float('inf')
    return float(peak_signal_noise_ratio(truth, picture))


def luma(image: np.ndarray) -> np.ndarray:
    """
    Return Y (BT.601, 16..235, uint8 H x W) of uint8 RGB, the channel deraining is scored on.

    It equals MATLAB's rgb2ycbcr for uint8, which rounds. Some scripts (PReNet's) convert to double
    first and don't round: 0.03 dB more at 35 dB, less below.
    """
    weights = np.array([65.481, 128.553, 24.966]) / 255
    return np.round(image @ weights + 16).astype(np.uint8)


def ssim(picture: np.ndarray, truth: np.ndarray) -> float:
    """
    Return the SSIM of two uint8 images as Wang et al. 2004 define it, mean over channels.

    Gaussian 11 x 11, sigma 1.5, only where the window lies inside of the picture.
    """
    return float(structural_similarity(
        truth, picture, gaussian_weights=True, sigma=SIGMA, use_sample_covariance=False,
        channel_axis=-1 if truth.ndim == 3 else None,
    ))


def ssim_3d(picture: np.ndarray, truth: np.ndarray) -> float:
    """
    Return the SSIM of two uint8 H x W x 3 images with a Gaussian over rows, columns and channels.

    11 x 11 x 11, sigma 1.5, edges repeated, mean over every pixel. It equals MATLAB's ssim() for a
    colour picture (MPRNet's GOPRO figures) and NAFNet's `ssim3d`. Higher than ``ssim``.
    """
    def mean(volume: np.ndarray) -> np.ndarray:
        return gaussian(volume, SIGMA, mode='nearest', truncate=TRUNCATE, channel_axis=None)

    x, y = picture.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    values /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(values.mean())


def aligned_psnr_ssim(picture: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """
    Return PSNR (dB) and SSIM of ``picture`` after alignment to ``truth``, as in RealBlur.

    Both are uint8 H x W x 3, RGB. One factor matches the brightness, and a homography that
    maximises ECC matches the position. Only pixels that the warped picture covers count. If ECC
    doesn't converge, the picture is not warped. Source: the evaluation script of Rim et al. 2020,
    after Koehler et al. 2012.
    """
    truth, picture = (image.astype(np.float32) / 255 for image in (truth, picture))
    picture = picture * (np.sum(truth * picture) / max(np.sum(picture * picture), 1e-12))
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (truth, picture)]
    stop = cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 0
    warp = np.eye(3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(*grey, warp, cv2.MOTION_HOMOGRAPHY, stop, None, 5)
    except cv2.error:
        warp = np.eye(3, dtype=np.float32)
    size = truth.shape[1], truth.shape[0]
    moved = cv2.warpPerspective(
        picture, warp, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    covered = cv2.warpPerspective(
        np.ones_like(picture), warp, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    moved, truth = moved * covered, truth * covered
    error = np.sum((moved - truth) ** 2, dtype=np.float64) / max(covered.sum(), 1)
    _, values = structural_similarity(
        truth, moved, gaussian_weights=True, sigma=SIGMA, use_sample_covariance=False,
        channel_axis=-1, data_range=1.0, full=True,
    )
    inner = covered[5:-5, 5:-5]
    similarity = (values[5:-5, 5:-5] * inner).sum() / max(inner.sum(), 1)
    return float(-10 * np.log10(error)) if error else float('inf'), float(similarity)


def features_kept(picture: np.ndarray, truth: np.ndarray) -> float:
    """
    Return the share (0..1) of the sharp image's features that a matcher finds in ``picture``.

    The ``FEATURES`` strongest SIFT features of ``truth`` count as kept when their match (Lowe's
    ratio test) lies within ``MATCH_DISTANCE`` pixels of their place. Both images are uint8
    H x W x 3, RGB.
    """
    sift = cv2.SIFT_create(FEATURES)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (truth, picture)]
    (points, wanted), (found, offered) = (sift.detectAndCompute(image, None) for image in grey)
    if wanted is None or offered is None or len(offered) < 2:
        return 0.0
    kept = 0
    for best, second in cv2.BFMatcher().knnMatch(wanted, offered, k=2):
        if best.distance < MATCH_RATIO * second.distance:
            there, here = points[best.queryIdx].pt, found[best.trainIdx].pt
            kept += float(np.hypot(there[0] - here[0], there[1] - here[1])) <= MATCH_DISTANCE
    return kept / len(points)


def flicker(pictures: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> list[float]:
    """
    Return the flicker: how much more than the truth each picture changed since the previous one.

    It is the RMS over pixels and channels, in units of 0..255, of (picture - previous picture) -
    (truth - previous truth). A constant error does not flicker. An error that is new in each frame
    flickers by its sigma times the root of 2. Both arguments are T uint8 images of one shape;
    returns T - 1 values.
    """
    errors = [
        picture.astype(np.float32) - truth for picture, truth in zip(pictures, truths, strict=True)
    ]
    return [float(np.sqrt(np.mean((now - then) ** 2))) for then, now in pairwise(errors)]


@torch.inference_mode()
def restore_image(
    generator: torch.nn.Module, image: np.ndarray, device: torch.device | str,
    clearer: Clearer | None = None,
) -> np.ndarray:
    """
    Run ``generator``, which is in evaluation mode on ``device``, over one whole picture.

    ``image`` is uint8 H x W x 3, RGB, of any size; so is the result. ``clearer``, if given, first
    removes the veil and what is on the glass. The generator runs in its own precision. NaN becomes
    black, so a broken generator gets a bad score instead of ending the run.
    """
    if clearer is not None:
        image = clearer.still(image)
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device)
    restored = generator(pixels.permute(2, 0, 1)[None].float().div(255))[0]
    restored = restored.nan_to_num().clamp(0, 1).mul(255).round().byte()
    return restored.permute(1, 2, 0).cpu().numpy()
