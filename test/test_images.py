"""sensor_msgs/Image to RGB and back."""

import numpy as np
import pytest
from sensor_msgs.msg import Image

from iov_restore_ros.node.encodings import ENCODINGS
from iov_restore_ros.node.images import (
    MalformedImageError,
    UnsupportedEncodingError,
    check,
    from_rgb,
    to_rgb,
    view,
)

PLAIN = ('rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8')


def message(encoding='rgb8', height=5, width=7, padding=0, seed=0):
    """Return an image message of random pixels and those pixels."""
    channels = ENCODINGS[encoding][0]
    rows = np.random.default_rng(seed).integers(
        0, 256, (height, width * channels + padding), np.uint8
    )
    image = Image(
        height=height, width=width, encoding=encoding, step=rows.shape[1], data=rows.tobytes()
    )
    image.header.frame_id = 'front'
    image.header.stamp.sec = 12
    return image, rows[:, : width * channels].reshape(height, width, channels)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding', PLAIN)
def test_view_sees_the_pixels_without_the_padding(encoding, padding):
    image, pixels = message(encoding, padding=padding)
    assert np.array_equal(view(image), pixels)


def test_view_copies_nothing():
    image, _ = message(padding=3)
    pixels = view(image)
    image.data[0] ^= 255
    assert pixels[0, 0, 0] == image.data[0]
    with pytest.raises(ValueError, match='read-only'):
        pixels[0, 0, 0] = 1


@pytest.mark.parametrize(('encoding', 'order'), [
    ('rgb8', [0, 1, 2]), ('bgr8', [2, 1, 0]), ('rgba8', [0, 1, 2]), ('bgra8', [2, 1, 0]),
    ('mono8', [0, 0, 0]),
])
def test_colour_order(encoding, order):
    image, pixels = message(encoding, padding=2)
    rgb = to_rgb(view(image), encoding)
    assert np.array_equal(rgb, pixels[..., order])
    assert rgb.flags.c_contiguous


@pytest.mark.parametrize('encoding', PLAIN)
def test_there_and_back_is_the_same_picture(encoding):
    image, pixels = message(encoding, padding=4)
    back = from_rgb(to_rgb(view(image), encoding), image)
    assert back.header == image.header
    assert (back.height, back.width, back.encoding) == (5, 7, encoding)
    assert back.step == 7 * ENCODINGS[encoding][0]
    assert np.array_equal(view(back), pixels)


@pytest.mark.parametrize('field', [
    {'height': 0}, {'width': 0}, {'step': 20}, {'step': 0}, {'data': b''}, {'data': b'123'},
    {'height': 10_000, 'width': 10_000, 'step': 30_000}, {'step': 2**32 - 1, 'height': 2**32 - 1},
])
def test_malformed_messages(field):
    image, _ = message()
    for name, value in field.items():
        setattr(image, name, value)
    with pytest.raises(MalformedImageError):
        view(image)


@pytest.mark.parametrize('encoding', ['', '32FC1', '16UC1', 'RGB8', 'nonsense'])
def test_other_encodings_are_named(encoding):
    """With the list of those that are known; the data are looked at for whole rows only."""
    image, _ = message()
    image.encoding = encoding
    check(image)
    with pytest.raises(UnsupportedEncodingError, match=f"'{encoding}' is not.*rgb8.*nv12"):
        view(image)
    image.data = image.data[:-1]
    with pytest.raises(MalformedImageError):
        check(image)
    image.width = 0
    with pytest.raises(MalformedImageError, match='0 x 5 pixels'):
        check(image)
