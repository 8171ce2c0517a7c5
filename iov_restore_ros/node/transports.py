"""
Raw and compressed images, with the topic names of image_transport.

`/compressed` is added to the resolved base topic, so remapping the base topic moves both.
"""

from collections.abc import Callable

import cv2
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image

from iov_restore_ros.node.compressed import decode, encode
from iov_restore_ros.node.images import MalformedImageError, UnsupportedEncodingError
from iov_restore_ros.node.qos import FollowingSubscription, create_publisher

TRANSPORTS = ('raw', 'compressed')
LOG_PERIOD = 10.0  # s between two log lines about the same problem


def compressed_topic(node: LifecycleNode, base: str) -> str:
    """Return the topic of the compressed images that belong to ``base``."""
    return f'{node.resolve_topic_name(base)}/compressed'


def subscribe(
    node: LifecycleNode,
    base: str,
    on_image: Callable[[Image | CompressedImage, dict[str, int]], None],
    on_lost: Callable[[int], None],
    depth: int,
) -> FollowingSubscription:
    """
    Subscribe to ``base`` with the transport of the parameter `image_transport`.

    ``on_image`` gets the message and the middleware's information about it. ``on_lost`` gets the
    number of messages that the middleware lost.
    """
    raw = node.get_parameter('image_transport').value == 'raw'
    return FollowingSubscription(
        node,
        Image if raw else CompressedImage,
        base if raw else compressed_topic(node, base),
        on_image, depth, on_lost,
    )


class ImagePublisher:
    """Publishes images raw and, while somebody subscribes to them, compressed."""

    def __init__(
        self, node: LifecycleNode, base: str, matched: Callable[[], None], lazy: bool = False
    ) -> None:
        """
        Create both publishers; call ``matched`` when a subscriber appears or leaves.

        With ``lazy``, raw images are published only while somebody subscribes to them, too.
        """
        self._node = node
        self._lazy = lazy
        self._raw = create_publisher(node, Image, base, matched)
        self._compressed = create_publisher(
            node, CompressedImage, compressed_topic(node, base), matched
        )

    def get_subscription_count(self) -> int:
        """Return the number of subscribers of both topics."""
        return self._raw.get_subscription_count() + self._compressed.get_subscription_count()

    def converts(self, message: Image | CompressedImage) -> bool:
        """Return whether publishing ``message`` requires compressing or decoding it."""
        other = self._compressed if isinstance(message, Image) else self._raw
        return other.get_subscription_count() > 0

    def publish(self, message: Image | CompressedImage) -> None:
        """
        Publish ``message`` raw and compressed, converting it only if somebody subscribes.

        Raises ``UnsupportedEncodingError`` or ``MalformedImageError``, and publishes nothing, if a
        compressed image cannot be decoded.
        """
        raw: Image | None
        compressed: CompressedImage | None
        if isinstance(message, CompressedImage):
            compressed = message
            raw = decode(message) if self._raw.get_subscription_count() else None
        else:
            raw = message if not self._lazy or self._raw.get_subscription_count() else None
            compressed = self._compress(message)
        if raw is not None:
            self._raw.publish(raw)
        if compressed is not None:
            self._compressed.publish(compressed)

    def _compress(self, image: Image) -> CompressedImage | None:
        if not self._compressed.get_subscription_count():
            return None
        codec, quality = (
            self._node.get_parameter(name).value for name in ('compressed_format', 'jpeg_quality')
        )
        try:
            return encode(image, codec, quality)
        except (UnsupportedEncodingError, MalformedImageError, cv2.error) as error:
            self._node.get_logger().error(
                f'published raw only, cannot compress: {error}', throttle_duration_sec=LOG_PERIOD
            )
            return None
