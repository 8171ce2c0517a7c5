"""Every encoding against formulas of our own (pictures.py), cv_bridge, and docs/encodings.md."""

import numpy as np
import pytest
from pictures import BAYER, GREY, grey_of, image_message, smooth_picture

from iov_restore_ros.node.compressed import encode
from iov_restore_ros.node.encodings import ENCODINGS
from iov_restore_ros.node.images import MalformedImageError, check, from_rgb, to_rgb, view

EXACT = [name for name, encoding in ENCODINGS.items() if encoding.channels > 2]  # RGB, reordered
SIXTEEN = [name for name, encoding in ENCODINGS.items() if encoding.bits == 16]


def expected_rgb(rgb, encoding):
    return grey_of(rgb) if encoding in GREY else rgb


@pytest.mark.parametrize('bigendian', [False, True])
@pytest.mark.parametrize('padding', [0, 6, 7])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_colours_are_right(encoding, padding, bigendian):
    rgb = smooth_picture()
    message = image_message(rgb, encoding, padding, bigendian)
    got = to_rgb(view(message), encoding)
    error = np.abs(got.astype(int) - expected_rgb(rgb, encoding))
    if encoding in BAYER:
        error = error[2:-2, 2:-2]  # at the edge OpenCV repeats its neighbours
    assert error.max() <= (0 if encoding in (*EXACT, *GREY) else 3)
    assert got.flags.c_contiguous


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_size_and_padding_are_checked_to_the_byte(encoding):
    message = image_message(smooth_picture(6, 8), encoding, padding=3)
    check(message)
    unpadded = message.data[:-3]  # the last row needs none
    message.data = unpadded
    check(message)
    message.data = unpadded[:-1]
    with pytest.raises(MalformedImageError, match='bytes of data'):
        check(message)


@pytest.mark.parametrize(('encoding', 'height', 'width'), [
    ('uyvy', 4, 5), ('yuyv', 4, 5), ('nv12', 4, 5), ('nv12', 5, 4), ('nv21', 5, 4),
    ('bayer_rggb8', 2, 8), ('bayer_grbg8', 8, 2),
])
def test_sizes_that_an_encoding_cannot_have(encoding, height, width):
    message = image_message(smooth_picture(8, 8), encoding)
    message.height, message.width = height, width
    with pytest.raises(MalformedImageError):
        view(message)


@pytest.mark.parametrize('bigendian', [False, True])
@pytest.mark.parametrize('encoding', SIXTEEN)
def test_sixteen_bits_are_changed_as_much_as_their_picture(encoding, bigendian):
    """Every 16-bit value, left alone in half of the picture, and brighter by 10 in the other."""
    message = image_message(np.zeros((256, 256, 3), np.uint8), encoding, bigendian=bigendian)
    channels = ENCODINGS[encoding].channels
    values = np.arange(65536).reshape(256, 256, 1).repeat(channels, -1)
    message.data = values.astype('>u2' if bigendian else '<u2').tobytes()
    seen = to_rgb(view(message), encoding).astype(int)
    restored = seen.copy()
    restored[:, 128:] = (seen[:, 128:] + 10).clip(max=255)
    result = from_rgb(restored.astype(np.uint8), message)
    assert (result.encoding, result.is_bigendian) == (encoding, message.is_bigendian)
    change = 257 * (restored - seen)[..., :channels]
    assert np.array_equal(view(result), (values + change).clip(max=65535))


def test_cv_bridge_sees_the_same():
    """Where cv_bridge knows an encoding, its users get the colours that we get."""
    cv_bridge = pytest.importorskip('cv_bridge', reason='needs cv_bridge')
    rgb, compared = smooth_picture(), []
    for encoding in ENCODINGS:
        message = image_message(rgb, encoding)
        try:
            theirs = cv_bridge.CvBridge().imgmsg_to_cv2(message, 'rgb8')
        except (cv_bridge.CvBridgeError, KeyError):  # KeyError: the one from PyPI
            continue
        assert np.abs(to_rgb(view(message), encoding).astype(int) - theirs).max() <= 1, encoding
        compared.append(encoding)
    assert {'bgr8', 'mono8', 'bayer_rggb8', 'bayer_gbrg8'} <= set(compared)


def test_the_documented_table_is_what_happens(pytestconfig):
    rgb = smooth_picture()
    rows = ['| in | restored | `/compressed`, jpeg | `/compressed`, png |', '|---|---|---|---|']
    for encoding in ENCODINGS:
        restored = from_rgb(rgb, image_message(rgb, encoding))
        formats = [encode(restored, codec, 95).format for codec in ('jpeg', 'png')]
        cells = [f'`{name}`' for name in (encoding, restored.encoding, *formats)]
        rows.append(f'| {" | ".join(cells)} |')
    table = '\n'.join(rows)
    page = (pytestconfig.rootpath / 'docs' / 'encodings.md').read_text()
    assert table in page, f'docs/encodings.md lacks this table:\n{table}'
