"""How a camera is calibrated and an IMU mounted beside it, from what messages and people say."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from iov_restore_ros.video.camera_path import Camera

# Names of sensor_msgs/distortion_models.hpp, and how many coefficients each may have.
DISTORTIONS = {
    '': (), 'plumb_bob': (4, 5), 'rational_polynomial': (8, 12, 14), 'equidistant': (4,),
}
UNEQUAL = 0.02  # by which both sides of a picture may be scaled differently


def rotation_of(quaternion: Sequence[float]) -> np.ndarray:
    """Return the 3 x 3 that a ``quaternion`` (x, y, z, w, any length but 0) is; ``ValueError``."""
    values = np.array(quaternion, float)
    length = float(np.linalg.norm(values)) if values.shape == (4,) else 0.0
    if not 1e-6 < length < np.inf:
        raise ValueError(f'{list(quaternion)} is no rotation: a quaternion x y z w is wanted')
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

    The first five are those of sensor_msgs/CameraInfo, and so is ``region``: x, y, width and height
    of its roi, of which no size means the whole. The matrix is scaled to the picture, be that
    binned, resized, or a region of the sensor. ``rotation`` and ``readout`` are those of
    ``Camera``. Raises ``ValueError`` with the reason.
    """
    matrix = np.array(k, float).reshape(3, 3)
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise ValueError('camera_info is not calibrated: K has no focal lengths')
    picture = np.array(image_size[::-1], float)
    corner, shown = np.array(region[:2], float), np.array(region[2:], float)
    if not shown.all():
        shown = np.array([width, height], float)
    if not shown.all():  # drivers that leave it out mean the picture
        shown = picture
    scale = picture / shown
    if abs(scale[0] / scale[1] - 1) > UNEQUAL:
        raise ValueError(
            f'camera_info is for {shown[0]:.0f} x {shown[1]:.0f} pixels, '
            f'which do not become {image_size[1]} x {image_size[0]} by scaling'
        )
    matrix[:2] *= scale[:, None]
    matrix[:2, 2] += (0.5 - corner) * scale - 0.5  # about the middles of pixels
    matrix[2] = 0, 0, 1
    distortion = _distortion(np.array(d, float), model)
    return Camera(matrix, rotation, distortion, readout, model == 'equidistant')


def _distortion(coefficients: np.ndarray, model: str) -> np.ndarray:
    """Return the coefficients as ``Camera`` has them."""
    lengths = DISTORTIONS.get(model)
    if lengths is None:
        known = ', '.join(filter(None, DISTORTIONS))
        raise ValueError(f'distortion_model of camera_info is {model!r}, not one of {known}')
    if not coefficients.any():
        return np.zeros(4 if model == 'equidistant' else 0)
    if len(coefficients) not in lengths or not np.isfinite(coefficients).all():
        raise ValueError(
            f'D of camera_info has {len(coefficients)} coefficients, '
            f'but {model or "no distortion_model"} has {" or ".join(map(str, lengths)) or "none"}'
        )
    return coefficients


class Frames:
    """How coordinate frames are turned to each other, as far as transforms connect them."""

    def __init__(self) -> None:
        self._turns: defaultdict[str, dict[str, np.ndarray]] = defaultdict(dict)

    def add(self, parent: str, child: str, quaternion: Sequence[float]) -> None:
        """Take in a transform of tf, from ``child`` to ``parent``; ``ValueError`` if it is none."""
        turn = rotation_of(quaternion)
        self._turns[child][parent], self._turns[parent][child] = turn, turn.T

    def rotation(self, source: str, target: str) -> tuple[np.ndarray, int] | None:
        """
        Return the rotation (3 x 3) of vectors from ``source`` to ``target``, by the shortest chain.

        With it how many transforms that has, 0 for one and the same frame; None if there is none.
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
