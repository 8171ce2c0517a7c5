"""
A camera's rotations and paths from a gyroscope, as long as the gyroscope agrees with the frames.

    inertial = Inertial(gyroscope)
    inertial.camera = Camera(matrix, rotation)       # as soon as they are known
    gyroscope.add(stamp, x, y, z)                    # for each sample
    turn = inertial.turn(flow, size, stamp, took)    # between two frames
    path = inertial.path(size, stamp, exposure)      # during the exposure

Before the gyroscope is used, it is compared with the optical flow (`agreement.py`): from the first
flow on, over the last pairs of frames.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from iov_restore_ros.model.fusion import ASSUMED_SHUTTER
from iov_restore_ros.video.agreement import (
    DOUBT,
    NO_PAIRS,
    NOTHING,
    REACH,
    STEPS,
    Pairs,
    at_offset,
    diagnose,
    find_bias,
    find_offset,
    fits_at,
    known,
    misfits,
)
from iov_restore_ros.video.camera_path import (
    NODES_OF_MEAN,
    SHARES_OF_MEAN,
    TAU,
    Camera,
    Gyroscope,
    turned,
    turned_between,
)
from iov_restore_ros.video.flow import Flow
from iov_restore_ros.video.seen_turn import Fields, fields, seen_turn

LATEST = 8  # latest pairs that may still wait for gyroscope samples
FADING = 0.88  # factor on the weight of a pair with every newer pair
TOLD = 0.3  # total weight of pairs below which the decision stays
REFUTED = 0.35  # misfit above which the gyroscope is no longer trusted
AGAIN = 0.25  # misfit below which it is trusted again
EVERY = 2, 8  # frames between two estimates of the offset, before and after it is settled
SELDOM = 8  # frames between two diagnoses
FEWEST = 4  # pairs needed for a diagnosis
FAR = np.linspace(-0.3, 0.3, 121)  # s from the start: an offset there is reported, but not used
LARGE = 0.003  # s; for a smaller difference the offset moves half of it
SETTLED = 0.001, 2.0  # s that a settled offset moves at most, in so many s


class Inertial:
    """
    The gyroscope of one camera; several cameras may share a ``Gyroscope``. Not thread-safe.

    ``offset``: s, the current estimate: the gyroscope's stamp of a moment is the camera's stamp
    plus this (Kalibr's convention). ``settled``: whether the estimate has converged. ``bias``:
    rad/s, in the IMU's frame; it is subtracted. ``agreement``: 0..1, of the gyroscope with recent
    frames; 0.5 or less if it does not explain them. ``trusted``: whether it is used. ``reason``:
    why it is not used, or why there is currently no path; empty if all is well.
    """

    def __init__(
        self, gyroscope: Gyroscope, camera: Camera | None = None, offset: float = 0.0
    ) -> None:
        """Start the estimate of the offset at ``offset`` (s)."""
        self.gyroscope = gyroscope
        self.camera = camera
        self.offset = offset
        self.bias = np.zeros(3)
        self.agreement = 0.0
        self.settled = False
        self.trusted = False
        self.reason = 'not compared yet'
        self._start = offset
        self._start_bias = self.bias  # kept until newer pairs of frames clearly show another one
        self._exposure = 0.0  # s, of the last frame; 0: unknown
        self._pairs = NO_PAIRS
        self._fields: tuple[Camera, tuple[int, int], Fields] | None = None
        self._refuted = ''  # why it is not trusted
        self._frames = 0
        self._since: tuple[float, float] | None = None  # stamp and offset of its last change

    def forget(self) -> None:
        """Clear the pairs of frames after a jump in time; the estimates stay."""
        self._pairs = NO_PAIRS
        self._since = None
        self._start_bias = self.bias

    def rewind(self) -> None:
        """Prepare for the start of a recording of which frames were compared before."""
        self.forget()

    def turn(
        self, flow: Flow, size: tuple[int, int], stamp: float, took: float
    ) -> np.ndarray | None:
        """
        Return the part of ``flow`` that comes from the camera's rotation: rows x columns x 2.

        It is float32, pixels. ``flow`` leads from a picture of ``size`` (height, width) at the time
        ``stamp`` (s) to one ``took`` s earlier. None if the rotation is unknown, or if the
        gyroscope does not agree with the frames.
        """
        self.compare(flow, size, stamp, took)
        return self._told(turned_between, size, stamp, took, self._exposure)

    def path(self, size: tuple[int, int], stamp: float, exposure: float) -> np.ndarray | None:
        """
        Return ``Blurring.path`` of a picture of ``size``, exposed for ``exposure`` s at ``stamp``.

        ``stamp`` is the middle of the exposure. None as for ``turn``, and before its first call.
        """
        self._exposure = exposure
        return self._told(turned, size, stamp, TAU * exposure)

    def _told(
        self, what: Callable[..., np.ndarray | None], size: tuple[int, int], stamp: float,
        *times: Any,
    ) -> np.ndarray | None:
        """Return the result of ``what``, which is ``turned`` or ``turned_between``."""
        if self.camera is None:
            self.reason = 'no camera_info'
            return None
        if not self.trusted:
            return None
        turns = what(
            self.gyroscope, self.camera, size, stamp + self.offset, *times, bias=self.bias
        )
        self.reason = '' if turns is not None else self._missing()
        return turns

    def _missing(self) -> str:
        """Return why there are no samples."""
        if self._many_refused():
            return 'samples beyond 35 rad/s: rates look like degrees per second'
        return 'no samples'

    def _many_refused(self) -> bool:
        """Return whether many samples were impossibly fast."""
        return self.gyroscope.refused > 0.05 * len(self.gyroscope) + 10

    def compare(
        self, flow: Flow, size: tuple[int, int], stamp: float, took: float
    ) -> None:
        """Compare the gyroscope with ``flow``; the arguments are those of ``turn``."""
        camera = self.camera
        if camera is None:
            return
        if self._fields is None or self._fields[1] != size or not _same(self._fields[0], camera):
            self._pairs = NO_PAIRS  # their claims are by another rotation
            self._fields = camera, size, fields(camera, size)
        self._exposure = self._exposure or ASSUMED_SHUTTER * took
        self._take_in_late_samples(camera)
        seen = seen_turn(flow, self._fields[2])
        if seen is None:
            return
        pairs = self._pairs.then(seen, stamp, took, self._claims(camera, stamp, took))
        self._pairs = pairs
        self._frames += 1
        if self._frames % EVERY[self.settled] == 0:
            self._look_for_offset(known(pairs), stamp)
        there = known(at_offset(pairs, self.offset - self._start))
        if len(there.took):
            self._judge(there)
        elif not self.trusted:
            self.reason = self._missing()

    def _judge(self, there: Pairs) -> None:
        """Decide whether to trust the gyroscope; ``there`` are the pairs at the offset."""
        misfit, says = (of[:, 0] for of in misfits(there, DOUBT))
        says = says * FADING ** np.arange(len(says))[::-1]
        told = float(says.sum())
        if told > TOLD:
            cost = float(says @ misfit / told)
            self.agreement = 1 - cost
            if cost > (AGAIN if self._refuted else REFUTED):
                if not self._refuted or len(there.took) <= FEWEST or self._frames % SELDOM == 0:
                    self._refuted = self._likely(there)
            else:
                self._refuted = ''
        self.trusted, self.reason = not self._refuted, self._refuted
        self.bias = np.zeros(3)
        if self.trusted and self.camera is not None:
            turn, self.bias = self.camera.rotation, self._start_bias
            if len(there.took) >= FEWEST:
                self.bias = turn.T @ find_bias(there, turn @ self.bias)

    def _likely(self, there: Pairs) -> str:
        """Return the likely reason for the misfit; ``there`` are the pairs at the offset."""
        if self._many_refused():
            return self._missing()
        if len(there.took) < FEWEST or self.camera is None:
            return 'does not agree with the frames'
        reason = diagnose(there)
        if reason == NOTHING:
            # Old samples are no longer kept, and later ones have not arrived yet.
            newest = self.gyroscope.newest
            late = self._pairs.only(np.abs(newest - 1.5 - self._pairs.stamps) < 1.0)
            claims = [
                self._claims(self.camera, *pair, FAR)
                for pair in zip(late.stamps, late.took, strict=True)
            ]
            far = fits_at(known(late._replace(claims=np.stack(claims))), FAR) if claims else None
            if far is not None and abs(far) > REACH:
                return f'clock is off: imu_time_offset may be {self._start + far:.2f}'
        return reason

    def _look_for_offset(self, pairs: Pairs, stamp: float) -> None:
        """Move the offset to the one that fits best, if there is one."""
        if not len(pairs.took):
            return
        found, certain = find_offset(pairs, self.offset - self._start)
        if found is None:
            return
        away = self._start + found - self.offset
        self.offset += away if abs(away) > LARGE or self._refuted else away / 2
        if not certain:
            return
        if self._since is None or abs(self.offset - self._since[1]) > SETTLED[0]:
            self._since = stamp, self.offset
            self.settled = False
        elif stamp - self._since[0] > SETTLED[1]:
            self.settled = True

    def _claims(
        self, camera: Camera, stamp: float, took: float, steps: np.ndarray = STEPS
    ) -> np.ndarray:
        """Return the gyroscope's rotation between two frames at the offsets ``steps``, D x 3."""
        # For a rolling shutter the middle row counts, because it fits the other rows best.
        then = stamp + self._start + steps[:, None] + NODES_OF_MEAN * self._exposure
        before, now = self.gyroscope.angles(np.stack([then - took, then]))
        return SHARES_OF_MEAN @ (now - before) @ camera.rotation.T

    def _take_in_late_samples(self, camera: Camera) -> None:
        """Complete the claims of pairs whose samples had not all arrived."""
        pairs = self._pairs
        last = pairs.stamps + self._start + REACH + self._exposure / 2
        missing = ~np.isfinite(pairs.claims[:, -1, 0]) & (last <= self.gyroscope.newest)
        missing[:-LATEST] = False
        for number in np.flatnonzero(missing):
            pairs.claims[number] = self._claims(
                camera, pairs.stamps[number], pairs.took[number]
            )


def _same(one: Camera, other: Camera) -> bool:
    """Return whether two cameras are equal; each camera_info makes a new object."""
    return one is other or all(
        np.array_equal(np.asarray(mine), np.asarray(its))
        for mine, its in zip(one, other, strict=True)
    )
