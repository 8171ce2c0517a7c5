"""
Motion blur: the average of moved frames along the paths of a camera on a vehicle.

Source: Wei et al. 2021, Eqs. 1-3.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from iov_restore_ros.pictures.degradations.draw import (
    normal,
    per_sample,
    sensor_noise,
    smooth_field,
    uniform,
)
from iov_restore_ros.tasks import DEBLUR

GAMMA = 2.2  # Eq. 1
BLUR_MARGIN = DEBLUR.margin  # pixels around a crop that motion_blur needs and removes
MAX_BLUR = 28.0  # pixels travelled during the exposure
MOMENTS = 17  # M of Eq. 2


def motion_blur(
    sharp: Tensor, strength: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """
    Simulate the blur of a moving camera: average moved frames (Eqs. 2, 3).

    ``sharp`` has ``BLUR_MARGIN`` more pixels on every side than the result. Returns (blurred,
    target); the target is the frame at the middle of the exposure. Half of the samples are averaged
    in linear light (Eq. 1), half gamma-encoded, like GOPRO's `blur`. In a fifth of the samples a
    region moves along a separate path. ``strength`` is N values from 0 (untouched) to 1, see
    ``draw_strength``.
    """
    count, _, height, width = sharp.shape
    size = (height - 2 * BLUR_MARGIN, width - 2 * BLUR_MARGIN)
    target = sharp[..., BLUR_MARGIN:-BLUR_MARGIN, BLUR_MARGIN:-BLUR_MARGIN]
    gamma = per_sample(torch.where(uniform(count, rng) < 0.5, GAMMA, 1.0))

    light = sharp.clamp(0, 1).pow(gamma)
    blurred = _average(light, camera_path(strength, rng), size)
    moving = ((uniform(count, rng) < 0.2) & (strength > 0)).nonzero().flatten()
    if len(moving):
        mask = torch.sigmoid(20 * (smooth_field(len(moving), 5, height, width, rng) - 0.3))
        path = camera_path(1.5 * strength[moving] * uniform(len(moving), rng), rng)
        layers = _average(torch.cat([light[moving] * mask, mask], 1), path, size)
        blurred[moving] = layers[:, :3] + blurred[moving] * (1 - layers[:, 3:])
    blurred = blurred.clamp(0, 1).pow(1 / gamma)
    blurred = torch.where(per_sample(strength) > 0, blurred, target)
    return sensor_noise(blurred, strength, rng), target


def camera_path(strength: Tensor, rng: torch.Generator) -> Tensor:
    """
    Return camera motions as MOMENTS x N x 2 x 3 affine matrices in pixels, identity in the middle.

    A motion combines travel along a curved line, shake, roll, and forward motion. Forward motion is
    a zoom about a focus of expansion that may lie outside the crop.
    """
    count = len(strength)
    time = torch.linspace(-0.5, 0.5, MOMENTS, device=strength.device).view(-1, 1)
    length = strength * MAX_BLUR * (0.05 + 0.95 * uniform(count, rng).pow(1.5))
    # Half of the motions are nearly horizontal, like yaw and objects passing beside the road.
    level = uniform(count, rng) < 0.5
    angle = torch.where(level, 0.2 * normal(count, rng), 2 * math.pi * uniform(count, rng))
    along, across = time, 0.2 * normal(count, rng) * 2 * time.pow(2)
    for frequency in (1.0, 2.0):
        phase = 2 * math.pi * uniform(count, rng)
        wave = torch.sin(2 * math.pi * frequency * time + phase) - torch.sin(phase)
        along = along + 0.05 / frequency * normal(count, rng) * wave
        across = across + 0.05 / frequency * normal(count, rng) * wave
    x = length * (along * torch.cos(angle) - across * torch.sin(angle))
    y = length * (along * torch.sin(angle) + across * torch.cos(angle))

    zoom = 1 + 0.01 * strength * normal(count, rng) * time
    roll = 0.015 * strength * normal(count, rng) * time
    focus = 150.0 * normal(count, rng), 150.0 * normal(count, rng)
    cos, sin = zoom * torch.cos(roll), zoom * torch.sin(roll)
    shift_x = x + focus[0] - (cos * focus[0] - sin * focus[1])
    shift_y = y + focus[1] - (sin * focus[0] + cos * focus[1])
    rows = torch.stack([cos, -sin, shift_x, sin, cos, shift_y], -1)
    return rows.view(MOMENTS, count, 2, 3)


def _average(image: Tensor, path: Tensor, size: tuple[int, int]) -> Tensor:
    """Average ``image`` (N x C x H x W) moved along ``path``; returns its centre of ``size``."""
    count, channels, height, width = image.shape
    total = torch.zeros(count, channels, *size, device=image.device)
    # Convert from pixels about the centre to grid_sample's -1..1: theta = F^-1 M S. F is half the
    # frame's size and S half the result's size.
    frame = torch.tensor([[width / 2], [height / 2]], device=image.device)
    centre = torch.tensor([size[1] / 2, size[0] / 2, 1.0], device=image.device)
    for matrices in path:
        theta = matrices * centre / frame
        grid = functional.affine_grid(theta, [count, channels, *size], align_corners=False)
        total += functional.grid_sample(image, grid, padding_mode='border', align_corners=False)
    return total / len(path)


