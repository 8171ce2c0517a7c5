"""
Collects the side information of a frame, in one place for the node, the tools and training.

    aligned = align(frame, previous, task)
    before = aligned.before(share, known)

With a gyroscope ``turn`` and ``path`` come from `camera_path.py`. The rest of the motion, from the
vehicle's travel, is the flow minus the rotation.

Both functions depend on their arguments only. `history.py` chooses the previous frame and estimates
the share of the frame time that the shutter was open. Training makes up both, and also wrong flows.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from iov_restore_ros.tasks import TASKS
from iov_restore_ros.video.before import Before, Blurring
from iov_restore_ros.video.camera_path import straight
from iov_restore_ros.video.flow import Flow, find_flow, flow_picture


class Trace(NamedTuple):
    """
    What the history keeps of a received frame for deblurring the next one.

    ``small``: the small grey picture for finding a flow. ``displacement``: the flow to its previous
    frame, ``took`` s earlier, minus the camera's rotation if that is known (``turned``); None
    without a previous frame.
    """

    small: np.ndarray
    displacement: np.ndarray | None
    took: float
    turned: bool = False


class Previous(NamedTuple):
    """
    The previous frame, ``took`` s before the current one.

    ``pixels``: uint8 H x W x 3, RGB, restored (as received if it was not restored). ``trace``: what
    is kept of the received frame, None if nothing is.
    """

    pixels: np.ndarray
    took: float
    trace: Trace | None
    restored: bool = True


class Alignment(NamedTuple):
    """
    The alignment of a frame with its previous frame, independent of the exposure.

    ``pixels``: of the previous frame. ``flow``: to it. Both are None if they do not show one scene
    or there is no previous frame. ``moving``: the result of ``extrapolate``, minus the camera's
    rotation ``turn`` if that is known. ``trace``: what the history keeps of the frame. Both are
    None if the task does not use blur.
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
        Return the side information of the frame; None if there is none.

        ``share`` is the share of the time between the two frames that the shutter was open, and
        ``known`` whether it is known or assumed. ``path`` is ``Blurring.path`` from a gyroscope, if
        there is one.
        """
        if path is not None and self.moving is None:  # the first frame, or one after a cut
            motion = np.zeros((*path.shape[:2], 2), np.float32)
            return Before(None, None, Blurring(motion, path, (float(known), 1.0)))
        if self.pixels is None or self.flow is None:
            return None
        if self.moving is None:
            return Before(self.pixels, self.flow, None)
        moving = self.moving
        # If samples are missing, during the exposure or between the frames, only the flow counts.
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
    Align ``frame`` (uint8 H x W x 3, RGB) with its previous frame, which has the same size.

    They have ``SMALLEST`` pixels or more on a side. ``task`` is the task of ``frame``. ``turn``
    returns the part of the flow that comes from the camera's rotation (float32 ceil(H / 4) x
    ceil(W / 4) x 2), or None if it is unknown. ``find`` finds the flow; its arguments are those of
    ``find_flow``.
    """
    asked = TASKS[task]
    small = flow_picture(frame, asked.streaks)
    flow = None
    if previous is not None:
        restored = flow_picture(previous.pixels, asked.streaks)
        # Two frames with the same blur show the motion better.
        came = previous.trace.small if previous.trace else restored
        flow = find(small, came, *frame.shape[:2], restored=restored)
    if previous is None or flow is None:
        return Alignment(None, None, None, Trace(small, None, 0.0) if asked.blur else None)
    if not asked.blur:
        return Alignment(previous.pixels, flow, None, None)
    turned = None if turn is None else turn(flow)
    displacement = flow.displacement if turned is None else flow.displacement - turned
    trace, moving = previous.trace, displacement
    earlier = None if trace is None else trace.displacement
    if trace is not None and earlier is not None and trace.turned == (turned is not None):
        moving = extrapolate(displacement, earlier, trace.took / previous.took)
    left = Trace(small, displacement, previous.took, turned is not None)
    return Alignment(previous.pixels, flow, moving, left, turned)


def trace_of(frame: np.ndarray, task: str) -> Trace | None:
    """Return the trace of a frame that was not aligned; None if the task does not use blur."""
    asked = TASKS[task]
    return Trace(flow_picture(frame, asked.streaks), None, 0.0) if asked.blur else None


def extrapolate(displacement: np.ndarray, earlier: np.ndarray, times: float) -> np.ndarray:
    """
    Return the displacement over the same interval, with the velocity at the frame itself.

    ``displacement`` is that of the mean velocity, so it belongs to the middle of the interval.
    ``earlier`` is the flow of the previous frame, whose interval was ``times`` as long. The
    velocity is extrapolated by half an interval from the change between the two.
    """
    return displacement + (displacement - earlier / times) / (1 + times)
