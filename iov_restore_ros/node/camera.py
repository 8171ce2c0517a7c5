"""The topics of one camera, and the camera_info that goes with each of its frames."""

import time
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from iov_restore_ros.inference import BlurGauge, History
from iov_restore_ros.node.camera_infos import CameraInfos
from iov_restore_ros.node.compare import ComparePublisher
from iov_restore_ros.node.images import is_set
from iov_restore_ros.node.qos import FollowingSubscription, create_publisher
from iov_restore_ros.node.statistics import Statistics
from iov_restore_ros.node.transports import ImagePublisher, subscribe


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
        self.infos = CameraInfos()
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
            # One by one: should the second fail, the first is known.
            self._subscriptions.append(subscribe(
                self._node, f'{self.name}/image_raw', receive,
                self.statistics.lose_on_the_way, depth=1,  # older is of no use
            ))
            self._subscriptions.append(FollowingSubscription(
                self._node, CameraInfo, f'{self.name}/camera_info', self._on_info, depth=5
            ))
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

    def concern(self) -> str:
        """Return why camera_info does not go out though somebody publishes it; empty if it may."""
        if not self._subscriptions:
            return ''
        [_, infos] = self._subscriptions
        if not infos.matched() and self._node.count_publishers(infos.topic):
            return infos.trouble()
        return self.infos.concern()

    def converts(self, message: Image | CompressedImage) -> bool:
        """Tell whether publishing ``message`` takes compressing, decoding or comparing it."""
        return self._image_publisher.converts(message) or self.comparison.wanted()

    def receive(self, message: Image | CompressedImage) -> None:
        """Take note of a frame that came."""
        stamp = message.header.stamp
        self.statistics.receive(is_set(stamp))
        self.infos.watch(stamp)

    def publish(self, message: Image | CompressedImage) -> None:
        """Publish a frame and, at once or when it comes, its camera_info."""
        self._image_publisher.publish(message)
        info = self.infos.take(message.header.stamp)
        if info is not None:
            self._info_publisher.publish(info)

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
        late = self.infos.add(info)
        if late is not None:
            self._info_publisher.publish(late)
