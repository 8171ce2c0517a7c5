"""Random numbers on the device of their generator, and the sensor noise of all degradations."""

import torch
from torch import Tensor
from torch.nn import functional

NOISE = 0.004  # greatest sigma of sensor noise; with more, the generator learns to smooth

Shape = int | tuple[int, ...]


def uniform(shape: Shape, rng: torch.Generator) -> Tensor:
    """Return numbers from 0 to 1."""
    return torch.rand(shape, generator=rng, device=rng.device)


def normal(shape: Shape, rng: torch.Generator) -> Tensor:
    """Return numbers with mean 0 and standard deviation 1."""
    return torch.randn(shape, generator=rng, device=rng.device)


def per_sample(values: Tensor) -> Tensor:
    """Reshape N values to N x 1 x 1 x 1, to multiply N x C x H x W."""
    return values.view(-1, 1, 1, 1)


def smooth_field(
    count: int, cells: int, height: int, width: int, rng: torch.Generator
) -> Tensor:
    """Return N x 1 x H x W of normal values that vary over a grid of ``cells`` x ``cells``."""
    return functional.interpolate(
        normal((count, 1, cells, cells), rng), (height, width), mode='bicubic', align_corners=True
    )


def sensor_noise(image: Tensor, strength: Tensor, rng: torch.Generator) -> Tensor:
    """Add Gaussian noise with sigma up to ``NOISE`` and round to 8 bits."""
    sigma = per_sample(NOISE * strength * uniform(len(image), rng).pow(2))
    return ((image + sigma * normal(tuple(image.shape), rng)).clamp(0, 1) * 255).round() / 255
