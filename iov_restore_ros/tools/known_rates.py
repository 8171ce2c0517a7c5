"""A gyroscope with recorded rates, which a camera gets frame by frame."""

from collections import Counter
from typing import Any

import numpy as np

from iov_restore_ros.video.camera_path import KEPT, Gyroscope
from iov_restore_ros.video.inertial import Inertial

AHEAD = 0.4  # s of samples after a frame: for its exposure, its readout, and a clock offset
BACK = 1.0  # s; the newest sample is so much later than a frame only after a jump back


class KnownRates:
    """One camera's gyroscope, called ``name``, and an account of its use."""

    def __init__(self, name: str, stamps: np.ndarray, rates: np.ndarray, offset: float) -> None:
        """Take N ``stamps`` (s) and ``rates`` (N x 3, rad/s); ``offset``: see ``Inertial``."""
        order = np.argsort(stamps, kind='stable')
        self.name, self.stamps, self.rates = name, stamps[order], rates[order]
        self.inertial = _Counting(Gyroscope(), offset=offset)
        self._told = 0  # number of samples that the gyroscope has got
        self._beside = False  # whether there were samples at any frame

    def advance(self, stamp: float) -> None:
        """Give the gyroscope the samples for a frame of ``stamp`` s."""
        gyroscope, stamp = self.inertial.gyroscope, stamp + self.inertial.offset
        self.inertial.frames += 1
        self._beside |= bool(self.stamps[0] <= stamp <= self.stamps[-1])
        if stamp + BACK < gyroscope.newest:
            gyroscope.forget()
            self._told = 0
        first, end = np.searchsorted(self.stamps, (stamp - KEPT, stamp + AHEAD))
        first = max(first, self._told)
        for time, rates in zip(
            self.stamps[first:end].tolist(), self.rates[first:end].tolist(), strict=True
        ):
            gyroscope.add(time, *rates)
        self._told = max(end, self._told)

    def account(self) -> dict[str, Any]:
        """Return how it was used, see ``told``."""
        inertial = self.inertial
        why = max(inertial.reasons, key=inertial.reasons.__getitem__, default='')
        if inertial.frames and not self._beside:
            first, last = self.stamps[[0, -1]]
            why = f'no frame has a stamp from {first:.3f} to {last:.3f} s, the time of its samples'
        return {
            'imu': self.name, 'frames': inertial.frames, 'used': inertial.paths,
            'offset': round(inertial.offset, 5), 'why_not': why,
        }


def told(account: dict[str, Any]) -> str:
    """Return one line of text for ``account``: imu, frames, used, offset (s) and why_not."""
    if not account['used']:
        return f'no gyroscope: {account["why_not"] or "a single frame has no frame time"}'
    line = (
        f'gyroscope {account["imu"]} in {account["used"]} of {account["frames"]} frames, '
        f'offset {1000 * account["offset"]:.1f} ms'
    )
    return line + (f'; not in others: {account["why_not"]}' if account['why_not'] else '')


class _Counting(Inertial):
    """
    Counts the paths that it returned, and the reasons for missing ones.

    ``frames``: how many frames it was prepared for. A rehearsal does not count.
    """

    def __init__(self, gyroscope: Gyroscope, offset: float) -> None:
        super().__init__(gyroscope, offset=offset)
        self.frames = self.paths = 0
        self.reasons: Counter[str] = Counter()

    def rewind(self) -> None:
        """Do as ``Inertial.rewind``, and count from 0."""
        super().rewind()
        self.frames = self.paths = 0
        self.reasons.clear()

    def path(self, size: tuple[int, int], stamp: float, exposure: float) -> np.ndarray | None:
        """Return the result of ``Inertial.path``."""
        path = super().path(size, stamp, exposure)
        if path is None:
            self.reasons[self.reason] += 1
        else:
            self.paths += 1
        return path
