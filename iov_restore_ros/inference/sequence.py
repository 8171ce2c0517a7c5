"""Sequences of frames restored in order, each with what the one before it shows."""

from collections.abc import Iterable

import numpy as np

from iov_restore_ros.inference.restorer import Restorer
from iov_restore_ros.video.history import History

INTERVAL = 1 / 32  # s between frames whose times nobody knows; without rounding errors


def restore_next(
    restorer: Restorer, history: History, frame: np.ndarray, stamp: float, task: str
) -> np.ndarray:
    """
    Restore the next frame of a sequence, whose ``history`` this is; it came at ``stamp`` s.

    See ``Restorer.restore`` for what it takes, returns and raises.
    """
    before = None
    if restorer.uses_past:
        before = history.look_back(frame, stamp, task, restorer.clearer)
    [restored] = restorer.restore([frame], task, [before])
    history.keep(restored, stamp)
    return restored


def restore_sequence(
    restorer: Restorer, frames: Iterable[np.ndarray], task: str, shutter: float = 0.0
) -> list[np.ndarray]:
    """Restore frames that came at an even rate, none missing; ``shutter``: see ``History``."""
    history = History(shutter=shutter)
    return [
        restore_next(restorer, history, frame, number * INTERVAL, task)
        for number, frame in enumerate(frames)
    ]
