"""
A straight blur undone by Wiener's filter, window by window: no network, what physics alone can do.

A blur of L pixels along a line multiplies the spectrum by sinc(f L), f the frequency along it. To
divide by that where it is not small, and no more where noise would come up, gains 2.5 dB at 8 and
at 16 pixels; where the motion is curved or wrongly told it rings. So it is one of the planes of
``fusion.Evidence.along``, of which the network takes as much as is good.

Source: Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949; in
windows, because the motion differs from place to place.
"""

import torch
from torch import Tensor
from torch.nn import functional

from iov_restore_ros.model.cpu import on_one_thread

CELL = 4  # pixels on a side of what has one motion, and the blocks see as one place
SIDE = 64  # pixels of a window, twice the longest blur
STEP = SIDE // 2  # between windows
NOISE = 0.03  # power, a share of that of the picture


def deconvolve(grey: Tensor, motion: Tensor) -> Tensor:
    """
    Return ``grey`` (float32 N x 1 x H x W) as it was before it moved by ``motion``.

    ``motion`` (float32 N x 2 x ceil(H / 4) x ceil(W / 4)) is in pixels, x before y. Where it is 0
    nothing changes.
    """
    count, _, height, width = grey.shape
    rows, columns = (-(-side // STEP) + 1 for side in (height, width))
    windows = _pad(grey, 1, rows, columns).unfold(2, SIDE, STEP).unfold(3, SIDE, STEP)
    ways = functional.avg_pool2d(_pad(motion, CELL, rows, columns), SIDE // CELL, STEP // CELL)
    # Its square adds up to 1 where windows overlap.
    taper = torch.hann_window(SIDE, device=grey.device).sqrt()
    taper = taper * taper[:, None]
    means = windows.mean((-2, -1), keepdim=True)
    down = torch.fft.fftfreq(SIDE, device=grey.device)[:, None]
    across = torch.fft.rfftfreq(SIDE, device=grey.device)
    x, y = ways[:, :, :, :, None, None].split(1, 1)
    blur = torch.sinc(x * across + y * down)
    spectrum = torch.fft.rfft2((windows - means) * taper)
    spectrum *= blur * (1 + NOISE) / (blur**2 + NOISE)
    # Its last bits would depend on the number of threads.
    undone = on_one_thread(torch.fft.irfft2, spectrum, (SIDE, SIDE))
    undone = undone * taper + means * taper**2
    # Each window is four tiles of the sum.
    tiles = undone.new_zeros(count, rows + 1, STEP, columns + 1, STEP)
    for top in (0, 1):
        for left in (0, 1):
            part = undone[:, 0, ..., top * STEP :, left * STEP :][..., :STEP, :STEP]
            tiles[:, top : top + rows, :, left : left + columns] += part.transpose(2, 3)
    whole = tiles.reshape(count, 1, (rows + 1) * STEP, (columns + 1) * STEP)
    return whole[..., STEP : STEP + height, STEP : STEP + width]


def _pad(planes: Tensor, cell: int, rows: int, columns: int) -> Tensor:
    """Pad ``planes`` by one step before, and to so many windows behind."""
    height, width = planes.shape[-2:]
    step = STEP // cell
    bottom, right = (rows + 1) * step - step - height, (columns + 1) * step - step - width
    return functional.pad(planes, (step, right, step, bottom), mode='replicate')
