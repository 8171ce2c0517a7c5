"""What sensor_msgs/CameraInfo says of a camera, for a picture of any size."""

import numpy as np
from sensor_msgs.msg import CameraInfo

from iov_restore_ros.video.camera_path import Camera

# Names of sensor_msgs/distortion_models.hpp, and how many coefficients each may have.
DISTORTIONS = {'plumb_bob': (4, 5), 'rational_polynomial': (8, 12, 14), 'equidistant': (4,)}
UNEQUAL = 0.02  # by which both sides of a picture may be scaled differently


class CalibrationError(Exception):
    """A camera_info that says nothing of use; the message says why."""


def as_camera(
    info: CameraInfo, size: tuple[int, int], rotation: np.ndarray, readout: float
) -> Camera:
    """
    Return how a camera sees whose pictures have ``size`` (height, width).

    ``rotation`` (3 x 3, from the IMU's frame) and ``readout`` (s) are those of ``Camera``. The
    matrix is scaled to the picture, be that binned, resized, or a region of the sensor. Raises
    ``CalibrationError``.
    """
    matrix = np.array(info.k).reshape(3, 3)
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise CalibrationError('camera_info is not calibrated: K has no focal lengths')
    scale, offset = _region(info, size)
    matrix[:2] *= scale[:, None]
    matrix[:2, 2] += (0.5 - offset) * scale - 0.5  # about the middles of pixels
    matrix[2] = 0, 0, 1
    return Camera(
        matrix, rotation, _distortion(info), readout, info.distortion_model == 'equidistant'
    )


def _region(info: CameraInfo, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return what of the sensor a picture shows: its scale and its corner, x before y."""
    roi = info.roi
    whole = np.array([info.width, info.height], float)
    region = np.array([roi.width, roi.height], float) if roi.width and roi.height else whole
    picture = np.array(size[::-1], float)
    if not region.all():  # drivers that leave it out mean the picture
        region = picture
    scale = picture / region
    if abs(scale[0] / scale[1] - 1) > UNEQUAL:
        raise CalibrationError(
            f'camera_info is for {region[0]:.0f} x {region[1]:.0f} pixels, '
            f'which do not become {size[1]} x {size[0]} by scaling'
        )
    return scale, np.array([roi.x_offset, roi.y_offset], float)


def _distortion(info: CameraInfo) -> np.ndarray:
    """Return the coefficients as ``Camera`` has them."""
    distortion = np.array(info.d, float)
    fisheye = info.distortion_model == 'equidistant'
    if not distortion.any():
        return np.zeros(4 if fisheye else 0)
    lengths = DISTORTIONS.get(info.distortion_model)
    if lengths is None:
        raise CalibrationError(
            f'distortion_model of camera_info is {info.distortion_model!r}, '
            f'but must be one of {", ".join(DISTORTIONS)}'
        )
    if len(distortion) not in lengths or not np.isfinite(distortion).all():
        raise CalibrationError(
            f'D of camera_info has {len(distortion)} coefficients, but {info.distortion_model} '
            f'has {" or ".join(map(str, lengths))} finite ones'
        )
    return distortion
