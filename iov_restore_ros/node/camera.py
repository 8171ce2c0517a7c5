"""The topics of one camera, and the camera_info of each of its frames."""

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

    Images use the requested transports of image_transport. The pipeline publishes
    `<name>/restored/compare` after the frames.
    """

    def __init__(self, node: LifecycleNode, name: str) -> None:
        """Create the publishers. They publish nothing until the node is active."""
        self.name = name
        self.statistics = Statistics()
        self.gauge = BlurGauge()
        self.history = History()
        self._node = node
        self.infos = CameraInfos()
        self._on_image: Callable[[Camera, Image | CompressedImage], None] | None = None
        self._subscriptions: list[FollowingSubscription] = []
        self._listening_since = 0.0  # s, monotonic
        self._last_number: int | None = None  # the publisher's number of the previous frame
        self._image_publisher = ImagePublisher(node, f'{name}/restored/image_raw', self.follow)
        self._info_publisher = create_publisher(
            node, CameraInfo, f'{name}/restored/camera_info', self.follow
        )
        self.comparison = ComparePublisher(node, f'{name}/restored/compare', self.follow)

    def subscribe(self, on_image: Callable[['Camera', Image | CompressedImage], None]) -> None:
        """
        Start to receive, now or (parameter `lazy`) when somebody subscribes to the output.

        The executor's thread calls ``on_image``.
        """
        self._on_image = on_image
        self.follow()

    def unsubscribe(self) -> None:
        """Stop receiving."""
        self._on_image = None
        self.follow()

    def wanted(self) -> bool:
        """Return whether somebody subscribes to the output, or `lazy` is off."""
        return not self._node.get_parameter('lazy').value or bool(
            self._image_publisher.get_subscription_count()
            or self._info_publisher.get_subscription_count()
            or self.comparison.wanted()
        )

    def follow(self) -> None:
        """Subscribe or unsubscribe as needed, with the publishers' QoS (executor's thread)."""
        on_image = self._on_image
        if on_image is None or not self.wanted():
            if self._subscriptions and on_image is not None:
                self._node.get_logger().info(
                    f'{self.name}: not listening, nobody subscribes to its output'
                )
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
            # One after the other: if the second fails, the first can still be destroyed.
            self._subscriptions.append(subscribe(
                self._node, f'{self.name}/image_raw', receive,
                self.statistics.lose_on_the_way, depth=1,  # older frames are useless
            ))
            self._subscriptions.append(FollowingSubscription(
                self._node, CameraInfo, f'{self.name}/camera_info', self._on_info, depth=5
            ))
            self._listening_since = time.monotonic()
            self._node.get_logger().info(
                f'{self.name}: listening to {self._subscriptions[0].topic}'
            )

    def listening_for(self) -> float | None:
        """Return for how many seconds it has been subscribed; None if it is not."""
        return time.monotonic() - self._listening_since if self._subscriptions else None

    def publishers(self) -> str:
        """Return why no images arrive."""
        [images, _] = self._subscriptions
        return images.trouble() or f'{images.topic} is silent'

    def concern(self) -> str:
        """Return why a published camera_info is not forwarded; empty if there is no problem."""
        if not self._subscriptions:
            return ''
        [_, infos] = self._subscriptions
        if not infos.matched() and self._node.count_publishers(infos.topic):
            return infos.trouble()
        return self.infos.concern()

    def converts(self, message: Image | CompressedImage) -> bool:
        """Return whether publishing ``message`` requires compressing, decoding or comparing."""
        return self._image_publisher.converts(message) or self.comparison.wanted()

    def receive(self, message: Image | CompressedImage) -> None:
        """Record that a frame was received."""
        stamp = message.header.stamp
        self.statistics.receive(is_set(stamp))
        self.infos.watch(stamp)

    def publish(self, message: Image | CompressedImage) -> None:
        """Publish a frame, and its camera_info now or as soon as it is received."""
        self._image_publisher.publish(message)
        info = self.infos.take(message.header.stamp)
        if info is not None:
            self._info_publisher.publish(info)

    def _count_lost(self, number: int) -> None:
        """
        Count the frames between this one and the previous one, by their publisher's numbers.

        They were lost on the way, or replaced by newer ones before the executor took them.
        """
        alone = self._subscriptions[0].matched() == 1  # several publishers: several counts
        if alone and self._last_number is not None:
            self.statistics.lose(max(0, number - self._last_number - 1))
        self._last_number = number if alone else None

    def _on_info(self, info: CameraInfo) -> None:
        late = self.infos.add(info)
        if late is not None:
            self._info_publisher.publish(late)
