"""
The history of a camera: its previous frame, as it was restored, and the motion since.

    history = History()
    for stamp, frame in video:
        before = history.look_back(frame, stamp, 'derain', clearer)
        ...  # before.clear is restored
        history.keep(restored, stamp, frame)

Use one for each camera or file. It holds one restored frame and at most one newer frame that was
not restored (2.8 MB each for 1280x720). For deblurring it also holds small grey copies of the last
few received frames with their flows (0.5 MB each).
"""

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import NamedTuple

import cv2
import numpy as np

from iov_restore_ros.model.fusion import ASSUMED_SHUTTER
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.video.aligner import Previous, Trace, align
from iov_restore_ros.video.before import Before
from iov_restore_ros.video.clear import Clearer, ClearMemory
from iov_restore_ros.video.flow import SMALLEST
from iov_restore_ros.video.inertial import Inertial
from iov_restore_ros.video.shutter_gauge import ShutterGauge

LONGEST_GAP = 0.35  # s; a frame that is older than this is no previous frame
INTERVALS = 9  # between frames; their median is the camera's frame time
LATE = 'not newer', 'unreadable'  # reasons that do not change the history
# Share of the received frame in a previous frame that was deblurred, without and with a gyroscope.
# Errors that are deblurred again and again grow from the seventh frame on; so they fade. They are
# larger where nobody measures the path. More costs detail (docs/trials.md).
FADING = 0.25, 0.1
ON_THEIR_WAY = 4  # frames being restored; more than any device works on at once


class Seen(NamedTuple):
    """A received frame: its ``stamp`` (s), and how to open it; ``open`` returns None on failure."""

    stamp: float
    open: Callable[[], np.ndarray | None]
    trace: Trace | None = None


class History:
    """
    The history of one camera. Not thread-safe, but another thread may call ``miss``.

    ``reason`` says why the last frame had no previous frame; empty if it had one.
    """

    def __init__(self, longest_gap: float = LONGEST_GAP, shutter: float = 0.0) -> None:
        """
        Start empty. A frame more than ``longest_gap`` s older is no previous frame.

        ``shutter`` is the share (0..1) of the frame time that the shutter is open. 0 means unknown:
        it is estimated from blurred frames, and assumed until then.
        """
        self.longest_gap = longest_gap
        self.shutter = shutter
        self.exposure = 0.0  # s; 0: unknown; takes precedence over ``shutter``
        self.inertial: Inertial | None = None  # of a camera with a gyroscope
        self.reason = ''
        self._clear = ClearMemory()  # after the last derained frame
        self._kept: Seen | None = None  # restored
        self._missed: Seen | None = None  # received, not restored
        self._missed_stamps: deque[float] = deque(maxlen=INTERVALS)
        self._traces: deque[tuple[float, Trace]] = deque(maxlen=ON_THEIR_WAY)  # by stamps
        self._task = ''
        self._latest = -np.inf  # latest stamp of a received frame, restored or not
        self._intervals: deque[float] = deque(maxlen=INTERVALS)
        self._gauge = ShutterGauge()

    def forget(self) -> None:
        """Clear the history: the next frame is unrelated to earlier ones."""
        if self.inertial is not None:
            self.inertial.forget()
        self._forget_frames()
        self._intervals.clear()

    def rewind(self) -> None:
        """
        Go back to the start of a recording: the next frame is its first one.

        All that was learnt about the camera is kept: its frame time, its exposure and its
        gyroscope.
        """
        if self.inertial is not None:
            self.inertial.rewind()
        self._forget_frames()

    def _forget_frames(self) -> None:
        self._kept = self._missed = None
        self._missed_stamps.clear()
        self._clear = ClearMemory()
        self._traces.clear()
        self._latest = -np.inf

    def look_back(
        self, frame: np.ndarray, stamp: float, task: str, clearer: Clearer | None = None
    ) -> Before | None:
        """
        Return the side information of ``frame`` (uint8 H x W x 3, RGB) with the stamp ``stamp`` s.

        With ``clearer``, for a task that ``clears``, it includes ``Before.clear``: the frame
        without veil and without drops or dirt on the glass.

        There is no previous frame, and ``reason`` says why, for the first frame, after a gap, a
        jump in time or a cut, for another size or task, and for a frame that is not newer than the
        previous one. Returns None if there is no other side information either.
        """
        before, self.reason = self._before(frame, stamp, task)
        self._task = task
        if self.reason == 'too small':
            return None
        previous = self._open(before, frame, stamp)
        known: Before | None
        if TASKS[task].blur:
            known = self._exposed(frame, stamp, previous, task)
        elif TASKS[task].clears and clearer is not None:
            known = self._cleared(frame, stamp, previous, clearer, task)
        else:
            known = align(frame, previous, task).before(0.0, False)
        if previous is not None and (known is None or known.flow is None):
            self.reason = 'cut'
        return known

    def _cleared(
        self, frame: np.ndarray, stamp: float, previous: Previous | None, clearer: Clearer,
        task: str,
    ) -> Before:
        """Return the side information of a frame to clear, and the cleared frame in it."""
        late = previous is None and self.reason in LATE
        if previous is None and not late:
            self._clear = ClearMemory()
        known, memory = clearer.follow(frame, stamp, previous, self._clear, task)
        if not late:
            self._clear = memory
        return known

    def transmission(self) -> float:
        """
        Return the mean transmission (0..1) of the veil over the last frame.

        1 without a veil; NaN if the veil is not looked for. Other threads may call it.
        """
        veil = self._clear.veil
        return math.nan if veil is None else float(veil.through().mean())

    def covered(self) -> float:
        """
        Return the share (0..1) of the last frame that drops and dirt on the glass cover.

        NaN if they are not looked for. Other threads may call it.
        """
        glass = self._clear.glass
        return math.nan if glass is None else float(glass.cover.mean())

    def _exposed(
        self, frame: np.ndarray, stamp: float, previous: Previous | None, task: str
    ) -> Before | None:
        """Return the side information of a frame of a task that uses blur."""
        inertial, size = self.inertial, frame.shape[:2]
        turn = None
        if inertial is not None and previous is not None:
            turn = partial(inertial.turn, size=size, stamp=stamp, took=previous.took)
        aligned = align(frame, previous, task, turn)
        if aligned.trace is not None:
            self._traces.append((stamp, aligned.trace))
        took = previous.took if previous is not None else 0.0
        interval = float(median(self._intervals)) if self._intervals else took
        share = self.exposure / interval if self.exposure and interval else self.shutter
        if not share and aligned.flow is not None and aligned.moving is not None:
            # The blur contains all of the motion, including the part that the gyroscope measures.
            moving = aligned.moving if inertial is None else aligned.flow.displacement
            self._gauge.watch(frame, moving, took / interval)
            share = self._gauge.share()
        path = None
        exposure = self.exposure or (share or ASSUMED_SHUTTER) * interval
        if inertial is not None and exposure:
            path = inertial.path(size, stamp, exposure)
        steps = took / interval if took else 1.0
        return aligned.before((share or ASSUMED_SHUTTER) / steps, share > 0, path)

    def asks_until(self, stamp: float) -> float:
        """
        Return the time until which a frame of ``stamp`` needs samples, s by the gyroscope's clock.

        That is the end of its exposure, as it is known before the frame is processed. It is minus
        infinity without a gyroscope.
        """
        inertial = self.inertial
        if inertial is None or inertial.camera is None:
            return -np.inf
        intervals = list(self._intervals)[-INTERVALS + 1 :]
        if 0 < stamp - self._latest <= self.longest_gap:
            intervals.append(stamp - self._latest)
        share = self.shutter or self._gauge.share() or ASSUMED_SHUTTER
        exposure = self.exposure or (share * median(intervals) if intervals else 0.0)
        return stamp + inertial.offset + (exposure + abs(inertial.camera.readout)) / 2

    def keep(
        self, restored: np.ndarray, stamp: float, received: np.ndarray | None = None
    ) -> None:
        """
        Store a restored frame, uint8 H x W x 3, RGB, unless a newer one is stored.

        ``received`` is the same frame as it was received. Give it, or the errors of deblurring add
        up over many frames.
        """
        if self._kept is None or stamp > self._kept.stamp:
            trace = next((trace for when, trace in self._traces if when == stamp), None)
            if trace is not None and received is not None:
                fading = FADING[trace.turned]
                restored = cv2.addWeighted(restored, 1 - fading, received, fading, 0)
            self._kept = Seen(stamp, lambda: restored, trace)

    def miss(self, stamp: float, open_: Callable[[], np.ndarray | None]) -> None:
        """
        Store a received frame that is not restored.

        ``open_`` returns its pixels, uint8 H x W x 3, or None. It is called only if needed.
        """
        self._missed_stamps.append(stamp)
        self._missed = Seen(stamp, open_)

    def _before(self, frame: np.ndarray, stamp: float, task: str) -> tuple[Seen | None, str]:
        """Return the newest frame before ``stamp``, or None and the reason."""
        missed, self._missed = self._missed, None
        while self._missed_stamps:
            self._note(self._missed_stamps.popleft())
        if min(frame.shape[:2]) < SMALLEST:
            return None, 'too small'
        if self._task and task != self._task:
            self.forget()
            self._note(stamp)
            return None, 'another task'
        if stamp < self._latest - self.longest_gap:
            self.forget()
            self._note(stamp)
            return None, 'time jump'
        self._note(stamp)
        kept = self._kept
        if missed is not None and missed.stamp < stamp and (not kept or kept.stamp < missed.stamp):
            kept = missed
        if kept is None:
            return None, 'first'
        if stamp <= kept.stamp:
            return None, 'not newer'
        if stamp - kept.stamp > self.longest_gap:
            self._kept = None
            return None, 'gap'
        return kept, ''

    def _note(self, stamp: float) -> None:
        """Record the stamp of a received frame."""
        if 0 < stamp - self._latest <= self.longest_gap:
            self._intervals.append(stamp - self._latest)
        self._latest = max(self._latest, stamp)

    def _open(self, before: Seen | None, frame: np.ndarray, stamp: float) -> Previous | None:
        """Open ``before``, the previous frame of ``frame``; None and a ``reason`` on failure."""
        pixels = before.open() if before else None
        if before is None or pixels is None:
            self.reason = self.reason or 'unreadable'
            return None
        if pixels.shape != frame.shape:
            self.forget()
            self.reason = 'another size'
            return None
        # A Python float: a NumPy scalar would make the flows float64.
        took = float(stamp - before.stamp)
        return Previous(pixels, took, before.trace, before is self._kept)
