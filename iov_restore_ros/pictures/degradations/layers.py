"""Streaks from files: pictures of rain on black, like Garg and Nayar's (SIGGRAPH 2006)."""

import math
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from iov_restore_ros.pictures.files import Pictures, list_images, read_grey

ALIKE = 6  # files before and after one in the folder look alike
MOST = 3  # layers in a frame


class StreakLayers:
    """The streak layers below a folder, in name order; ``cache_gb`` GB stay in memory."""

    def __init__(self, folder: Path, cache_gb: float) -> None:
        self.layers = Pictures(list_images(folder), read_grey, cache_gb)

    def draw(self, frames: int, size: int, rng: np.random.Generator) -> Tensor:
        """
        Return the streaks of consecutive frames, float32 frames x 1 x size x size, 0..1.

        All layers look alike, with the same rotation and scale. Each frame gets other layers at
        other places.
        """
        look = int(rng.integers(len(self.layers.sources)))
        scale, turn = rng.uniform(0.6, 1.6), 0.25 * rng.normal()
        gain, flip = rng.uniform(0.5, 1.6), rng.random() < 0.5
        count = int(rng.integers(1, MOST + 1))
        cos, sin = math.cos(turn) / scale, math.sin(turn) / scale
        rotation = np.array([[cos, -sin], [sin, cos]])
        if flip:
            rotation[0] *= -1
        fall = np.zeros((frames, 1, size, size), np.float32)
        for frame in fall:
            for _ in range(count):
                layer = self.layers[look + int(rng.integers(-ALIKE, ALIKE + 1))]
                middle = rng.uniform(0.3, 0.7, 2) * layer.shape[1::-1]
                shift = middle - rotation @ np.full(2, size / 2)
                frame[0] += cv2.warpAffine(
                    layer, np.hstack([rotation, shift[:, None]]), (size, size),
                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT,
                )
        return torch.from_numpy(np.clip(gain / 255 * fall, 0, 1))
