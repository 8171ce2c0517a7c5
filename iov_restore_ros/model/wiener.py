"""
Wiener deconvolution in windows: undo a blur with a known path, without a network.

A picture that moves along a path d(t) during the exposure becomes the mean of its shifted copies.
So the blur multiplies its spectrum by the mean of exp(-2 pi i f d). For a straight path of L pixels
this is sinc(f L). Wiener's filter divides by it where it is not small, and stops where noise would
grow. This gains 4 dB on a camera that a bad road shakes by 10 pixels. If the path is wrong, the
result rings. So the network decides how much of it to take (``fusion.Evidence.undone``).

What noise hides, the restored previous frame may show. Where the filter stops, it fills in the
spectrum of that frame, warped onto this one: the mean that a picture has before it is seen. Without
a previous frame that mean is 0, as Wiener has it.

Source: Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949. We use
windows, because the path differs from place to place.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

CELL = 4  # pixels on a side of a cell: it has one path, and is one place for the blocks
SIDE = 96  # pixels of a window
STEP = 64  # pixels between windows, which overlap by half a step
BLOCK = SIDE - STEP
POINTS = 24  # number of points of a path at which the blur is evaluated
# Terms added to the power spectrum of the blur, by which the filter divides. FLOOR is always added,
# because no path is exact. The rest is for noise relative to the scene, whose power falls with the
# frequency.
FLOOR = 0.02
NOISE = 0.5
FALL = 400.0  # times the square of the frequency, in cycles per pixel
NOISY = slice(36, 61), slice(36, 49)  # frequencies at which a window shows little but noise
STRIP = 4  # rows of windows that ``noise_of`` processes together


def deconvolve(
    image: Tensor, path: Tensor, noise: Tensor | None = None,
    inverse: Callable[..., Tensor] = torch.fft.irfft2, prior: Tensor | None = None,
) -> Tensor:
    """
    Return ``image`` (float32 N x C x H x W) without the blur along ``path``.

    ``path`` (float32 N x M x 2 x ceil(H / 4) x ceil(W / 4)) is where the content of each cell was
    at M evenly spaced moments of the exposure. It is in pixels relative to the middle of the
    exposure, x before y. Where it is 0, nothing changes.

    ``noise`` (N) is the result of ``noise_of``. If ``image`` is a part of a larger image (see
    ``reach``), it is the noise of the larger one. By default it is the noise of ``image``.
    ``inverse`` is called in place of ``irfft2``, whose last bits depend on the number of threads.
    ``prior`` has the shape of ``image``: the warped previous frame, or 0 where there is none.
    """
    count, channels, height, width = image.shape
    means, apart = _windows(image)
    rows, columns = apart.shape[2:4]
    contrast = torch.linalg.vector_norm(apart, dim=(-2, -1)).square().mean(1)  # of a window
    spectrum = torch.fft.rfft2(apart)
    if noise is None:
        noise = _noise(_finest(spectrum))
    ratio = (NOISE * noise[:, None, None] / contrast.clamp(min=1e-6)).clamp(max=1)
    planes = _pad(path.flatten(1, 2), CELL, rows, columns)
    # The mean of each window is made of the means of blocks, which windows share.
    paths = functional.avg_pool2d(functional.avg_pool2d(planes, BLOCK // CELL), 3, 2)
    gain, left = _gain(paths.unflatten(1, path.shape[1:3]), ratio)
    spectrum *= gain[:, None]
    if prior is not None:
        filled = torch.fft.rfft2(_windows(prior)[1])
        torch.view_as_real(spectrum).addcmul_(torch.view_as_real(filled), left[:, None, ..., None])
    undone = inverse(spectrum, (SIDE, SIDE))
    taper = _taper(image.device)
    undone.addcmul_(means, taper)
    # Each window has one square of the sum, and reaches into the three that follow it.
    squares = undone.new_zeros(count, channels, rows + 1, STEP, columns + 1, STEP)
    parts = slice(0, STEP), slice(STEP, SIDE)
    for down, upright in enumerate(parts):
        for right, level in enumerate(parts):
            weights = taper[upright, None, level]
            tall, _, wide = weights.shape
            sums = squares[:, :, down : down + rows, :tall, right : right + columns, :wide]
            sums.addcmul_(undone[..., upright, level].transpose(3, 4), weights)
    whole = squares.flatten(4).flatten(2, 3)
    return whole[..., BLOCK : BLOCK + height, BLOCK : BLOCK + width]


def reach(start: int, stop: int, length: int) -> slice:
    """
    Return the part of an axis that ``deconvolve`` needs for ``start`` to ``stop``.

    With this part the result there equals that for the whole axis. The part starts at a multiple
    of ``STEP``, so that the windows keep their places. It ends at a multiple or at ``length``.
    """
    return slice(
        max(0, (start // STEP - 1) * STEP), min(length, ((stop + BLOCK - 1) // STEP + 1) * STEP)
    )


def noise_of(strips: Iterator[Tensor]) -> Tensor:
    """
    Return the noise (N) in the windows of an image, given as the ``strips`` of ``strips_of``.

    It is the noise that ``deconvolve`` finds in the whole image, with the memory of one strip.
    """
    finest = []
    for number, strip in enumerate(strips):
        rows = _finest(torch.fft.rfft2(_windows(strip)[1]))
        finest.append(rows[:, min(number, 1):][:, :STRIP])
    return _noise(torch.cat(finest, 1))


def strips_of(height: int) -> list[slice]:
    """Return the rows of the overlapping strips that ``noise_of`` takes."""
    rows = -(-(height - BLOCK) // STEP) + 1
    return [
        slice(max(0, (first - 1) * STEP), min(height, (first + STRIP) * STEP))
        for first in range(0, rows, STRIP)
    ]


def _windows(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means of the windows, and the windows minus means, tapered: N x C x ...."""
    rows, columns = (-(-(side - BLOCK) // STEP) + 1 for side in image.shape[-2:])
    windows = _pad(image, 1, rows, columns).unfold(2, SIDE, STEP).unfold(3, SIDE, STEP)
    means = windows.mean((-2, -1), keepdim=True)
    # Each window becomes contiguous in new memory. Otherwise each step would copy it.
    apart = torch.sub(windows, means, out=torch.empty(windows.shape, device=image.device))
    apart *= _taper(image.device)
    return means, apart


def _finest(spectrum: Tensor) -> Tensor:
    """Return the power of the finest structure of each window: N x rows x columns."""
    return torch.view_as_real(spectrum[..., NOISY[0], NOISY[1]]).square().mean((1, -3, -2, -1))


def _noise(finest: Tensor) -> Tensor:
    """Return the noise, N. Many windows are smooth; fine structure in these is noise."""
    finest = finest.flatten(1)
    return 2 * finest.kthvalue(1 + finest.shape[1] // 4, 1).values


def _taper(device: torch.device) -> Tensor:
    """Return the weights of a window. Their squares add up to 1 where windows overlap."""
    rising = torch.sin(math.pi / 2 * (torch.arange(BLOCK, device=device) + 0.5) / BLOCK)
    along = torch.cat([rising, torch.ones(SIDE - 2 * BLOCK, device=device), rising.flip(0)])
    return along * along[:, None]


def _gain(paths: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return the factors of the spectra of the windows: complex N x rows x columns x ....

    The second result, real, is the share of a sharp picture's spectrum that they do not recover.
    ``paths`` is N x M x 2 x rows x columns. ``ratio`` is noise to contrast, N x rows x columns.
    """
    real, imaginary = spectrum_of_blur(paths)
    down = torch.fft.fftfreq(SIDE, device=paths.device)[:, None]
    across = torch.fft.rfftfreq(SIDE, device=paths.device)
    rest = ratio[..., None, None] * (1 + FALL * (down**2 + across**2)) + FLOOR
    power = torch.addcmul(rest, real, real).addcmul_(imaginary, imaginary)
    # Adding 1 makes the gain 1 without a blur, whatever the noise.
    gain = (rest + 1).div_(power)
    left = 1 - power.sub_(rest).mul_(gain)
    return torch.complex(real * gain, imaginary * -gain), left


def spectrum_of_blur(paths: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return the blur spectrum of paths N x M x 2 x rows x columns: N x rows x columns x ..., twice.

    The results are its real and its imaginary part. All uses of them are real, and separate parts
    are far cheaper.
    """
    moments = paths.shape[1]
    where = torch.linspace(0, moments - 1, POINTS + 1, device=paths.device)
    where = (where[1:] + where[:-1]) / 2
    weights = (1 - (where[:, None] - torch.arange(moments, device=paths.device)).abs()).clamp(min=0)
    # N x rows x columns x POINTS x frequencies, of x and of y.
    x, y = torch.einsum('pm,nmdrc->dnrcp', weights, paths)[..., None]
    x = x * (-2 * math.pi * torch.fft.rfftfreq(SIDE, device=paths.device))
    y = y * (-2 * math.pi * torch.fft.fftfreq(SIDE, device=paths.device))
    across = torch.cat([x.cos(), x.sin()], -2) / POINTS
    cos, sin = y.cos(), y.sin()
    return torch.cat([cos, -sin], -2).mT @ across, torch.cat([sin, cos], -2).mT @ across


def _pad(planes: Tensor, cell: int, rows: int, columns: int) -> Tensor:
    """Pad ``planes`` by one block before the start, and to ``rows`` x ``columns`` windows."""
    height, width = planes.shape[-2:]
    block = BLOCK // cell
    bottom, right = (
        (2 * windows + 1) * block - block - side
        for windows, side in ((rows, height), (columns, width))
    )
    return functional.pad(planes, (block, right, block, bottom), mode='replicate')
