"""
Degraded training input made from sharp images: motion blur and rain, batched, on any device.

Images are float32 N x 3 x H x W, RGB, 0..1, gamma-encoded as cameras deliver them. All random
numbers come from the given ``torch.Generator``, which is on the device of the images. The same seed
gives the same pictures on the same kind of device.
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
    Functions that degrade sharp pictures.

    ``pictures`` takes N pictures, their strengths (0..1) and the ``torch.Generator``; it returns
    (degraded, target). ``frames`` takes consecutive frames, one strength, the generator, and streak
    layers or None, as ``shower`` does; it returns the degraded frames. It is None for motion blur,
    because `sequences.py` blurs frames along their own motion.
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

    The generator must return clean frames unchanged, so it must train on clean frames too.
    """
    draw = uniform(count, rng)
    lightly = 0.01 + 0.09 * uniform(count, rng)
    strength = torch.where(draw < clean + light, lightly, torch.ones_like(draw))
    return torch.where(draw < clean, torch.zeros_like(draw), strength)
