"""sensor_msgs/CompressedImage to sensor_msgs/Image and back."""

import resource

import cv2
import numpy as np
import pytest
from pictures import grey_of, image_message, jpeg_bomb, png_bomb, smooth_picture
from sensor_msgs.msg import CompressedImage

from iov_restore_ros.node.compressed import MAX_PIXELS, check_compressed, decode, encode
from iov_restore_ros.node.encodings import ENCODINGS
from iov_restore_ros.node.images import (
    MalformedImageError,
    UnsupportedEncodingError,
    to_rgb,
    view,
)

RGB = smooth_picture()
BGR = np.ascontiguousarray(RGB[..., ::-1])
ALPHA = np.dstack([BGR, np.full(BGR.shape[:2], 77, np.uint8)])
WIDE = BGR * np.uint16(257)


def compressed(pixels, name, codec='png'):
    message = CompressedImage(format=name, data=cv2.imencode(f'.{codec}', pixels)[1].tobytes())
    message.header.frame_id, message.header.stamp.sec = 'front', 12
    return message


@pytest.mark.parametrize(('pixels', 'name', 'encoding', 'samples'), [
    (BGR, 'png', 'bgr8', BGR),
    (BGR, '', 'bgr8', BGR),
    (BGR, 'bgr8; png compressed bgr8', 'bgr8', BGR),
    (BGR, 'rgb8; png compressed bgr8', 'rgb8', RGB),
    (BGR, 'rgb8;png compressed bgr8', 'rgb8', RGB),
    (RGB, 'rgb8; png compressed ', 'rgb8', RGB),  # RGB given to an encoder that means BGR
    (BGR, 'rgba8; png compressed bgr8', 'rgba8', np.dstack([RGB, RGB[..., 0] * 0 + 255])),
    (BGR, 'bgra8; png compressed bgr8', 'bgra8', np.dstack([BGR, RGB[..., 0] * 0 + 255])),
    (BGR, '8UC3; png compressed ', '8UC3', BGR),
    (BGR, 'bayer_rggb8; png compressed bgr8', 'bgr8', BGR),
    (BGR, 'yuv422; png compressed bgr8', 'bgr8', BGR),
    (ALPHA, 'png', 'bgra8', ALPHA),
    (BGR[..., 0], 'png', 'mono8', BGR[..., :1]),
    (BGR[..., 0], 'mono8; png compressed ', 'mono8', BGR[..., :1]),
    (BGR[..., 0], 'bayer_rggb8; png compressed ', 'bayer_rggb8', BGR[..., :1]),
    (BGR[..., 0], 'bayer_rggb8; png compressed mono8', 'mono8', BGR[..., :1]),
    (BGR[..., 0], 'nv12; png compressed ', 'mono8', BGR[..., :1]),
    (BGR[..., 0], 'nv12; png compressed mono8', 'mono8', BGR[..., :1]),
    (BGR[..., 0], '8UC1; png compressed mono8', '8UC1', BGR[..., :1]),
    (ALPHA, 'rgba8; png compressed ', 'bgra8', ALPHA),
    (WIDE, 'rgb8; png compressed bgr8', 'bgr16', WIDE),  # names fewer bits than there are
    (WIDE[..., 0], 'mono8; png compressed ', 'mono16', WIDE[..., :1]),
    (WIDE, 'bgr16; png compressed bgr16', 'bgr16', WIDE),
    (WIDE, 'rgb16; png compressed bgr16', 'rgb16', WIDE[..., ::-1]),
    (WIDE, 'png', 'bgr16', WIDE),
    (WIDE[..., 0], 'mono16; png compressed ', 'mono16', WIDE[..., :1]),
    (BGR[..., 0], 'mono16; png compressed mono8', 'mono16', BGR[..., :1] * np.uint16(256)),
])
def test_format_names_the_encoding(pixels, name, encoding, samples):
    message = compressed(pixels, name)
    image = decode(message)
    assert (image.header, image.encoding) == (message.header, encoding)
    assert np.array_equal(view(image), samples)


def test_sixteen_bits_of_depth_are_no_picture():
    image = decode(compressed(WIDE[..., 0], '16UC1; png compressed '))
    assert image.encoding == '16UC1'
    with pytest.raises(UnsupportedEncodingError, match='16UC1'):
        view(image)


@pytest.mark.parametrize(('name', 'encoding'), [
    ('jpeg', 'bgr8'), ('jpg', 'bgr8'), ('rgb8; jpeg compressed bgr8', 'rgb8'),
    ('bgr8; jpeg compressed bgr8', 'bgr8'),
])
def test_jpeg(name, encoding):
    image = decode(compressed(BGR, name, 'jpg'))
    assert image.encoding == encoding
    assert np.abs(to_rgb(view(image), encoding).astype(int) - RGB).max() <= 6


@pytest.mark.parametrize('codec', ['jpeg', 'png'])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_there_and_back(encoding, codec):
    """The colours are right, PNG of 8 and 16 bits without loss, and names are kept."""
    image = image_message(RGB, encoding, padding=2)
    image.header.frame_id = 'front'
    back = decode(encode(image, codec, 95))
    assert back.header == image.header
    assert back.encoding == (ENCODINGS[encoding].restored_as or encoding)
    sent, got = (to_rgb(view(m), m.encoding).astype(int) for m in (image, back))
    assert np.abs(got - sent).max() <= (0 if codec == 'png' else 8)
    if codec == 'png' and encoding.endswith('16'):
        assert np.array_equal(view(back), view(image))


def test_jpeg_quality_makes_it_larger_and_better():
    rng = np.random.default_rng(0)
    image = image_message(cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (90, 90)), 'rgb8')
    poor, good = (encode(image, 'jpeg', quality) for quality in (10, 95))
    assert len(good.data) > 2 * len(poor.data)
    errors = [np.abs(view(decode(m)).astype(int) - view(image)).mean() for m in (poor, good)]
    assert errors[1] < errors[0] / 2


def test_a_grey_picture_stays_one_channel():
    message = encode(image_message(RGB, 'mono8'), 'jpeg', 95)
    assert message.format == 'mono8; jpeg compressed mono8'
    assert np.abs(view(decode(message)).astype(int) - grey_of(RGB)[..., :1]).max() <= 2


def test_a_picture_that_jpeg_cannot_hold_is_refused():
    image = image_message(np.zeros((1, 70_000, 3), np.uint8), 'rgb8')
    with pytest.raises((MalformedImageError, cv2.error)):
        encode(image, 'jpeg', 95)


@pytest.mark.parametrize('name', [
    '16UC1; compressedDepth png', '32FC1; compressedDepth', 'compressedDepth',
])
def test_depth_images_are_refused_by_name(name):
    data = bytes(12) + compressed(BGR[..., 0], '').data.tobytes()
    with pytest.raises(UnsupportedEncodingError, match='depth image'):
        check_compressed(CompressedImage(format=name, data=data))


@pytest.mark.parametrize('name', ['h264', 'rgb8; tiff compressed ', 'webp', 'nonsense'])
def test_other_formats_are_named(name):
    with pytest.raises(UnsupportedEncodingError, match=f'{name}.*only jpeg and png'):
        check_compressed(CompressedImage(format=name, data=b'RIFF1234WEBP'))


@pytest.mark.parametrize('data', [png_bomb(30_000, 30_000), jpeg_bomb(65_000, 65_000)])
def test_decompression_bombs_take_no_memory(data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MalformedImageError, match=f'more than {MAX_PIXELS}'):
        decode(CompressedImage(format='png', data=data))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 100_000


def test_a_png_part_that_claims_gigabytes_takes_no_memory():
    """OpenCV alone allocates what the length of a part says, here 4 GiB, and fails then."""
    data = bytearray(compressed(BGR, '').data)
    place = data.index(b'IDAT') - 4
    data[place : place + 4] = b'\xff\xff\xff\xff'
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MalformedImageError, match='longer than the file'):
        decode(CompressedImage(format='png', data=bytes(data)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize('codec', ['jpg', 'png'])
def test_damaged_data(codec):
    whole = compressed(BGR, codec, codec).data.tobytes()
    half = len(whole) // 2
    for damaged in (b'', whole[:1], whole[:20], whole[:half], whole[:-20], b'x' + whole):
        with pytest.raises(MalformedImageError):
            decode(CompressedImage(format=codec, data=damaged))
