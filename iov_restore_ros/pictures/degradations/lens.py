"""
Water on the lens, which is out of focus: drops refract, smears blur.

Source: Wei et al. 2021, introduction ("the rain attached to the lens").
"""

import torch
from torch import Tensor
from torch.nn import functional

from iov_restore_ros.pictures.degradations.draw import normal, per_sample, smooth_field, uniform

DROPS = 6
WITH_DROPS = 0.5  # share of the samples
WITH_SMEARS = 0.2


def drops(image: Tensor, strength: Tensor, rng: torch.Generator) -> Tensor:
    """
    Put up to ``DROPS`` drops on the lens in a share ``WITH_DROPS`` of the samples.

    Inside a drop the scene is minified about the drop's centre (refraction), blurred, and veiled by
    scattered light.
    """
    count, _, height, width = image.shape
    with_drops = uniform(count, rng) < WITH_DROPS
    y = torch.arange(height, device=image.device).view(1, -1, 1) + 0.5
    x = torch.arange(width, device=image.device).view(1, 1, -1) + 0.5
    mask = torch.zeros(count, height, width, device=image.device)
    shift_x, shift_y = torch.zeros_like(mask), torch.zeros_like(mask)

    def each() -> Tensor:
        return uniform(count, rng).view(-1, 1, 1)

    for _ in range(DROPS):
        present = (with_drops.view(-1, 1, 1) & (each() < 0.4)).float()
        radius = 4 + 50 * each().pow(2)
        stretch = 1 + 0.5 * each()
        away_x, away_y = x - width * each(), (y - height * each()) / stretch
        distance = torch.sqrt(away_x**2 + away_y**2) / radius
        drop = present * torch.sigmoid((4 + 12 * each()) * (1 - distance))
        shift_x, shift_y = shift_x + drop * away_x, shift_y + drop * away_y
        mask = torch.maximum(mask, drop)

    refraction = 1.5 * each()
    grid = torch.stack([
        2 * (x + refraction * shift_x) / width - 1, 2 * (y + refraction * shift_y) / height - 1,
    ], -1)
    seen = functional.grid_sample(
        _defocused(image), grid, padding_mode='reflection', align_corners=False
    )
    veil = per_sample(0.4 * uniform(count, rng).pow(2))
    light = per_sample(0.6 + 0.4 * uniform(count, rng))
    seen = seen + veil * (light - seen)
    opacity = per_sample(strength * (0.3 + 0.65 * uniform(count, rng))) * mask.unsqueeze(1)
    return image + opacity * (seen - image)


def smears(image: Tensor, strength: Tensor, rng: torch.Generator) -> Tensor:
    """Add a film of water in bands along the wiper's path to a fifth of the samples."""
    count, _, height, width = image.shape
    present = strength * (uniform(count, rng) < WITH_SMEARS)
    # The wiper stretches the film, which varies quickly across its path and slowly along it.
    tilt = per_sample(0.6 * normal(count, rng))
    y = torch.linspace(-1, 1, height, device=image.device).view(1, 1, -1, 1)
    x = torch.linspace(-1, 1, width, device=image.device).view(1, 1, 1, -1)
    bands = per_sample(4 + 12 * uniform(count, rng)) * (y + tilt * x)
    film = smooth_field(count, 4, height, width, rng) + 0.5 * torch.sin(
        bands + per_sample(6.28 * uniform(count, rng))
    )
    mask = torch.sigmoid(4 * (film - 0.3))
    seen = functional.interpolate(
        _defocused(image), (height, width), mode='bilinear', align_corners=False
    )
    veil = per_sample(0.2 * uniform(count, rng))
    seen = seen + veil * (0.8 - seen)
    opacity = per_sample(present * (0.2 + 0.6 * uniform(count, rng))) * mask
    return image + opacity * (seen - image)


def _defocused(image: Tensor) -> Tensor:
    """Return ``image`` at a quarter of its size, blurred over 20 pixels."""
    small = functional.avg_pool2d(image, 4, ceil_mode=True, count_include_pad=False)
    return functional.avg_pool2d(small, 5, 1, 2, count_include_pad=False)
