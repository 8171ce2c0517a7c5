"""Which camera_info is published with which frame."""

import copy
import threading
from collections import deque
from dataclasses import dataclass
from statistics import median

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo

KEPT = 30  # a second of frames
INTERVALS = 9  # between frames; their median is the frame time
LONELY = 10  # consecutive frames without a camera_info before a warning


@dataclass
class Kept:
    """A received camera_info, its stamp (ns), and whether it was published with a frame."""

    info: CameraInfo
    stamp: int
    used: bool = False


class CameraInfos:
    """
    Finds for each frame of a camera the camera_info of its stamp, whichever of both comes first.

    Otherwise it takes the nearest one within half a frame time, which gets the frame's stamp and is
    used once. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._infos: deque[Kept] = deque(maxlen=KEPT)
        self._waiting: deque[Time] = deque(maxlen=KEPT)  # stamps of frames published without one
        self._latest: int | None = None  # stamp (ns) of the last received frame
        self._intervals: deque[int] = deque(maxlen=INTERVALS)  # ns
        self._lonely = 0  # frames published since the last one with a camera_info
        self._apart = 0  # ns between the last of these frames and the nearest camera_info

    def newest(self) -> CameraInfo | None:
        """Return the last received camera_info, if there is one."""
        with self._lock:
            return self._infos[-1].info if self._infos else None

    def watch(self, stamp: Time) -> None:
        """Record the stamp of a received frame."""
        with self._lock:
            now = _ns(stamp)
            if self._latest is not None and now > self._latest:
                self._intervals.append(now - self._latest)
            self._latest = now

    def take(self, stamp: Time) -> CameraInfo | None:
        """Return the camera_info for a frame that is published now; None if there is none yet."""
        now = _ns(stamp)
        with self._lock:
            near = min(
                (kept for kept in reversed(self._infos) if kept.stamp == now or not kept.used),
                key=lambda kept: abs(kept.stamp - now), default=None,
            )
            if near is not None and self._belong(near.stamp, now):
                return self._give(near, stamp)
            self._waiting.append(stamp)
            self._lonely += 1
            self._apart = min((abs(kept.stamp - now) for kept in self._infos), default=0)
            return None

    def add(self, info: CameraInfo) -> CameraInfo | None:
        """Store ``info``; return what to publish for an earlier frame, if that waits for it."""
        with self._lock:
            kept = Kept(info, _ns(info.header.stamp))
            self._infos.append(kept)
            near = min(
                self._waiting, key=lambda stamp: abs(kept.stamp - _ns(stamp)), default=None
            )
            if near is None or not self._belong(kept.stamp, _ns(near)):
                return None
            self._waiting.remove(near)
            return self._give(kept, near)

    def concern(self) -> str:
        """Return why none is published although some are received; empty if all is well."""
        with self._lock:
            if not self._infos or self._lonely < LONELY:
                return ''
            return (
                'camera_info is not published: its stamps are '
                f'{self._apart / 1e9:.3f} s from those of the frames; '
                'the driver should send it with every frame, with the same stamp'
            )

    def _belong(self, one: int, other: int) -> bool:
        return abs(one - other) <= (median(self._intervals) / 2 if self._intervals else 0)

    def _give(self, kept: Kept, stamp: Time) -> CameraInfo:
        kept.used, self._lonely = True, 0
        if kept.stamp == _ns(stamp):
            return kept.info
        info = copy.copy(kept.info)
        info.header = copy.copy(info.header)
        info.header.stamp = stamp
        return info


def _ns(stamp: Time) -> int:
    return stamp.sec * 10**9 + stamp.nanosec
