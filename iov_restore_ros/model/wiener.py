"""
A blur whose path is known undone by Wiener's filter, window by window: no network, physics alone.

A picture that takes a path d(t) while the shutter is open comes out as the mean of itself, moved by
d: its spectrum is multiplied by the mean of exp(-2 pi i f d), of a straight path of L pixels
sinc(f L). To divide by that where it is not small, and no more where noise would come up, gains
4 dB on a camera that a bad road shakes by 10 pixels; where the path is wrongly told it rings. So it
is a part of ``fusion.Evidence.along``, of which the network takes as much as is good.

Source: Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949; in
windows, because the path differs from place to place.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from iov_restore_ros.model.cpu import on_one_thread

CELL = 4  # pixels on a side of what has one path, and the blocks see as one place
SIDE = 96  # pixels of a window
STEP = 64  # between windows, which overlap by half a step
BLOCK = SIDE - STEP
POINTS = 24  # of a path, at which it is looked at
# What is added to the power of the blur's spectrum before dividing by it: always, as no path is
# told quite right, and for noise beside what is to be seen, which falls with the frequency.
FLOOR = 0.02
NOISE = 0.5
FALL = 400.0  # times the square of the frequency, in cycles per pixel
NOISY = slice(36, 61), slice(36, 49)  # frequencies at which a window shows hardly more than noise


def deconvolve(image: Tensor, path: Tensor) -> Tensor:
    """
    Return ``image`` (float32 N x C x H x W) as it was before it took ``path``.

    ``path`` (float32 N x M x 2 x ceil(H / 4) x ceil(W / 4)) is in pixels, x before y: where the
    content of each cell was at M moments, evenly spaced, of the exposure, seen from its middle.
    Where it is 0 nothing changes.
    """
    count, channels, height, width = image.shape
    rows, columns = (-(-(side - BLOCK) // STEP) + 1 for side in (height, width))
    windows = _pad(image, 1, rows, columns).unfold(2, SIDE, STEP).unfold(3, SIDE, STEP)
    planes = _pad(path.flatten(1, 2), CELL, rows, columns)
    paths = functional.avg_pool2d(planes, SIDE // CELL, STEP // CELL).unflatten(1, path.shape[1:3])
    taper = _taper(image.device)
    means = windows.mean((-2, -1), keepdim=True)
    apart = (windows - means).mul_(taper)
    contrast = torch.linalg.vector_norm(apart, dim=(-2, -1)).square().mean(1)  # of a window
    spectrum = torch.fft.rfft2(apart)
    blur = _spectrum_of_blur(paths)
    # Of many windows a good part is smooth; what their finest structure has is noise.
    finest = torch.view_as_real(spectrum[..., NOISY[0], NOISY[1]]).square().mean((1, -3, -2, -1))
    noise = 2 * finest.flatten(1).kthvalue(1 + rows * columns // 4, 1).values
    down = torch.fft.fftfreq(SIDE, device=image.device)[:, None]
    across = torch.fft.rfftfreq(SIDE, device=image.device)
    ratio = (NOISE * noise[:, None, None] / contrast.clamp(min=1e-6)).clamp(max=1)
    rest = ratio[..., None, None] * (1 + FALL * (down**2 + across**2)) + FLOOR
    power = torch.view_as_real(blur).square().sum(-1)
    # Without a blur nothing is to be undone, whatever the noise.
    spectrum *= (blur.conj() * ((1 + rest) / (power + rest)))[:, None]
    # Its last bits would depend on the number of threads.
    undone = on_one_thread(torch.fft.irfft2, spectrum, (SIDE, SIDE))
    undone.add_(means * taper).mul_(taper)
    # Each window is nine blocks of the sum, and shares all but the inner one with its neighbours.
    blocks = undone.new_zeros(count, channels, 2 * rows + 1, BLOCK, 2 * columns + 1, BLOCK)
    for top in range(3):
        for left in range(3):
            part = undone[..., top * BLOCK :, left * BLOCK :][..., :BLOCK, :BLOCK]
            sums = blocks[:, :, top : top + 2 * rows : 2, :, left : left + 2 * columns : 2]
            sums += part.transpose(3, 4)
    whole = blocks.flatten(4).flatten(2, 3)
    return whole[..., BLOCK : BLOCK + height, BLOCK : BLOCK + width]


def _taper(device: torch.device) -> Tensor:
    """Return the weights of a window; their squares add up to 1 where windows overlap."""
    rising = torch.sin(math.pi / 2 * (torch.arange(BLOCK, device=device) + 0.5) / BLOCK)
    along = torch.cat([rising, torch.ones(SIDE - 2 * BLOCK, device=device), rising.flip(0)])
    return along * along[:, None]


def _spectrum_of_blur(paths: Tensor) -> Tensor:
    """Return the spectrum of paths N x M x 2 x rows x columns: complex N x rows x columns x ...."""
    moments = paths.shape[1]
    where = torch.linspace(0, moments - 1, POINTS + 1, device=paths.device)
    where = (where[1:] + where[:-1]) / 2
    weights = (1 - (where[:, None] - torch.arange(moments, device=paths.device)).abs()).clamp(min=0)
    # N x rows x columns x POINTS, of x and of y.
    x, y = torch.einsum('pm,nmdrc->dnrcp', weights, paths)
    down = -2 * math.pi * torch.fft.fftfreq(SIDE, device=paths.device)
    across = -2 * math.pi * torch.fft.rfftfreq(SIDE, device=paths.device)
    y, x = y[..., None, :] * down[:, None], x[..., None] * across
    return torch.complex(y.cos(), y.sin()) @ torch.complex(x.cos(), x.sin()) / POINTS


def _pad(planes: Tensor, cell: int, rows: int, columns: int) -> Tensor:
    """Pad ``planes`` by one block before, and to so many windows behind."""
    height, width = planes.shape[-2:]
    block = BLOCK // cell
    bottom, right = (
        (2 * windows + 1) * block - block - side
        for windows, side in ((rows, height), (columns, width))
    )
    return functional.pad(planes, (block, right, block, bottom), mode='replicate')
