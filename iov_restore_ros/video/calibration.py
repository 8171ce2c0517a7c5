"""A camera's calibration and the rotation of its IMU, from messages and from options."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from iov_restore_ros.video.camera_path import Camera

# Names of sensor_msgs/distortion_models.hpp, and how many coefficients each may have.
DISTORTIONS = {
    '': (), 'plumb_bob': (4, 5), 'rational_polynomial': (8, 12, 14), 'equidistant': (4,),
}
UNEQUAL = 0.02  # largest relative difference of the scales of width and height


def rotation_of(quaternion: Sequence[float]) -> np.ndarray:
    """Return the rotation (3 x 3) of ``quaternion`` (x, y, z, w, any length); ``ValueError``."""
    values = np.array(quaternion, float)
    length = float(np.linalg.norm(values)) if values.shape == (4,) else 0.0
    if not 1e-6 < length < np.inf:
        raise ValueError(f'{list(quaternion)} is no rotation: expected a quaternion x y z w')
    x, y, z, w = values / length
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])


def camera_of(
    width: int, height: int, k: Sequence[float], d: Sequence[float], model: str,
    rotation: np.ndarray, readout: float, image_size: tuple[int, int],
    region: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Camera:
    """
    Return the camera whose pictures have ``image_size`` (height, width).

    The first five arguments are fields of sensor_msgs/CameraInfo. ``region`` is x, y, width and
    height of its roi; no size means the whole picture. The matrix is scaled to the picture, which
    may be binned, resized, or a region of the sensor. ``rotation`` and ``readout`` are those of
    ``Camera``. Raises ``ValueError`` with the reason.
    """
    matrix = np.array(k, float).reshape(3, 3)
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise ValueError('camera_info is not calibrated: K has no focal lengths')
    picture = np.array(image_size[::-1], float)
    corner, shown = np.array(region[:2], float), np.array(region[2:], float)
    if not shown.all():
        shown = np.array([width, height], float)
    if not shown.all():  # a driver that sets no size means the whole picture
        shown = picture
    scale = picture / shown
    if abs(scale[0] / scale[1] - 1) > UNEQUAL:
        raise ValueError(
            f'camera_info is for {shown[0]:.0f} x {shown[1]:.0f} pixels, '
            f'which cannot be scaled to {image_size[1]} x {image_size[0]}'
        )
    matrix[:2] *= scale[:, None]
    matrix[:2, 2] += (0.5 - corner) * scale - 0.5  # coordinates refer to the centres of pixels
    matrix[2] = 0, 0, 1
    distortion = _distortion(np.array(d, float), model)
    return Camera(matrix, rotation, distortion, readout, model == 'equidistant')


def _distortion(coefficients: np.ndarray, model: str) -> np.ndarray:
    """Return the coefficients in the form of ``Camera``. Raises ``ValueError``."""
    lengths = DISTORTIONS.get(model)
    if lengths is None:
        known = ', '.join(filter(None, DISTORTIONS))
        raise ValueError(f'distortion_model of camera_info is {model!r}, not one of {known}')
    if not coefficients.any():
        return np.zeros(4 if model == 'equidistant' else 0)
    if len(coefficients) not in lengths or not np.isfinite(coefficients).all():
        raise ValueError(
            f'D of camera_info has {len(coefficients)} coefficients, '
            f'but {model or "no distortion_model"} needs {" or ".join(map(str, lengths)) or "none"}'
        )
    return coefficients


class Frames:
    """The rotations between coordinate frames that transforms connect."""

    def __init__(self) -> None:
        self._turns: defaultdict[str, dict[str, np.ndarray]] = defaultdict(dict)

    def add(self, parent: str, child: str, quaternion: Sequence[float]) -> None:
        """Add a transform of tf, from ``child`` to ``parent``. Raises ``ValueError``."""
        turn = rotation_of(quaternion)
        self._turns[child][parent], self._turns[parent][child] = turn, turn.T

    def rotation(self, source: str, target: str) -> tuple[np.ndarray, int] | None:
        """
        Return the rotation (3 x 3) from ``source`` to ``target``, and its number of transforms.

        It uses the shortest chain. The number is 0 for equal frames. None if there is no chain.
        """
        found = {source: (np.eye(3), 0)}
        waiting = [source]
        for frame in waiting:
            turn, length = found[frame]
            if frame == target:
                return turn, length
            for other, step in self._turns.get(frame, {}).items():
                if other not in found:
                    found[other] = step @ turn, length + 1
                    waiting.append(other)
        return None
