"""
Clear a frame in rain before the generator: remove the veil, and drops and dirt on the glass.

    clearer = load_clearer()
    clear = clearer.still(frame)
    cleared = clearer.follow(frame, stamp, previous, memory, task)  # a camera's next frame
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iov_restore_ros.model import FINDERS, finder_weights, load_glass, load_veil
from iov_restore_ros.video.aligner import Previous, align
from iov_restore_ros.video.before import Before
from iov_restore_ros.video.glass import Cleaner, Memory
from iov_restore_ros.video.veil import Unveiler, VeilMemory


class ClearMemory(NamedTuple):
    """The veil and the glass at a camera's last frame; None if unknown or after a reset."""

    veil: VeilMemory | None = None
    glass: Memory | None = None


class Clearer:
    """Removes what its two parts find; a part that is None is skipped."""

    def __init__(self, unveiler: Unveiler | None, cleaner: Cleaner | None) -> None:
        self._unveiler, self._cleaner = unveiler, cleaner

    def still(self, frame: np.ndarray) -> np.ndarray:
        """Return ``frame`` (uint8 H x W x 3, RGB) cleared; ``frame`` itself if it is clear."""
        if self._unveiler is not None:
            frame = self._unveiler.clear(frame)
        if self._cleaner is not None:
            frame = self._cleaner.clear(frame)
        return frame

    def follow(
        self, frame: np.ndarray, stamp: float, previous: Previous | None, memory: ClearMemory,
        task: str,
    ) -> tuple[Before, ClearMemory]:
        """
        Return the side information of ``frame``, received at ``stamp`` s, and the new memory.

        ``Before.clear`` is the cleared frame. ``task`` is the task of the restoration.

        If ``previous``, the previous frame, shows another scene, ``Before.pixels`` is None and the
        memory of the glass and the veil is reset.
        """
        veil, glass = memory
        clear = frame
        if self._unveiler is not None:
            if previous is not None and not previous.restored:
                pixels, veil = self._unveiler.follow(
                    previous.pixels, stamp - previous.took, veil
                )
                previous = previous._replace(pixels=pixels)
            clear, veil = self._unveiler.follow(frame, stamp, veil)
        aligned = align(clear, previous, task)
        known = aligned.before(0.0, False) or Before(None, None, None)
        if previous is not None and known.flow is None and (veil or glass):  # a cut
            return self.follow(frame, stamp, None, ClearMemory(), task)
        if self._cleaner is not None:
            found = self._cleaner.find(clear, known.pixels, glass)
            if known.flow is not None:
                known = known._replace(flow=found.flow(known.flow))
            restored = known.pixels if previous is not None and previous.restored else None
            clear, glass = self._cleaner.fill(clear, restored, known.flow, found)
        return known._replace(clear=clear), ClearMemory(veil, glass)


def load_clearer(files: Mapping[str, Path] | None = None) -> Clearer:
    """
    Return a ``Clearer`` with the weight ``files`` of ``FINDERS``; None means all shipped ones.

    A part whose name is not in ``files`` is skipped. Raises ``WeightsError``.
    """
    if files is None:
        files = {name: finder_weights(name) for name in FINDERS}
    return Clearer(
        Unveiler(load_veil(files['veil'])) if 'veil' in files else None,
        Cleaner(load_glass(files['glass'])) if 'glass' in files else None,
    )
