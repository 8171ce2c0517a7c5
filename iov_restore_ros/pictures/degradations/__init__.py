"""
Degraded training input made from sharp images: motion blur and rain, batched, on any device.

Images are float32 N x 3 x H x W, RGB, 0..1, gamma-encoded as cameras deliver them. Everything
random comes from the ``torch.Generator`` given, which lives on the device of the images: the same
seed gives the same pictures on the same kind of device.
"""

import torch
from torch import Tensor

from iov_restore_ros.pictures.degradations.blur import MARGIN, motion_blur
from iov_restore_ros.pictures.degradations.draw import uniform
from iov_restore_ros.pictures.degradations.rain import rain, shower

__all__ = ['DEGRADATIONS', 'MARGINS', 'draw_strength', 'motion_blur', 'rain', 'shower']

DEGRADATIONS = {'deblur': motion_blur, 'derain': rain}
MARGINS = {'deblur': MARGIN, 'derain': 0}  # pixels around a crop that the degradation takes off


def draw_strength(count: int, clean: float, light: float, rng: torch.Generator) -> Tensor:
    """
    Return ``count`` strengths: 1, or 0 for the share ``clean``, or 0.01..0.1 for ``light``.

    Frames that need nothing must come out as they went in, and so must be trained on.
    """
    draw = uniform(count, rng)
    lightly = 0.01 + 0.09 * uniform(count, rng)
    strength = torch.where(draw < clean + light, lightly, torch.ones_like(draw))
    return torch.where(draw < clean, torch.zeros_like(draw), strength)
