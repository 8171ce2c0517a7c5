"""
Taking the veil of fog and of far rain off a frame: the one place where it is done.

    unveiler = Unveiler(load_veil())
    clear = unveiler.clear(frame)  # a still
    clear, memory = unveiler.follow(frame, stamp, memory)  # the next frame of a camera

A frame in which no veil is certain is returned as it is. Of a camera, what is seen is smoothed over
its past, so that its frames don't pump.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from iov_restore_ros.compute.cpu import compute, on_one_thread
from iov_restore_ros.model.veil import Seen, Veil
from iov_restore_ros.pictures.thumbnail import THINNEST, describe, shrink, unveil

LASTS = 0.5  # s, after which what was seen counts for a third
DOUBTFUL, CERTAIN = 1.0, 2.0  # logits: nothing is taken off up to one, all from the other on
LEAST_THICKNESS = 0.08  # -log of a mean transmission, below which a veil is none
FULL_THICKNESS = 0.16  # and from which on all of it is taken off


class VeilMemory(NamedTuple):
    """
    The veil of a camera, smoothed up to the frame of ``stamp`` (s).

    ``thickness``: float32 rows x columns, -log of the transmission; ``light``: float32 3, RGB,
    0..1; ``sure``: the logit of there being one.
    """

    stamp: float
    thickness: np.ndarray
    light: np.ndarray
    sure: float

    def through(self) -> np.ndarray:
        """Return the transmission to take off a frame, float32 rows x columns; all 1: nothing."""
        certain = (self.sure - DOUBTFUL) / (CERTAIN - DOUBTFUL)
        mean = float(self.thickness.mean())
        there = (mean - LEAST_THICKNESS) / (FULL_THICKNESS - LEAST_THICKNESS)
        strength = min(max(certain, 0.0), 1.0) * min(max(there, 0.0), 1.0)
        return np.exp(np.float32(-strength) * self.thickness)


class Unveiler:
    """Takes veils off frames by what a network sees; of any number of cameras."""

    def __init__(self, veil: Veil) -> None:
        """Take ``veil``, which runs on the CPU whatever the generators run on."""
        self._veil = veil.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def clear(self, frame: np.ndarray) -> np.ndarray:
        """Return a still (uint8 H x W x 3, RGB) without its veil; itself where it has none."""
        return self.follow(frame, 0.0, None)[0]

    def follow(
        self, frame: np.ndarray, stamp: float, memory: VeilMemory | None
    ) -> tuple[np.ndarray, VeilMemory]:
        """
        Return a frame received at ``stamp`` s without its veil, and what to remember of it.

        ``memory`` is what was returned for the one before; None: there is none.
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
    """Return ``new`` as far as it counts beside what was seen before; a late frame doesn't."""
    took = max(0.0, new.stamp - before.stamp)
    share = np.float32(1 - math.exp(-took / LASTS))
    return VeilMemory(
        max(new.stamp, before.stamp),
        before.thickness + share * (new.thickness - before.thickness),
        before.light + share * (new.light - before.light),
        before.sure + float(share) * (new.sure - before.sure),
    )
