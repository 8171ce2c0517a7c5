"""Comparisons for people: each received frame beside the published frame."""

import time
from collections import deque
from collections.abc import Callable

import cv2
import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image

from iov_restore_ros.node.compressed import open_image
from iov_restore_ros.node.images import new_message
from iov_restore_ros.node.transports import ImagePublisher

LINE = 2  # pixels between both sides; even, because some video encoders need an even width
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
FULL_SCALE = 900  # pixels of height at which the letters have the font's own size
LEAST_SCALE = 0.4  # smaller letters are unreadable
TEXT_MARGIN = 6  # pixels below the text and left of it
PERIOD = 3.0  # s over which the rate is measured


def side_by_side(left: np.ndarray, right: np.ndarray, text: str) -> np.ndarray:
    """
    Return both pictures with a thin line between them, and ``text`` in the lower left corner.

    The pictures are uint8 H x W x 3, RGB. The result is uint8 H x (2 W + 2) x 3, RGB.
    """
    height = len(left)
    picture = np.hstack([left, np.full((height, LINE, 3), 255, np.uint8), right])
    scale = max(LEAST_SCALE, height / FULL_SCALE)
    for colour, thickness in ((BLACK, 3), (WHITE, 1)):  # an outline: readable on any picture
        cv2.putText(
            picture, text, (TEXT_MARGIN, height - TEXT_MARGIN), cv2.FONT_HERSHEY_SIMPLEX, scale,
            colour, thickness, cv2.LINE_AA,
        )
    return picture


class ComparePublisher:
    """Publishes comparisons, raw and compressed, only while somebody subscribes."""

    def __init__(self, node: LifecycleNode, topic: str, matched: Callable[[], None]) -> None:
        """Create the publishers; ``matched`` is called when a subscriber comes or goes."""
        self._publisher = ImagePublisher(node, topic, matched, lazy=True)
        self._shown: deque[float] = deque()  # times (s, monotonic) in the last ``PERIOD``

    def wanted(self) -> bool:
        """Return whether somebody subscribes."""
        return self._publisher.get_subscription_count() > 0

    def publish(
        self, came: Image | CompressedImage, went_out: Image | CompressedImage, task: str
    ) -> None:
        """
        Publish a frame as it ``came`` beside the frame that ``went_out``, in rgb8.

        Nothing happens if nobody subscribes. Raises ``UnsupportedEncodingError`` or
        ``MalformedImageError`` if one of them cannot be opened.
        """
        if not self.wanted():
            return
        _, left = open_image(came)
        right = left if went_out is came else open_image(went_out)[1]
        picture = side_by_side(left, right, f'{task}{self._rate()}')
        self._publisher.publish(new_message(went_out.header, picture, 'rgb8', False))

    def _rate(self) -> str:
        """Count a frame; return the recent frame rate as text, empty for the first frame."""
        now = time.monotonic()
        self._shown.append(now)
        while now - self._shown[0] > PERIOD:
            self._shown.popleft()
        took = now - self._shown[0]
        return f' {(len(self._shown) - 1) / took:.1f} fps' if took else ''
