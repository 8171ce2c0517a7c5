"""The topics of one camera, and the camera_info that goes with each of its frames."""

import threading
from collections import deque
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, QoSReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image

from iov_restore_ros.inference import BlurGauge
from iov_restore_ros.node.statistics import Statistics

INFOS_KEPT = 30  # a second of frames


# Functions, because rclpy writes qos_overrides into the profile that it is given.
def qos_in() -> QoSProfile:
    """Sensor data, depth 1: an older frame is of no use once a newer one is there."""
    return QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)


def qos_out() -> QoSProfile:
    """Reliable, so that every subscriber matches; one that asks for best effort gets that."""
    return QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)


class Camera:
    """Subscribes to `<name>/image_raw`, publishes `<name>/restored/image_raw`; camera_info too."""

    def __init__(self, node: LifecycleNode, name: str) -> None:
        """Create the publishers, which are silent until the node is active."""
        self.name = name
        self.statistics = Statistics()
        self.gauge = BlurGauge()
        self._node = node
        self._lock = threading.Lock()
        self._infos: deque[CameraInfo] = deque(maxlen=INFOS_KEPT)
        self._without_info: deque[tuple[int, int]] = deque(maxlen=INFOS_KEPT)
        overridable = QoSOverridingOptions.with_default_policies()
        self._publishers = [
            node.create_lifecycle_publisher(
                kind, f'{name}/restored/{topic}', qos_out(), qos_overriding_options=overridable
            )
            for kind, topic in ((Image, 'image_raw'), (CameraInfo, 'camera_info'))
        ]
        self._subscriptions: list = []

    def subscribe(self, on_image: Callable[['Camera', Image], None]) -> None:
        """Begin to receive; ``on_image`` is called in the executor's thread."""
        overridable = QoSOverridingOptions.with_default_policies()
        self._subscriptions = [
            self._node.create_subscription(
                Image, f'{self.name}/image_raw', lambda message: on_image(self, message),
                qos_in(), qos_overriding_options=overridable,
            ),
            self._node.create_subscription(
                CameraInfo, f'{self.name}/camera_info', self._on_info, qos_profile_sensor_data
            ),
        ]

    def unsubscribe(self) -> None:
        """Receive no more."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def publish(self, message: Image) -> None:
        """Publish a frame and, at once or when it comes, the camera_info of the same stamp."""
        images, infos = self._publishers
        images.publish(message)
        stamp = _stamp(message)
        with self._lock:
            info = next((i for i in reversed(self._infos) if _stamp(i) == stamp), None)
            if info is None:
                self._without_info.append(stamp)
        if info is not None:
            infos.publish(info)

    def destroy(self) -> None:
        """Take the publishers down."""
        self.unsubscribe()
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def _on_info(self, info: CameraInfo) -> None:
        stamp = _stamp(info)
        with self._lock:
            self._infos.append(info)
            late = stamp in self._without_info
            if late:
                self._without_info.remove(stamp)
        if late:
            self._publishers[1].publish(info)


def _stamp(message: Image | CameraInfo) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec
