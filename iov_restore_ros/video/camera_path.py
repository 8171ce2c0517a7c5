"""
The path of each pixel during the exposure, from the angular rates of a gyroscope.

The rotation of a camera moves all points, whatever their distance: v(t) = R(t)' R(s) v(s) for a
direction v at the time s, where R(t) is the camera's orientation. The rates are integrated on
SO(3), and each place of the picture is followed through its exposure. Each row of a rolling shutter
has its own exposure. A gyroscope does not measure the vehicle's travel; that part comes from the
optical flow (`video/aligner.py`).

Frames as in REP 103 and 104: camera coordinates are x right, y down, z forward.
"""

import math
from bisect import bisect_left
from typing import NamedTuple

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

from iov_restore_ros.model.fusion import MOMENTS
from iov_restore_ros.model.wiener import CELL

KEPT = 3.0  # s of angular rates
NODES = 32  # pixels between projected places; the rest is interpolated
LONGEST_HOLE = 0.05  # s without a sample over which the rates are still interpolated
FINE = 0.00125  # s between rates that are integrated; between samples they are interpolated
BESIDE = 4  # earlier samples that shape a spline
FASTEST = 35.0  # rad/s, 2000 degrees/s: the range of gyroscopes
TAU = np.linspace(-0.5, 0.5, MOMENTS)  # moments of the exposure, in exposures
# Moments for the mean over the exposure: Gauss's nodes, and their weights.
NODES_OF_MEAN = np.array([-0.5, 0.0, 0.5]) * np.sqrt(3 / 5)
SHARES_OF_MEAN = np.array([5.0, 8.0, 5.0]) / 18


class Camera(NamedTuple):
    """
    The calibration of a camera.

    ``matrix``: 3 x 3, pixels. ``distortion``: coefficients of sensor_msgs/CameraInfo, empty for
    none. ``rotation``: 3 x 3, from the IMU's frame to the camera's. ``readout``: s from the first
    row to the last (rolling shutter; negative if it is read from below), 0 for a global shutter.
    ``fisheye``: whether the distortion is CameraInfo's `equidistant`.
    """

    matrix: np.ndarray
    rotation: np.ndarray
    distortion: np.ndarray = np.zeros(0)
    readout: float = 0.0
    fisheye: bool = False


class Gyroscope:
    """
    The angular rates of the last ``KEPT`` s, in the IMU's frame. Not thread-safe.

    ``refused`` counts samples that were not finite, or beyond the range of gyroscopes.
    """

    def __init__(self) -> None:
        self._stamps: list[float] = []  # s, ascending
        self._rates: list[tuple[float, float, float]] = []  # rad/s
        self.refused = 0

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def newest(self) -> float:
        """The latest stamp, s; minus infinity if there is none."""
        return self._stamps[-1] if self._stamps else -np.inf

    def add(self, stamp: float, x: float, y: float, z: float) -> None:
        """
        Add a sample: ``stamp`` in s, rates in rad/s.

        A late sample is inserted in order. A second sample with the same stamp replaces the first.
        A jump back of more than ``KEPT`` s (a bag that loops) clears all samples.
        """
        # Refuse anything but numbers from -FASTEST to FASTEST; comparisons with NaN are false.
        if not (abs(x) <= FASTEST and abs(y) <= FASTEST and abs(z) <= FASTEST and stamp == stamp):
            self.refused += 1
            return
        stamps, rates = self._stamps, self._rates
        if not stamps or stamp > stamps[-1]:
            stamps.append(stamp)
            rates.append((x, y, z))
            # Delete many samples at once, because deleting one from the front costs as much.
            if stamps[0] < stamp - 2 * KEPT:
                old = bisect_left(stamps, stamp - KEPT)
                del stamps[:old], rates[:old]
            return
        if stamp < stamps[-1] - KEPT:
            self.forget()
            self.add(stamp, x, y, z)
            return
        place = bisect_left(stamps, stamp)
        if stamps[place] == stamp:
            rates[place] = (x, y, z)
        else:
            stamps.insert(place, stamp)
            rates.insert(place, (x, y, z))

    def forget(self) -> None:
        """Clear all samples."""
        self._stamps.clear()
        self._rates.clear()

    def orientations(
        self, times: np.ndarray, bias: np.ndarray | float = 0.0
    ) -> np.ndarray | None:
        """
        Return the orientations at ``times`` (s, any shape), ... x 3 x 3, relative to some start.

        Each one rotates vectors from the IMU's frame at that time to its frame at the start.
        ``bias`` (3, rad/s) is subtracted from the rates. None if samples are missing: before the
        first, after the last, or in a hole of more than ``LONGEST_HOLE`` s.
        """
        first, last = float(times.min()), float(times.max())
        stamps = self._stamps
        if not stamps or not (stamps[0] <= first and last <= stamps[-1]):
            return None
        known, rates = self._between(first, last)
        steps = np.diff(known)
        if len(known) > 1 and steps.max() > LONGEST_HOLE:
            return None
        rates = rates - bias
        # From sample to sample, with the mean of both rates.
        orientations = np.empty((len(known), 3, 3))
        orientations[0] = np.eye(3)
        turns = rotation(steps[:, None] * (rates[1:] + rates[:-1]) / 2)
        for number, turn in enumerate(turns):
            np.matmul(orientations[number], turn, orientations[number + 1])
        # From the sample before each time, with the mean of the rates at both.
        before = np.searchsorted(known, times, side='right') - 1
        after = np.minimum(before + 1, len(known) - 1)
        passed = (times - known[before])[..., None]
        interval = np.maximum(known[after] - known[before], 1e-9)[..., None]
        halfway = rates[before] + (rates[after] - rates[before]) * passed / interval / 2
        return orientations[before] @ rotation(passed * halfway)

    def angles(self, times: np.ndarray) -> np.ndarray:
        """
        Return the integral of the rates up to ``times`` (s, any shape), ... x 3, from some start.

        The difference of two results is a rotation vector if the rotation between them is small.
        NaN before the first and after the last sample, and everywhere if there is a hole.
        """
        known, rates = self._between(float(times.min()), float(times.max()))
        steps = np.diff(known)
        if len(known) < 2 or steps.max() > LONGEST_HOLE:
            return np.full((*times.shape, 3), np.nan)
        sums = np.cumsum(steps[:, None] * (rates[1:] + rates[:-1]) / 2, 0)
        return np.stack([
            np.interp(times, known, np.concatenate([[0.0], axis]), np.nan, np.nan)
            for axis in sums.T
        ], -1)

    def _between(self, first: float, last: float) -> tuple[np.ndarray, np.ndarray]:
        """
        Return stamps (N) and rates (N x 3) from just before ``first`` to just after ``last``.

        Beside the samples there are rates between them, from a cubic spline. If straight lines
        joined 200 samples a second, a vibration of 40 Hz would lose an eighth of its angle.
        """
        low = max(0, bisect_left(self._stamps, first) - 1)
        high = bisect_left(self._stamps, last) + 1
        known = np.array(self._stamps[low:high], float)
        rates = np.array(self._rates[low:high], float)
        # Later samples are left out: whether they have come yet would change the result.
        around = slice(max(0, low - BESIDE), high)
        stamps = np.array(self._stamps[around])
        apart = np.diff(stamps, prepend=-np.inf)
        usual = float(np.median(apart[1:])) if len(stamps) > BESIDE else 0.0
        parts = math.ceil(usual / FINE)
        if parts < 2:
            return known, rates
        some = apart > usual / 2  # a spline through almost equal stamps would swing
        spline = CubicSpline(stamps[some], np.array(self._rates[around])[some])
        steps = np.diff(known)[:, None]
        more = known[:-1, None] + steps * np.arange(1, parts) / parts
        # Lost samples cannot be made up, and those of a slow gyroscope are too far apart.
        more = more[steps[:, 0] < min(2 * usual, LONGEST_HOLE)].ravel()
        times = np.concatenate([known, more])
        order = np.argsort(times)
        return times[order], np.concatenate([rates, spline(more)])[order]


def rotation(vectors: np.ndarray) -> np.ndarray:
    """Return ... x 3 x 3 for rotation vectors ... x 3, rad (Rodrigues' formula)."""
    angle = np.maximum(np.linalg.norm(vectors, axis=-1), 1e-12)[..., None, None]
    cross = np.zeros((*vectors.shape[:-1], 3, 3))
    x, y, z = np.moveaxis(vectors, -1, 0)
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -z, y, -x
    cross -= np.swapaxes(cross, -1, -2)
    cross /= angle
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def turned(
    gyroscope: Gyroscope, camera: Camera, size: tuple[int, int], stamp: float,
    offsets: np.ndarray, bias: np.ndarray | float = 0.0, shares: np.ndarray | None = None,
) -> np.ndarray | None:
    """
    Return the displacement of each cell's content at ``offsets``, by the camera's rotation alone.

    ``size``: height and width of the picture. ``stamp``: s, the gyroscope's clock, the middle of
    the exposure of the middle row. ``offsets``: M, s after ``stamp``. Returns float32 ceil(H / 4) x
    ceil(W / 4) x M x 2, pixels from the middle of each cell, x before y; None if samples are
    missing. With ``shares``, M, it returns the weighted sum, x 1 x 2.
    """
    height, width = size
    y, x = (np.linspace(0, side - 1, -(-side // NODES) + 1) for side in size)
    middles = stamp + camera.readout * (y / max(height - 1, 1) - 0.5)  # of each row of nodes
    orientations = gyroscope.orientations(np.concatenate(
        [middles[:, None], middles[:, None] + offsets], 1
    ), bias)
    if orientations is None:
        return None
    there, then = orientations[:, :1], orientations[:, 1:]
    turns = camera.rotation @ np.swapaxes(then, -1, -2) @ there @ camera.rotation.T
    nodes = np.stack(np.meshgrid(x, y), -1)
    directions = rays(camera, nodes)
    seen = np.einsum('rmij,rcj->rcmi', turns, directions)
    away = project(camera, seen) - nodes[:, :, None]
    if shares is not None:
        away = np.einsum('rcmd,m->rcd', away, shares)[:, :, None]
    down, across = (
        _between_nodes(side, len(places)) for side, places in ((height, y), (width, x))
    )
    rows = np.tensordot(down, away.astype(np.float32), 1)
    return np.ascontiguousarray(np.moveaxis(np.tensordot(across, rows, (1, 1)), 0, 1))


def turned_between(
    gyroscope: Gyroscope, camera: Camera, size: tuple[int, int], stamp: float, took: float,
    exposure: float, bias: np.ndarray | float = 0.0,
) -> np.ndarray | None:
    """
    Return the part of a flow to the frame ``took`` s earlier that is the camera's rotation.

    Returns float32 ceil(H / 4) x ceil(W / 4) x 2, pixels. The other arguments are those of
    ``turned``. Both frames were exposed for ``exposure`` s. The flow of a blurred picture follows
    the mean place during the exposure, not the place in its middle.
    """
    moments = NODES_OF_MEAN * exposure
    turns = turned(
        gyroscope, camera, size, stamp, np.concatenate([moments - took, moments]), bias,
        np.append(SHARES_OF_MEAN, -SHARES_OF_MEAN),
    )
    return None if turns is None else turns[:, :, 0]


def straight(motion: np.ndarray) -> np.ndarray:
    """
    Return the straight path of ``motion``: float32 rows x columns x ``MOMENTS`` x 2, pixels.

    ``motion`` (rows x columns x 2) leads to the earlier place of each cell's content, as an optical
    flow does.
    """
    return -TAU[:, None].astype(np.float32) * motion[:, :, None]


def rays(camera: Camera, places: np.ndarray) -> np.ndarray:
    """Return the viewing directions (... x 3) of ``places`` (... x 2, pixels)."""
    flat = places.reshape(-1, 1, 2)
    if camera.fisheye:
        normal = cv2.fisheye.undistortPoints(flat, camera.matrix, camera.distortion)
    else:
        normal = cv2.undistortPoints(flat, camera.matrix, camera.distortion)
    return np.concatenate([normal[:, 0], np.ones((len(flat), 1))], 1).reshape(
        *places.shape[:-1], 3
    )


def project(camera: Camera, directions: np.ndarray) -> np.ndarray:
    """Return the projections (... x 2, pixels) of ``directions`` (... x 3)."""
    flat = directions.reshape(-1, 1, 3)
    nothing = np.zeros(3)
    if camera.fisheye:
        places = cv2.fisheye.projectPoints(
            flat, nothing, nothing, camera.matrix, camera.distortion
        )[0]
    elif camera.distortion.any():
        places = cv2.projectPoints(flat, nothing, nothing, camera.matrix, camera.distortion)[0]
    else:
        places = flat @ camera.matrix.T
        places = places[..., :2] / places[..., 2:]
    return places.reshape(*directions.shape[:-1], 2)


def _between_nodes(side: int, count: int) -> np.ndarray:
    """Return the weights of ``count`` nodes at the middle of each cell: ceil(side / 4) x count."""
    middles = np.minimum(np.arange(-(-side // CELL)) * CELL + (CELL - 1) / 2, side - 1)
    where = middles * (count - 1) / max(side - 1, 1)
    return np.maximum(0, 1 - np.abs(where[:, None] - np.arange(count))).astype(np.float32)
