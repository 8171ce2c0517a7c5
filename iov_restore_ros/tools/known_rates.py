"""A gyroscope whose rates are known beforehand: given to a camera in step with its frames."""

from collections import Counter
from typing import Any

import numpy as np

from iov_restore_ros.video.camera_path import KEPT, Gyroscope
from iov_restore_ros.video.inertial import Inertial

AHEAD = 0.4  # s of samples after a frame: its exposure, its rows, and another clock


class KnownRates:
    """One camera's gyroscope, called ``name``, and an account of what it was good for."""

    def __init__(self, name: str, stamps: np.ndarray, rates: np.ndarray, offset: float) -> None:
        """Take N ``stamps`` (s) and ``rates`` (N x 3, rad/s); ``offset``: see ``Inertial``."""
        order = np.argsort(stamps, kind='stable')
        self.name, self.stamps, self.rates = name, stamps[order], rates[order]
        self.inertial = _Counting(Gyroscope(), offset=offset)
        self._told = 0  # samples, from the first on
        self._frames = 0
        self._beside = False  # whether there were samples about any frame

    def advance(self, stamp: float) -> None:
        """Tell the gyroscope what is to be known for a frame of ``stamp`` s."""
        gyroscope, stamp = self.inertial.gyroscope, stamp + self.inertial.offset
        self._frames += 1
        self._beside |= bool(self.stamps[0] <= stamp <= self.stamps[-1])
        if stamp + KEPT < gyroscope.newest:  # a jump back
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
        """Return what became of it, see ``told``."""
        inertial = self.inertial
        why = max(inertial.reasons, key=inertial.reasons.__getitem__, default='')
        if self._frames and not self._beside:
            first, last = self.stamps[[0, -1]]
            why = f'no frame has a stamp from {first:.3f} to {last:.3f} s, as its samples have'
        return {
            'imu': self.name, 'frames': self._frames, 'used': inertial.paths,
            'offset': round(inertial.offset, 5), 'why_not': why,
        }


def told(account: dict[str, Any]) -> str:
    """Return a line for people of ``account``: imu, frames, used, offset (s) and why_not."""
    if not account['used']:
        return f'no gyroscope: {account["why_not"] or "one frame alone has no exposure"}'
    line = (
        f'gyroscope {account["imu"]} in {account["used"]} of {account["frames"]} frames, '
        f'offset {1000 * account["offset"]:.1f} ms'
    )
    return line + (f'; in others not: {account["why_not"]}' if account['why_not'] else '')


class _Counting(Inertial):
    """Counts the paths that it knew, and why it did not know the others."""

    def __init__(self, gyroscope: Gyroscope, offset: float) -> None:
        super().__init__(gyroscope, offset=offset)
        self.paths = 0
        self.reasons: Counter[str] = Counter()

    def path(self, size: tuple[int, int], stamp: float, exposure: float) -> np.ndarray | None:
        """Return what ``Inertial.path`` does."""
        path = super().path(size, stamp, exposure)
        if path is None:
            self.reasons[self.reason] += 1
        else:
            self.paths += 1
        return path
