"""
What is known beside a frame: the one place where it is put together.

    aligned = align(frame, previous, task)
    before = aligned.before(share, known)

With a gyroscope ``turn`` and ``path`` come from `camera_path.py`; what else moves, because the
vehicle drives on, is the flow less the turn.

Both depend on nothing but what they are given. `history.py` knows which frame is the one before
and finds the share of the time that the shutter was open; in training both are made up, and so
are flows that are wrong.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from iov_restore_ros.tasks import TASKS
from iov_restore_ros.video.before import Before, Blurring
from iov_restore_ros.video.camera_path import straight
from iov_restore_ros.video.flow import Flow, find_flow, look


class Trace(NamedTuple):
    """
    What is left of a frame that came to be deblurred, whatever is made of it.

    ``small``: what a flow is looked for in; ``way``: the flow, less the camera's turn where that is
    known (``turned``), to the one before it, which lay ``took`` s back; None if there was none.
    """

    small: np.ndarray
    way: np.ndarray | None
    took: float
    turned: bool = False


class Previous(NamedTuple):
    """
    The frame before one that comes ``took`` s later.

    ``pixels``: uint8 H x W x 3, RGB, as it was restored (as it was received where it was not);
    ``trace``: what is left of it as it was received, None if nothing is.
    """

    pixels: np.ndarray
    took: float
    trace: Trace | None
    restored: bool = True


class Alignment(NamedTuple):
    """
    What a frame and the one before say of each other, before anybody says how it was exposed.

    ``pixels``: of the one before; ``flow``: to it; None, both, if they do not show one scene or
    there is none. ``moving``: what ``speed`` returns, less ``turn``, the camera's, where that is
    known, and ``trace``: what is to be left of the frame; None where the blur is of no interest.
    """

    pixels: np.ndarray | None
    flow: Flow | None
    moving: np.ndarray | None
    trace: Trace | None
    turn: np.ndarray | None = None

    def before(
        self, share: float, known: bool, path: np.ndarray | None = None
    ) -> Before | None:
        """
        Return what is known beside the frame; None if nothing is.

        ``share`` is that of the time between the two for which the shutter was open, and ``known``
        whether it is known or assumed; ``path`` is ``Blurring.path`` by a gyroscope, if there is
        one.
        """
        if path is not None and self.moving is None:  # the first frame, or one after a cut
            motion = np.zeros((*path.shape[:2], 2), np.float32)
            return Before(None, None, Blurring(motion, path, (float(known), 1.0)))
        if self.pixels is None or self.flow is None:
            return None
        if self.moving is None:
            return Before(self.pixels, self.flow, None)
        moving = self.moving
        # Where samples are missing, of the exposure or between the frames, all is the flow's.
        if self.turn is None:
            path = None
        elif path is None:
            moving = moving + self.turn
        motion = moving * np.float32(share)
        told = float(known), float(path is not None)
        return Before(self.pixels, self.flow, Blurring(
            motion, straight(motion) if path is None else path, told
        ))


def align(
    frame: np.ndarray, previous: Previous | None, task: str,
    turn: Callable[[Flow], np.ndarray | None] | None = None,
    find: Callable[..., Flow | None] = find_flow,
) -> Alignment:
    """
    Return what ``frame`` (uint8 H x W x 3, RGB) and the one before, of its size, say of each other.

    They have ``SMALLEST`` pixels or more on a side. ``task`` is what ``frame`` is restored for.
    ``turn`` returns what of the flow comes from the camera's turning (float32 ceil(H / 4) x
    ceil(W / 4) x 2), or None where that is not known. The flow is found by ``find``, which is
    called as ``find_flow`` is.
    """
    asked = TASKS[task]
    small = look(frame, asked.streaks)
    flow = None
    if previous is not None:
        restored = look(previous.pixels, asked.streaks)
        # Two frames that are blurred alike tell better how the picture moved.
        came = previous.trace.small if previous.trace else restored
        flow = find(small, came, *frame.shape[:2], restored=restored)
    if previous is None or flow is None:
        return Alignment(None, None, None, Trace(small, None, 0.0) if asked.blur else None)
    if not asked.blur:
        return Alignment(previous.pixels, flow, None, None)
    turned = None if turn is None else turn(flow)
    way = flow.way if turned is None else flow.way - turned
    trace, moving = previous.trace, way
    if trace is not None and trace.way is not None and trace.turned == (turned is not None):
        moving = speed(way, trace.way, trace.took / previous.took)
    left = Trace(small, way, previous.took, turned is not None)
    return Alignment(previous.pixels, flow, moving, left, turned)


def trace_of(frame: np.ndarray, task: str) -> Trace | None:
    """Return what is left of a frame that nobody aligned; None where the blur is of no interest."""
    asked = TASKS[task]
    return Trace(look(frame, asked.streaks), None, 0.0) if asked.blur else None


def speed(way: np.ndarray, earlier: np.ndarray, times: float) -> np.ndarray:
    """
    Return how far the picture moves in the time that ``way`` took, at the moment of the frame.

    ``way`` itself tells of half of that time ago. ``earlier`` is the way of the frame before, which
    took so many ``times`` as long: what changed between the two is taken to go on. Where it is not
    known, nothing is taken to have changed: the speed is ``way``.
    """
    return way + (way - earlier / times) / (1 + times)
