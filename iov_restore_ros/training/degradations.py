"""
Degraded training input made from sharp images: motion blur and rain, batched, on any device.

Images are float32 N x 3 x H x W, RGB, 0..1, gamma-encoded as cameras deliver them. Everything
random comes from the ``torch.Generator`` given, so the same seed gives the same pictures.

Sources: Wei et al. 2021, Eqs. 1-3 (blur) and Eq. 8 (rain streaks); the drops and the mist on the
lens are the vehicle's problem named in the paper's introduction.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

GAMMA = 2.2  # Eq. 1
MARGIN = 24  # pixels around a crop that motion_blur needs and takes off
MAX_BLUR = 28.0  # pixels travelled during the exposure
FRAMES = 17  # M of Eq. 2
UNTOUCHED = 0.2  # share of samples that are clean on both sides
LIGHT = 0.1  # share of samples that are degraded only a little
NOISE = 0.004  # greatest sigma of the sensor's; with more, the generator learns to smooth


def draw_strength(count: int, rng: torch.Generator) -> Tensor:
    """Return ``count`` strengths: 0 for untouched samples, up to 0.1 for light ones, or 1."""
    draw = _uniform(count, rng)
    lightly = 0.01 + 0.09 * _uniform(count, rng)
    strength = torch.where(draw < UNTOUCHED + LIGHT, lightly, torch.ones(count))
    return torch.where(draw < UNTOUCHED, torch.zeros(count), strength)


def motion_blur(
    sharp: Tensor, strength: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """
    Blur as a moving camera does: the average of moved frames (Eqs. 2, 3).

    ``sharp`` carries ``MARGIN`` more pixels on every side than the crop wanted. Returns
    (blurred, target); the target is the frame at the middle of the exposure. Half of the samples
    are averaged in linear light (Eq. 1), half as they are, which is how GOPRO's `blur` was made.
    In a fifth of the samples a region moves on a path of its own. ``strength`` is N values from 0
    (untouched) to 1, see ``draw_strength``.
    """
    count, _, height, width = sharp.shape
    size = (height - 2 * MARGIN, width - 2 * MARGIN)
    target = sharp[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    gamma = torch.where(_uniform(count, rng) < 0.5, GAMMA, 1.0).view(-1, 1, 1, 1).to(sharp.device)

    light = sharp.clamp(0, 1).pow(gamma)
    blurred = _average(light, _camera_path(strength, rng), size)
    moving = ((_uniform(count, rng) < 0.2) & (strength > 0)).nonzero().flatten().to(sharp.device)
    if len(moving):
        mask = _blob_mask(len(moving), height, width, rng).to(sharp.device)
        own_strength = 1.5 * strength[moving.cpu()] * _uniform(len(moving), rng)
        path = _camera_path(own_strength, rng)
        layers = _average(torch.cat([light[moving] * mask, mask], 1), path, size)
        blurred[moving] = layers[:, :3] + blurred[moving] * (1 - layers[:, 3:])
    blurred = blurred.clamp(0, 1).pow(1 / gamma)
    blurred = torch.where(strength.view(-1, 1, 1, 1).to(sharp.device) > 0, blurred, target)
    return _sensor_noise(blurred, strength, rng), target


def rain(sharp: Tensor, strength: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """
    Add rain: drops on the lens, mist, and streaks W by Y = X + W (Eq. 8).

    Returns (rainy, target), both of the shape of ``sharp``; the target is ``sharp`` itself.
    ``strength`` as for ``motion_blur``.
    """
    count, _, height, width = sharp.shape
    on = strength.view(-1, 1, 1, 1).to(sharp.device)
    rainy = _drops_on_lens(sharp, on, rng)
    rainy = _mist(rainy, on, rng)
    rainy = (rainy + _streaks(count, height, width, strength, rng).to(sharp.device)).clamp(0, 1)
    rainy = torch.where(on > 0, rainy, sharp)
    return _sensor_noise(rainy, strength, rng), sharp


DEGRADATIONS = {'deblur': motion_blur, 'derain': rain}


def _camera_path(strength: Tensor, rng: torch.Generator) -> Tensor:
    """
    Return camera motions as FRAMES x N x 2 x 3 affine matrices in pixels, identity in the middle.

    Travel along a curved line plus shake; roll; and forward motion, a zoom about a focus of
    expansion that may lie outside of the crop.
    """
    count = len(strength)
    time = torch.linspace(-0.5, 0.5, FRAMES).view(-1, 1)
    length = strength * MAX_BLUR * (0.05 + 0.95 * _uniform(count, rng).pow(1.5))
    # Half of the motions are nearly horizontal: yaw, and what passes beside the road.
    level = _uniform(count, rng) < 0.5
    angle = torch.where(level, 0.2 * _normal(count, rng), 2 * math.pi * _uniform(count, rng))
    along, across = time, 0.2 * _normal(count, rng) * 2 * time.pow(2)
    for frequency in (1.0, 2.0):
        phase = 2 * math.pi * _uniform(count, rng)
        wave = torch.sin(2 * math.pi * frequency * time + phase) - torch.sin(phase)
        along = along + 0.05 / frequency * _normal(count, rng) * wave
        across = across + 0.05 / frequency * _normal(count, rng) * wave
    x = length * (along * torch.cos(angle) - across * torch.sin(angle))
    y = length * (along * torch.sin(angle) + across * torch.cos(angle))

    zoom = 1 + 0.01 * strength * _normal(count, rng) * time
    roll = 0.015 * strength * _normal(count, rng) * time
    focus = 150.0 * _normal(count, rng), 150.0 * _normal(count, rng)
    cos, sin = zoom * torch.cos(roll), zoom * torch.sin(roll)
    shift_x = x + focus[0] - (cos * focus[0] - sin * focus[1])
    shift_y = y + focus[1] - (sin * focus[0] + cos * focus[1])
    rows = torch.stack([cos, -sin, shift_x, sin, cos, shift_y], -1)
    return rows.view(FRAMES, count, 2, 3)


def _average(image: Tensor, path: Tensor, size: tuple[int, int]) -> Tensor:
    """Average ``image`` (N x C x H x W) moved along ``path``; returns its centre of ``size``."""
    count, channels, height, width = image.shape
    total = torch.zeros(count, channels, *size, device=image.device)
    # From pixels about the centre to grid_sample's -1..1: theta = F^-1 M S, with F half the
    # frame and S half the centre that is wanted.
    frame = torch.tensor([[width / 2], [height / 2]])
    centre = torch.tensor([size[1] / 2, size[0] / 2, 1.0])
    for matrices in path:
        theta = (matrices * centre / frame).to(image.device)
        grid = functional.affine_grid(theta, [count, channels, *size], align_corners=False)
        total += functional.grid_sample(image, grid, padding_mode='border', align_corners=False)
    return total / len(path)


def _streaks(count: int, height: int, width: int, strength: Tensor, rng: torch.Generator) -> Tensor:
    """
    Return W of Eq. 8, N x 1 x H x W: four layers of streaks that share a wind direction.

    Half of the samples are heavy rain, which covers up to most of the picture, half are light.
    A layer is a set of random points convolved with one streak, on a torus (by FFT).
    """
    heavy = _uniform(count, rng) < 0.5
    wind = 0.3 * _normal(count, rng)  # radians from vertical
    y = torch.fft.fftfreq(height, 1 / height).view(1, -1, 1)
    x = torch.fft.fftfreq(width, 1 / width).view(1, 1, -1)
    total = torch.zeros(count, 1, height, width)
    for _ in range(4):
        angle = (wind + 0.1 * _normal(count, rng)).view(-1, 1, 1)
        length = (8 + 60 * _uniform(count, rng)).view(-1, 1, 1)
        thickness = (0.6 + 2.2 * _uniform(count, rng).pow(2)).view(-1, 1, 1)
        along = (x * torch.sin(angle) + y * torch.cos(angle)).abs()
        across = (x * torch.cos(angle) - y * torch.sin(angle)).abs()
        streak = torch.sigmoid(length / 2 - along) * torch.sigmoid(4 * (thickness - across))

        covered = torch.where(
            heavy, 0.02 + 0.18 * _uniform(count, rng), 0.06 * _uniform(count, rng).pow(2)
        )
        density = covered.view(-1, 1, 1) / streak.sum((1, 2), keepdim=True)
        points = (_uniform((count, height, width), rng) < density).float()
        points *= 0.4 + 0.6 * _uniform((count, height, width), rng)
        spectrum = torch.fft.rfft2(points) * torch.fft.rfft2(streak)
        layer = torch.fft.irfft2(spectrum, s=(height, width)).clamp(0, 1)
        brightness = torch.where(
            heavy, 0.2 + 0.6 * _uniform(count, rng), 0.05 + 0.45 * _uniform(count, rng)
        )
        total += (brightness * strength).view(-1, 1, 1, 1) * layer.unsqueeze(1)
    return total


def _drops_on_lens(image: Tensor, strength: Tensor, rng: torch.Generator) -> Tensor:
    """
    Put up to six drops on the lens of half of the samples.

    A drop is out of focus: inside of it the scene is minified about its centre (refraction),
    blurred, and veiled by scattered light.
    """
    count, _, height, width = image.shape
    with_drops = _uniform(count, rng) < 0.5
    y = torch.arange(height).view(1, -1, 1) + 0.5
    x = torch.arange(width).view(1, 1, -1) + 0.5
    mask = torch.zeros(count, height, width)
    shift_x, shift_y = torch.zeros_like(mask), torch.zeros_like(mask)
    for _ in range(6):
        present = (with_drops & (_uniform(count, rng) < 0.4)).float().view(-1, 1, 1)
        radius = (4 + 50 * _uniform(count, rng).pow(2)).view(-1, 1, 1)
        stretch = (1 + 0.5 * _uniform(count, rng)).view(-1, 1, 1)
        centre_x = (width * _uniform(count, rng)).view(-1, 1, 1)
        centre_y = (height * _uniform(count, rng)).view(-1, 1, 1)
        away_x, away_y = x - centre_x, (y - centre_y) / stretch
        distance = torch.sqrt(away_x**2 + away_y**2) / radius
        softness = (4 + 12 * _uniform(count, rng)).view(-1, 1, 1)
        drop = present * torch.sigmoid(softness * (1 - distance))
        shift_x, shift_y = shift_x + drop * away_x, shift_y + drop * away_y
        mask = torch.maximum(mask, drop)
    if not with_drops.any():
        return image

    small = functional.avg_pool2d(image, 4, ceil_mode=True, count_include_pad=False)
    small = functional.avg_pool2d(small, 5, 1, 2, count_include_pad=False)
    refraction = (1.5 * _uniform(count, rng)).view(-1, 1, 1)
    grid = torch.stack([
        2 * (x + refraction * shift_x) / width - 1, 2 * (y + refraction * shift_y) / height - 1,
    ], -1).to(image.device)
    seen = functional.grid_sample(small, grid, padding_mode='reflection', align_corners=False)
    veil = (0.4 * _uniform(count, rng).pow(2)).view(-1, 1, 1, 1).to(image.device)
    light = (0.6 + 0.4 * _uniform(count, rng)).view(-1, 1, 1, 1).to(image.device)
    seen = seen * (1 - veil) + light * veil
    opacity = (0.3 + 0.65 * _uniform(count, rng)).view(-1, 1, 1, 1).to(image.device)
    opacity = strength * opacity * mask.unsqueeze(1).to(image.device)
    return image * (1 - opacity) + seen * opacity


def _mist(image: Tensor, strength: Tensor, rng: torch.Generator) -> Tensor:
    """Veil a third of the samples with a smooth, bright, uneven layer of mist."""
    count, _, height, width = image.shape
    amount = torch.where(
        _uniform(count, rng) < 0.33, 0.35 * _uniform(count, rng), torch.zeros(count)
    ).view(-1, 1, 1, 1)
    cloud = functional.interpolate(
        0.5 + 0.5 * _uniform((count, 1, 3, 3), rng), (height, width), mode='bicubic'
    )
    light = (0.6 + 0.35 * _uniform(count, rng)).view(-1, 1, 1, 1).to(image.device)
    amount = strength * (amount * cloud).to(image.device)
    return image * (1 - amount) + light * amount


def _blob_mask(count: int, height: int, width: int, rng: torch.Generator) -> Tensor:
    """Return soft-edged random regions, N x 1 x H x W in 0..1, about a third of the picture."""
    field = functional.interpolate(
        _normal((count, 1, 5, 5), rng), (height, width), mode='bicubic', align_corners=True
    )
    return torch.sigmoid(20 * (field - 0.3))


def _sensor_noise(image: Tensor, strength: Tensor, rng: torch.Generator) -> Tensor:
    """Add Gaussian noise with sigma up to ``NOISE`` and round as 8 bits do."""
    count = len(image)
    sigma = (NOISE * strength * _uniform(count, rng).pow(2)).view(-1, 1, 1, 1)
    noise = sigma.to(image.device) * _normal(tuple(image.shape), rng).to(image.device)
    return ((image + noise).clamp(0, 1) * 255).round() / 255


def _uniform(shape: int | tuple[int, ...], rng: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=rng)


def _normal(shape: int | tuple[int, ...], rng: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=rng)
