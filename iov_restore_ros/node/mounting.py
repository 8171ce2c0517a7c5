"""The rotation from the IMU to the cameras: from a parameter, or from tf2 if it is installed."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time

from iov_restore_ros.video.calibration import rotation_of

UNIT = 0.01  # largest difference of a quaternion's length from 1


class MountingError(Exception):
    """The rotation is not known; the message says why."""


def rotations(values: Sequence[float]) -> list[np.ndarray]:
    """
    Return the rotations (3 x 3 each) of quaternions x, y, z, w, one after the other in ``values``.

    Raises ``ValueError`` for other values.
    """
    quaternions = np.array(values, float).reshape(-1, 4)
    lengths = np.linalg.norm(quaternions, axis=1)
    if not (np.abs(lengths - 1) <= UNIT).all():
        raise ValueError(f'quaternions of lengths {lengths}')
    return [rotation_of(quaternion) for quaternion in quaternions.tolist()]


class StaticTransforms:
    """Rotations from /tf_static. tf2_ros looks them up until they are found; then they are kept."""

    def __init__(self, node: LifecycleNode) -> None:
        """Subscribe to /tf_static, if tf2_ros is installed."""
        self._found: dict[tuple[str, str], np.ndarray] = {}
        self._node = node
        self._subscription: Any = None
        try:
            self._tf2: Any = importlib.import_module('tf2_ros')
            kind = importlib.import_module('tf2_msgs.msg').TFMessage
        except ImportError:
            self._tf2 = None
            return
        self._buffer = self._tf2.Buffer()
        # Without its TransformListener, which also subscribes to /tf and costs much in rclpy.
        self._subscription = node.create_subscription(
            kind, '/tf_static', self._on_transforms,
            QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL),
        )

    def rotation(self, imu: str, camera: str) -> np.ndarray:
        """Return the rotation (3 x 3) from frame ``imu`` to ``camera``, or ``MountingError``."""
        frames = imu, camera
        if frames in self._found:
            return self._found[frames]
        if self._tf2 is None:
            raise MountingError('tf2_ros is not installed: set imu_rotation')
        if not imu or not camera:
            raise MountingError(
                f'the header of {"imu" if not imu else "the frames"} names no frame_id: '
                'set imu_rotation'
            )
        try:
            turn = self._buffer.lookup_transform(camera, imu, Time()).transform.rotation
            [self._found[frames]] = rotations([turn.x, turn.y, turn.z, turn.w])
        except (self._tf2.TransformException, ValueError) as error:
            raise MountingError(
                f'/tf_static does not lead from {imu} to {camera} ({error}): set imu_rotation'
            ) from error
        return self._found[frames]

    def destroy(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)

    def _on_transforms(self, message: Any) -> None:
        for transform in message.transforms:
            self._buffer.set_transform_static(transform, 'iov_restore')
