"""
Between sensor_msgs/Image and the RGB frames that a restorer takes.

Sources: sensor_msgs/msg/Image and sensor_msgs/image_encodings.hpp; REP 118 names the fields.
"""

from array import array

import cv2
import numpy as np
from sensor_msgs.msg import Image

# Channels, and how to get RGB from the encoding and back (None: it is RGB).
ENCODINGS: dict[str, tuple[int, int | None, int | None]] = {
    'rgb8': (3, None, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB, cv2.COLOR_RGB2BGR),
    'rgba8': (4, cv2.COLOR_RGBA2RGB, cv2.COLOR_RGB2RGBA),
    'bgra8': (4, cv2.COLOR_BGRA2RGB, cv2.COLOR_RGB2BGRA),
    'mono8': (1, cv2.COLOR_GRAY2RGB, cv2.COLOR_RGB2GRAY),
}


class UnsupportedEncodingError(Exception):
    """An image whose encoding this node does not restore."""


class MalformedImageError(Exception):
    """An image message that contradicts itself; the message says how."""


def view(message: Image) -> np.ndarray:
    """
    Return ``message``'s pixels as uint8 H x W x channels without copying them.

    Padding at the end of rows (``step``) is left out. Raises ``UnsupportedEncodingError`` or
    ``MalformedImageError``.
    """
    if message.encoding not in ENCODINGS:
        raise UnsupportedEncodingError(
            f'encoding {message.encoding!r} is not supported, only {", ".join(ENCODINGS)} are'
        )
    channels = ENCODINGS[message.encoding][0]
    height, width, step = message.height, message.width, message.step
    if not height or not width:
        raise MalformedImageError(f'an image of {width} x {height} pixels')
    if step < width * channels:
        raise MalformedImageError(
            f'step is {step}, but a row of {width} {message.encoding} pixels '
            f'has {width * channels} bytes'
        )
    needed = step * (height - 1) + width * channels
    if len(message.data) < needed:
        raise MalformedImageError(
            f'{len(message.data)} bytes of data for {width} x {height} {message.encoding} '
            f'with step {step}, which needs {needed}'
        )
    data = np.frombuffer(message.data, np.uint8, needed)
    return np.lib.stride_tricks.as_strided(
        data, (height, width, channels), (step, channels, 1), writeable=False
    )


def to_rgb(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """Turn H x W x channels in ``encoding`` into contiguous RGB, H x W x 3."""
    code = ENCODINGS[encoding][1]
    pixels = np.ascontiguousarray(pixels)
    return pixels if code is None else cv2.cvtColor(pixels, code)


def from_rgb(restored: np.ndarray, message: Image) -> Image:
    """
    Return a message like ``message`` (header, size, encoding; an alpha channel too) that shows
    ``restored``, uint8 H x W x 3, RGB. Rows are without padding.
    """
    channels, _, code = ENCODINGS[message.encoding]
    pixels = restored if code is None else cv2.cvtColor(restored, code)
    if channels == 4:
        pixels[..., 3] = view(message)[..., 3]
    data = array('B')
    data.frombytes(np.ascontiguousarray(pixels).data.cast('B'))
    # check_fields makes the setter keep an array('B') as it is; otherwise it copies it.
    return Image(
        check_fields=True,
        header=message.header,
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=message.is_bigendian,
        step=message.width * channels,
        data=data,
    )
