"""Malformed messages: 10,000 through the functions that open them, some through the node."""

import copy
import random

import cv2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import image_message, jpeg_bomb, png_bomb, smooth_picture
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from iov_restore_ros.node.compressed import MAX_PIXELS, check_compressed, decode, encode
from iov_restore_ros.node.encodings import ENCODINGS
from iov_restore_ros.node.images import (
    MalformedImageError,
    UnsupportedEncodingError,
    check,
    from_rgb,
    to_rgb,
    view,
)

REFUSED = MalformedImageError, UnsupportedEncodingError
UINT32 = 2**32 - 1
PADDING = 5
PICTURE = smooth_picture(12, 16)
WHOLE = {encoding: image_message(PICTURE, encoding, padding=PADDING) for encoding in ENCODINGS}
FILES = {
    codec: cv2.imencode(codec, cv2.resize(PICTURE, (48, 36)))[1].tobytes()
    for codec in ('.jpg', '.png')
}
FORMATS = (
    '', 'jpeg', 'png', 'rgb8; jpeg compressed bgr8', 'mono16; png compressed ', 'nv12; jpeg',
    'uyvy; png compressed bgr8', '16UC1; compressedDepth png', 'h264', '; ; ;', '\n',
)
NAMES = st.one_of(
    st.sampled_from(['', 'RGB8', 'rgb8 ', '16UC1', '32FC1', 'bayer_rggb16', 'jpeg', 'nv24']),
    st.text(st.characters(exclude_categories=['Cs']), max_size=8),
).filter(lambda name: name not in ENCODINGS)


def examples(count):
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )


def open_message(message):
    """Do everything that the node does with a message, apart from restoring."""
    if isinstance(message, CompressedImage):
        check_compressed(message)
        message = decode(message)
    check(message)
    rgb = to_rgb(view(message), message.encoding)
    back = from_rgb(rgb, message)
    encode(back, 'jpeg', 95)
    assert rgb.shape == (message.height, message.width, 3) == (back.height, back.width, 3)


# Ways to make a message wrong for certain; ``n`` is any number of 32 bits.
BROKEN_IMAGES = {
    'no rows': lambda m, n: {'height': 0},
    'no columns': lambda m, n: {'width': 0},
    'step too small': lambda m, n: {'step': n % (m.step - PADDING)},
    'data cut off': lambda m, n: {'data': m.data[: n % (len(m.data) - PADDING)]},
    'too high': lambda m, n: {'height': max(n, m.height + 1)},
    'too wide': lambda m, n: {'width': max(n, m.width + PADDING + 1)},
    'step too large': lambda m, n: {'step': max(n, m.step + 1)},
    '100 megapixels, no data': lambda m, n: {
        'height': 10_000, 'width': 10_000, 'step': 10_000 * m.step, 'data': b''
    },
    'as large as can be': lambda m, n: dict.fromkeys(('height', 'width', 'step'), UINT32),
    'encoding': lambda m, n: {},
}


@examples(5500)
@given(
    st.sampled_from(list(ENCODINGS)), st.sampled_from(list(BROKEN_IMAGES)),
    st.integers(0, UINT32), NAMES,
)
def test_broken_images_are_refused(encoding, how, n, name):
    message = copy.copy(WHOLE[encoding])
    for field, value in BROKEN_IMAGES[how](message, n).items():
        setattr(message, field, value)
    if how == 'encoding':
        message.encoding = name
    with pytest.raises(REFUSED):
        open_message(message)


# The same for the bytes of a JPEG or PNG file; ``junk`` is up to 60 of any value.
BROKEN_FILES = {
    'cut off': lambda file, n, junk: file[: n % (len(file) - 20)],
    'no file': lambda file, n, junk: junk,
    'shifted': lambda file, n, junk: b'x' + junk + file,
    'PNG bomb': lambda file, n, junk: png_bomb(MAX_PIXELS + n % 2**30, 1 + n % 99),
    'JPEG bomb': lambda file, n, junk: jpeg_bomb(8000 + n % 57_000, 8000 + n % 49_999),
    'PNG header': lambda file, n, junk: flipped(FILES['.png'], n % 41, 1 + n % 255),
}


def flipped(data, place, bits):
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


@examples(3500)
@given(
    st.sampled_from(list(FILES)), st.sampled_from(list(BROKEN_FILES)), st.integers(0, UINT32),
    st.binary(max_size=60), st.sampled_from(FORMATS),
)
def test_broken_compressed_images_are_refused(codec, how, n, junk, name):
    data = BROKEN_FILES[how](FILES[codec], n, junk)
    with pytest.raises(REFUSED):
        open_message(CompressedImage(format=name, data=data))


@examples(500)
@given(
    st.sampled_from([*ENCODINGS, '', '16UC1', 'what']), st.booleans(), st.integers(0, 9),
    st.integers(0, 9), st.integers(0, 60), st.binary(max_size=700),
)
def test_any_image_is_opened_or_refused(encoding, bigendian, height, width, step, data):
    message = Image(
        encoding=encoding, is_bigendian=bigendian, height=height, width=width, step=step, data=data
    )
    try:
        open_message(message)
    except REFUSED as error:
        assert str(error)


@examples(500)
@given(
    st.sampled_from(FORMATS) | NAMES, st.sampled_from(list(FILES)),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=5),
)
def test_a_damaged_file_is_opened_or_refused(name, codec, changes):
    data = bytearray(FILES[codec])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        open_message(CompressedImage(format=name, data=bytes(data)))
    except REFUSED as error:
        assert str(error)


def malformed_messages(kind, count):
    """Return messages of both kinds of trouble, the same each time."""
    rng = random.Random(7)  # noqa: S311  no secret
    messages = []
    for number in range(count):
        n = rng.randrange(2**32)
        if kind is Image:
            message = copy.deepcopy(WHOLE[rng.choice(list(ENCODINGS))])
            how = rng.choice(list(BROKEN_IMAGES))
            for field, value in BROKEN_IMAGES[how](message, n).items():
                setattr(message, field, value)
            if how == 'encoding':
                message.encoding = rng.choice(['', 'nonsense', '32FC1', 'bayer_\u00fc'])
        else:
            file = FILES[rng.choice(list(FILES))]
            data = BROKEN_FILES[rng.choice(list(BROKEN_FILES))](file, n, rng.randbytes(n % 60))
            message = CompressedImage(format=rng.choice(FORMATS), data=data)
        message.header.stamp.sec = number
        messages.append(message)
    return messages


@pytest.mark.parametrize(('kind', 'transport', 'suffix'), [
    (Image, 'raw', ''), (CompressedImage, 'compressed', '/compressed'),
])
def test_the_node_survives_publishes_none_and_counts_all(rig, kind, transport, suffix):
    base, count = '/camera/image_raw', 200
    topic = f'{base}{suffix}'
    rig.launch(mode='derain', precision='float32', image_transport=transport, **{
        f'qos_overrides.{topic}.subscription.reliability': 'reliable',
        f'qos_overrides.{topic}.subscription.depth': count,
    })
    qos = QoSProfile(depth=count)
    publisher = rig.node.create_publisher(kind, topic, qos)
    got = []
    for received, name in ((Image, ''), (CompressedImage, '/compressed')):
        rig.node.create_subscription(
            received, f'/camera/restored/image_raw{name}', got.append, qos
        )
    rig.wait(lambda: publisher.get_subscription_count() and all(
        rig.node.count_publishers(f'/camera/restored/image_raw{s}') for s in ('', '/compressed')
    ))
    rig.spin(0.5)
    for message in malformed_messages(kind, count):
        publisher.publish(message)
        rig.spin(0.002)
    rig.wait(lambda: rig.next_status('camera camera')[2]['received'] == str(count))
    rig.spin(0.5)
    assert rig.process.poll() is None
    assert not got
    values = rig.next_status('camera camera')[2]
    ended = {k: int(v) for k, v in values.items() if v.isdigit() and k != 'received'}
    assert sum(ended.values()) == count
    assert ended['dropped: malformed'] > 0 and ended['dropped: encoding'] > 0
    assert {k for k, v in ended.items() if v} <= {
        'dropped: malformed', 'dropped: encoding', 'dropped: newer frame'
    }
    good = image_message(PICTURE, 'rgb8')
    publisher.publish(good if kind is Image else encode(good, 'jpeg', 95))
    rig.wait(lambda: len(got) == 2)  # raw and compressed
    assert 'Traceback' not in rig.said()
