"""The topics of one camera, and the camera_info that goes with each of its frames."""

import threading
import time
from collections import deque
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from iov_restore_ros.inference import BlurGauge, History
from iov_restore_ros.node.compare import ComparePublisher
from iov_restore_ros.node.qos import FollowingSubscription, create_publisher
from iov_restore_ros.node.statistics import Statistics
from iov_restore_ros.node.transports import ImagePublisher, subscribe

INFOS_KEPT = 30  # a second of frames


class Camera:
    """
    Subscribes to `<name>/image_raw`, publishes `<name>/restored/image_raw`; camera_info too.

    Each by the transports of image_transport that are asked for. So is `<name>/restored/compare`,
    which the pipeline publishes behind the frames.
    """

    def __init__(self, node: LifecycleNode, name: str) -> None:
        """Create the publishers, which are silent until the node is active."""
        self.name = name
        self.statistics = Statistics()
        self.gauge = BlurGauge()
        self.history = History()
        self._node = node
        self._lock = threading.Lock()
        self._infos: deque[CameraInfo] = deque(maxlen=INFOS_KEPT)
        self._without_info: deque[tuple[int, int]] = deque(maxlen=INFOS_KEPT)
        self._on_image: Callable[[Camera, Image | CompressedImage], None] | None = None
        self._subscriptions: list[FollowingSubscription] = []
        self._listening_since = 0.0  # s, monotonic
        self._last_number: int | None = None  # its publisher's, of the frame before
        self._image_publisher = ImagePublisher(node, f'{name}/restored/image_raw', self.follow)
        self._info_publisher = create_publisher(
            node, CameraInfo, f'{name}/restored/camera_info', self.follow
        )
        self.comparison = ComparePublisher(node, f'{name}/restored/compare', self.follow)

    def subscribe(self, on_image: Callable[['Camera', Image | CompressedImage], None]) -> None:
        """
        Begin to receive, at once or (parameter `lazy`) when somebody subscribes to the output.

        ``on_image`` is called in the executor's thread.
        """
        self._on_image = on_image
        self.follow()

    def unsubscribe(self) -> None:
        """Receive no more."""
        self._on_image = None
        self.follow()

    def wanted(self) -> bool:
        """Return whether somebody subscribes to the output, or that does not matter."""
        return not self._node.get_parameter('lazy').value or bool(
            self._image_publisher.get_subscription_count()
            or self._info_publisher.get_subscription_count()
            or self.comparison.wanted()
        )

    def follow(self) -> None:
        """Listen or not as is wanted now, and as the publishers offer (executor's thread)."""
        on_image = self._on_image
        if on_image is None or not self.wanted():
            if self._subscriptions and on_image is not None:
                self._node.get_logger().info(f'{self.name}: not listening, nobody wants its frames')
            for subscription in self._subscriptions:
                subscription.destroy()
            self._subscriptions = []
        elif self._subscriptions:
            for subscription in self._subscriptions:
                subscription.follow()
        else:
            def receive(message: Image | CompressedImage, info: dict[str, int]) -> None:
                self._count_lost(info['publication_sequence_number'])
                on_image(self, message)

            self._last_number = None
            self._subscriptions = [
                subscribe(
                    self._node, f'{self.name}/image_raw', receive,
                    self.statistics.lose_on_the_way, depth=1,  # older is of no use
                ),
                FollowingSubscription(
                    self._node, CameraInfo, f'{self.name}/camera_info', self._on_info, depth=5
                ),
            ]
            self._listening_since = time.monotonic()
            self._node.get_logger().info(
                f'{self.name}: listening to {self._subscriptions[0].topic}'
            )

    def listening_for(self) -> float | None:
        """Return for how long (s) it has listened; None when it does not."""
        return time.monotonic() - self._listening_since if self._subscriptions else None

    def publishers(self) -> str:
        """Say who publishes what it listens to."""
        [images, _] = self._subscriptions
        return images.trouble() or f'{images.topic} is silent'

    def info(self) -> CameraInfo | None:
        """Return the newest camera_info, if one has come."""
        with self._lock:
            return self._infos[-1] if self._infos else None

    def converts(self, message: Image | CompressedImage) -> bool:
        """Tell whether publishing ``message`` takes compressing, decoding or comparing it."""
        return self._image_publisher.converts(message) or self.comparison.wanted()

    def publish(self, message: Image | CompressedImage) -> None:
        """Publish a frame and, at once or when it comes, the camera_info of the same stamp."""
        self._image_publisher.publish(message)
        stamp = _stamp(message)
        with self._lock:
            info = next((i for i in reversed(self._infos) if _stamp(i) == stamp), None)
            if info is None:
                self._without_info.append(stamp)
        if info is not None:
            self._info_publisher.publish(info)

    def destroy(self) -> None:
        """Take the publishers down."""
        self.unsubscribe()
        self._image_publisher.destroy()
        self.comparison.destroy()
        self._node.destroy_lifecycle_publisher(self._info_publisher)

    def _count_lost(self, number: int) -> None:
        """
        Count the frames between this and the one before, by the numbers that their publisher gave.

        They were lost on the way, or replaced by newer ones before the executor took them.
        """
        alone = self._subscriptions[0].matched() == 1  # otherwise the numbers are of several
        if alone and self._last_number is not None:
            self.statistics.lose(max(0, number - self._last_number - 1))
        self._last_number = number if alone else None

    def _on_info(self, info: CameraInfo) -> None:
        stamp = _stamp(info)
        with self._lock:
            self._infos.append(info)
            late = stamp in self._without_info
            if late:
                self._without_info.remove(stamp)
        if late:
            self._info_publisher.publish(info)


def _stamp(message: Image | CompressedImage | CameraInfo) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec
