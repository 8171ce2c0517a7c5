"""
Conversion between sensor_msgs/Image and the RGB frames of a restorer.

Sources: sensor_msgs/msg/Image and sensor_msgs/image_encodings.hpp; REP 118 names the fields.
"""

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from iov_restore_ros.node.encodings import ENCODINGS, Encoding
from iov_restore_ros.pictures.sixteen_bits import corrected, to_eight_bits


class UnsupportedEncodingError(Exception):
    """An image in an encoding or format that this node does not support."""


class MalformedImageError(Exception):
    """An image message that contradicts itself; the message says how."""


def seconds(stamp: Time) -> float:
    """Return a stamp in s; different frame times of a camera stay different."""
    return stamp.sec + stamp.nanosec / 1e9


def is_set(stamp: Time) -> bool:
    """Return whether a stamp is set: a driver that sets none leaves it zero."""
    return bool(stamp.sec or stamp.nanosec)


def moment(stamp: Time, otherwise: float) -> float:
    """Return a stamp as ``seconds`` does, or ``otherwise`` (s) if it is not set."""
    return seconds(stamp) if is_set(stamp) else otherwise


def check(message: Image) -> None:
    """
    Raise ``MalformedImageError`` if size, step and data of ``message`` do not agree.

    For an unknown encoding only complete rows are checked: the frame may still pass unchanged.
    """
    encoding = ENCODINGS.get(message.encoding)
    height, width, step = message.height, message.width, message.step
    if not height or not width:
        raise MalformedImageError(f'an image of {width} x {height} pixels')
    if encoding is not None:
        _check_size(message, encoding)
        row = width * encoding.channels * encoding.bits // 8
        rows = height * 3 // 2 if encoding.chroma else height
        needed = step * (rows - 1) + row
    else:
        row, needed = 1, step * height
    if step < row:
        raise MalformedImageError(
            f'step is {step}, but a row of {width} {message.encoding} pixels has {row} bytes'
        )
    if len(message.data) < needed:
        raise MalformedImageError(
            f'{len(message.data)} bytes of data for {width} x {height} {message.encoding!r} '
            f'with step {step}, which needs {needed}'
        )


def _check_size(message: Image, encoding: Encoding) -> None:
    height, width = message.height, message.width
    if min(height, width) < encoding.minimum:
        raise MalformedImageError(
            f'{width} x {height} {message.encoding} pixels are too few: '
            f'{encoding.minimum} x {encoding.minimum} are needed'
        )
    if height % encoding.grid[0] or width % encoding.grid[1]:
        raise MalformedImageError(
            f'{width} x {height} pixels: {message.encoding} does not allow this odd size'
        )


def view(message: Image) -> np.ndarray:
    """
    Return a view of ``message``'s samples: rows x width x channels, without copying.

    They are uint8, or uint16 in the byte order of the message. The number of rows is the height, or
    1.5 times the height for nv12 and nv21. The view leaves out the padding of rows (``step``).
    Raises ``UnsupportedEncodingError`` or ``MalformedImageError``.
    """
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None:
        raise UnsupportedEncodingError(
            f'encoding {message.encoding!r} is not supported, only {", ".join(ENCODINGS)} are'
        )
    check(message)
    rows = message.height * 3 // 2 if encoding.chroma else message.height
    sample = encoding.bits // 8
    samples: np.ndarray = np.ndarray(
        (rows, message.width, encoding.channels),
        np.dtype(f'{">" if message.is_bigendian else "<"}u{sample}'),
        message.data,
        strides=(message.step, encoding.channels * sample, sample),
    )
    samples.flags.writeable = False
    return samples


def to_rgb(samples: np.ndarray, encoding: str) -> np.ndarray:
    """Convert samples of ``view`` in ``encoding`` to contiguous RGB, uint8 H x W x 3."""
    code = ENCODINGS[encoding].to_rgb
    pixels = np.ascontiguousarray(to_eight_bits(samples))
    return pixels if code is None else cv2.cvtColor(pixels, code)


def from_rgb(restored: np.ndarray, message: Image) -> Image:
    """
    Return a message like ``message`` with the pixels ``restored``, uint8 H x W x 3, RGB.

    Header and size stay the same. So does the encoding, unless ``ENCODINGS`` has another one for
    restored frames. An alpha channel is kept. 16-bit samples change by as much as their 8-bit
    picture, so that unchanged samples keep their lower bits. Rows have no padding.
    """
    name = ENCODINGS[message.encoding].restored_as or message.encoding
    encoding = ENCODINGS[name]
    pixels = restored if encoding.from_rgb is None else cv2.cvtColor(restored, encoding.from_rgb)
    if encoding.channels == 4:
        pixels[..., 3] = view(message)[..., 3]
    pixels = pixels.reshape(*restored.shape[:2], encoding.channels)
    if encoding.bits == 16:
        pixels = corrected(view(message), pixels)
    return new_message(message.header, pixels, name, bool(message.is_bigendian))


def new_message(header: Header, pixels: np.ndarray, encoding: str, bigendian: bool) -> Image:
    """Return a message with ``pixels``, H x W x channels, in ``encoding``."""
    pixels = np.ascontiguousarray(pixels)
    message = Image(
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=bigendian,
        step=pixels[0].nbytes,  # strides of a single row may be anything
    )
    # Filled in place, because the constructor copies its arguments.
    message.data.frombytes(pixels.data.cast('B') if pixels.dtype == np.uint8 else pixels.tobytes())
    return message
