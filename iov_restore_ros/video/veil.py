"""
Remove the veil of fog and far rain from a frame. Only this module does so.

    unveiler = Unveiler(load_veil())
    clear = unveiler.clear(frame)  # a still
    clear, memory = unveiler.follow(frame, stamp, memory)  # the next frame of a camera

A frame without a certain veil is returned unchanged. The veil of a camera is smoothed over its
history, so that the brightness of its frames does not pump.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from iov_restore_ros.compute.cpu import compute, on_one_thread
from iov_restore_ros.model.veil import Seen, Veil
from iov_restore_ros.pictures.thumbnail import THINNEST, describe, shrink, unveil

LASTS = 0.5  # s, time constant of the smoothing
DOUBTFUL, CERTAIN = 1.0, 2.0  # logits: below the first remove nothing, above the second all
LEAST_THICKNESS = 0.08  # mean of -log of the transmission; below it nothing is removed
FULL_THICKNESS = 0.16  # mean of -log of the transmission; above it the whole veil is removed


class VeilMemory(NamedTuple):
    """
    The veil of a camera, smoothed up to the frame of ``stamp`` (s).

    ``thickness``: float32 rows x columns, -log of the transmission; ``light``: the airlight,
    float32 3, RGB, 0..1; ``sure``: the logit that there is a veil.
    """

    stamp: float
    thickness: np.ndarray
    light: np.ndarray
    sure: float

    def through(self) -> np.ndarray:
        """Return the transmission to undo, float32 rows x columns; all 1 means no veil."""
        certain = (self.sure - DOUBTFUL) / (CERTAIN - DOUBTFUL)
        mean = float(self.thickness.mean())
        there = (mean - LEAST_THICKNESS) / (FULL_THICKNESS - LEAST_THICKNESS)
        strength = min(max(certain, 0.0), 1.0) * min(max(there, 0.0), 1.0)
        return np.exp(np.float32(-strength) * self.thickness)


class Unveiler:
    """Removes the veil that a network finds. One object serves any number of cameras."""

    def __init__(self, veil: Veil) -> None:
        """Take ``veil``. It runs on the CPU, wherever the generators run."""
        self._veil = veil.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def clear(self, frame: np.ndarray) -> np.ndarray:
        """Return a still (uint8 H x W x 3, RGB) without its veil; ``frame`` itself without one."""
        return self.follow(frame, 0.0, None)[0]

    def follow(
        self, frame: np.ndarray, stamp: float, memory: VeilMemory | None
    ) -> tuple[np.ndarray, VeilMemory]:
        """
        Return a frame received at ``stamp`` s without its veil, and the new memory.

        ``memory`` is the one returned for the previous frame, or None without a previous frame.
        """
        seen = compute(on_one_thread, self._look, describe(shrink(frame)))
        through, light, sure = (plane[0].numpy() for plane in seen)
        new = VeilMemory(stamp, -np.log(through.clip(THINNEST, 1)), light, float(sure))
        if memory is not None:
            new = smoothed(memory, new)
        through = new.through()
        clear = frame if through.min() == 1 else unveil(frame, through, new.light)
        return clear, new

    @torch.inference_mode()
    def _look(self, described: np.ndarray) -> Seen:
        return self._veil(torch.from_numpy(described)[None])


def smoothed(before: VeilMemory, new: VeilMemory) -> VeilMemory:
    """Return ``new`` averaged with ``before`` by age; a late frame changes nothing."""
    took = max(0.0, new.stamp - before.stamp)
    share = np.float32(1 - math.exp(-took / LASTS))
    return VeilMemory(
        max(new.stamp, before.stamp),
        before.thickness + share * (new.thickness - before.thickness),
        before.light + share * (new.light - before.light),
        before.sure + float(share) * (new.sure - before.sure),
    )
