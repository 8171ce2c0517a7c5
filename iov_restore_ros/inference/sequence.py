"""Restore a sequence of frames in order, each with its previous frame."""

from collections.abc import Iterable

import numpy as np

from iov_restore_ros.inference.restorer import Restorer
from iov_restore_ros.video.history import History

INTERVAL = 1 / 32  # s between frames if their times are unknown; exact in binary


def restore_next(
    restorer: Restorer, history: History, frame: np.ndarray, stamp: float, task: str
) -> np.ndarray:
    """
    Restore the next frame of a sequence with the given ``history``. ``stamp`` is in seconds.

    See ``Restorer.restore`` for the frame, the result and the errors.
    """
    before = None
    if restorer.uses_past:
        before = history.look_back(frame, stamp, task, restorer.clearer)
    [restored] = restorer.restore([frame], task, [before])
    history.keep(restored, stamp, frame)
    return restored


def restore_sequence(
    restorer: Restorer, frames: Iterable[np.ndarray], task: str, shutter: float = 0.0
) -> list[np.ndarray]:
    """Restore frames of a constant rate with none missing; ``shutter``: see ``History``."""
    history = History(shutter=shutter)
    return [
        restore_next(restorer, history, frame, number * INTERVAL, task)
        for number, frame in enumerate(frames)
    ]
