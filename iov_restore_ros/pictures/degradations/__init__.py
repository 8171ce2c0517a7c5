"""
Degraded training input made from sharp images: motion blur and rain, batched, on any device.

Images are float32 N x 3 x H x W, RGB, 0..1, gamma-encoded as cameras deliver them. Everything
random comes from the ``torch.Generator`` given, which lives on the device of the images: the same
seed gives the same pictures on the same kind of device.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from iov_restore_ros.pictures.degradations.blur import motion_blur
from iov_restore_ros.pictures.degradations.draw import uniform
from iov_restore_ros.pictures.degradations.rain import rain, shower

__all__ = ['DEGRADATIONS', 'Degradation', 'draw_strength', 'motion_blur', 'rain', 'shower']



@dataclass(frozen=True)
class Degradation:
    """
    How sharp pictures are degraded.

    ``pictures`` takes N of them, their strengths (0..1) and the ``torch.Generator``; it returns
    (degraded, target). ``frames`` takes consecutive ones, one strength, the generator and layers
    that somebody gives for it or None, as ``shower`` does; it returns them degraded. It is None of
    motion blur, which frames get from how they move: see `sequences.py`.
    """

    pictures: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
    frames: Callable[..., Tensor] | None = None


DEGRADATIONS = {  # by `Task.degradation`
    'motion_blur': Degradation(motion_blur),
    'rain': Degradation(rain, shower),
}


def draw_strength(count: int, clean: float, light: float, rng: torch.Generator) -> Tensor:
    """
    Return ``count`` strengths: 1, or 0 for the share ``clean``, or 0.01..0.1 for ``light``.

    Frames that need nothing must come out as they went in, and so must be trained on.
    """
    draw = uniform(count, rng)
    lightly = 0.01 + 0.09 * uniform(count, rng)
    strength = torch.where(draw < clean + light, lightly, torch.ones_like(draw))
    return torch.where(draw < clean, torch.zeros_like(draw), strength)
