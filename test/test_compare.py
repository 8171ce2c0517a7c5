"""Comparisons: what they show, when they are made, and that they stay out of the way."""

import itertools

import numpy as np
import pytest
import rclpy
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_harness import make_message
from sensor_msgs.msg import CompressedImage, Image

from iov_restore_ros.node import compare
from iov_restore_ros.node.compare import LINE, ComparePublisher, side_by_side
from iov_restore_ros.node.compressed import decode, encode
from iov_restore_ros.node.images import MalformedImageError, UnsupportedEncodingError, to_rgb, view

TOPIC = '/camera/restored/compare'


def rgb_of(message):
    return to_rgb(view(message), message.encoding)


@pytest.fixture
def look(rig):
    """Return a function that subscribes to a topic and returns the messages that come."""
    def subscribe(topic=TOPIC, kind=Image, qos=10):
        messages = []
        rig.node.create_subscription(kind, topic, messages.append, qos)
        return messages
    return subscribe


@pytest.fixture
def driver(rig):
    return rig.node.create_publisher(Image, '/camera/image_raw', 10)


def wait_for_the_node(rig, driver):
    """Wait until the node listens, and has found all who look."""
    rig.wait(driver.get_subscription_count)
    rig.spin(0.5)


def test_both_sides_are_whole_but_for_the_text(photograph):
    height, width = photograph.shape[:2]
    right = 255 - photograph
    picture = side_by_side(photograph, right, 'derain 9.9 fps')
    assert picture.shape == (height, 2 * width + LINE, 3)
    assert (picture[: height // 2, width : width + LINE] == 255).all()
    changed = (picture != side_by_side(photograph, right, '')).any(-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() > 0.9 * height and columns.max() < 0.5 * width
    rest = ~changed[:, :width]
    assert np.array_equal(picture[:, :width][rest], photograph[rest])
    assert np.array_equal(picture[:, width + LINE :], right)


@pytest.mark.parametrize('shape', [(1, 1), (3, 500), (2000, 2)])
def test_no_picture_is_too_small_for_the_text(shape):
    picture = np.zeros((*shape, 3), np.uint8)
    assert side_by_side(picture, picture, 'deblur').shape == (shape[0], 2 * shape[1] + LINE, 3)


@pytest.fixture
def publisher(rig):
    """A publisher of comparisons in this process; its raw ones are latched."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=int(rig.domain))
    node = LifecycleNode('restore', context=context, parameter_overrides=[
        Parameter(f'qos_overrides.{TOPIC}.publisher.durability', value='transient_local')
    ])
    node.declare_parameters('', [('compressed_format', 'jpeg'), ('jpeg_quality', 95)])
    publisher = ComparePublisher(node, TOPIC, lambda: None)
    node.trigger_configure()
    node.trigger_activate()
    yield publisher
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_nothing_is_made_while_nobody_looks(rig, publisher, look, crop, monkeypatch):
    """Not even a message that cannot be opened is looked at. The text tells the rate."""
    texts = []

    def compose(left, right, text):
        texts.append(text)
        return side_by_side(left, right, text)

    monkeypatch.setattr(compare, 'side_by_side', compose)
    frame, depth = make_message(crop, 1), Image(encoding='32FC1', height=1, width=1, step=4)
    publisher.publish(frame, frame, 'derain')
    publisher.publish(depth, depth, 'off')
    assert not publisher.wanted() and texts == []

    got = look()
    rig.wait(publisher.wanted)
    clock = itertools.count(100, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(compare.time, 'monotonic', lambda: next(clock))
        with pytest.raises(UnsupportedEncodingError):
            publisher.publish(depth, depth, 'off')
        with pytest.raises(MalformedImageError):
            publisher.publish(frame, CompressedImage(data=b'nothing'), 'derain')
        for came in (frame, frame, encode(frame, 'png', 95)):
            publisher.publish(came, frame, 'derain')
    assert texts == ['derain', 'derain 2.0 fps', 'derain 2.0 fps']
    rig.wait(lambda: len(got) == 3)


def test_who_looks_at_the_compressed_ones_alone_gets_those_alone(rig, publisher, look, crop):
    compressed = look(f'{TOPIC}/compressed', CompressedImage)
    rig.wait(publisher.wanted)
    for number in range(2):
        frame = make_message(crop, number)
        publisher.publish(frame, frame, 'off')
    rig.wait(lambda: len(compressed) == 2)
    latched = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    raw = look(qos=latched)
    rig.spin(0.5)  # what was published before would come now
    publisher.publish(frame, frame, 'off')
    rig.wait(lambda: raw)
    assert len(raw) == 1


def test_left_as_it_came_and_right_as_it_went_out(rig, look, driver, crop):
    """In any encoding, and compressed, behind the frame itself; to look is enough to be served."""
    published = {topic: [] for topic in ('/camera/restored/image_raw', TOPIC)}  # when
    rig.launch(mode='derain', precision='float32', compressed_format='png')
    rig.next_status('camera camera')
    assert driver.get_subscription_count() == 0
    compared, compressed = look(), look(f'{TOPIC}/compressed', CompressedImage)
    wait_for_the_node(rig, driver)
    restored = look('/camera/restored/image_raw')
    for topic, times in published.items():
        rig.node.create_subscription(
            Image, topic, lambda _, info, t=times: t.append(info['source_timestamp']), 10
        )
    rig.spin(0.5)
    for number, encoding in enumerate(('rgb8', 'bgra8', 'mono8')):
        sent = make_message(crop, number, encoding)
        driver.publish(sent)
        rig.wait(lambda n=number: min(map(len, (compared, compressed, restored))) > n)
        assert compared[-1].header == compressed[-1].header == sent.header
        assert (compared[-1].encoding, compressed[-1].format[:5]) == ('rgb8', 'rgb8;')
        picture = rgb_of(compared[-1])
        assert np.array_equal(picture, rgb_of(decode(compressed[-1])))
        expected = side_by_side(rgb_of(sent), rgb_of(restored[-1]), 'derain')
        assert not np.array_equal(rgb_of(sent), rgb_of(restored[-1]))
        without_text = slice(0, 40)
        assert np.array_equal(picture[without_text], expected[without_text])
        if number == 0:  # there is no rate yet
            assert np.array_equal(picture, expected)
    rig.wait(lambda: all(len(times) == 3 for times in published.values()))
    assert all(frame < shown for frame, shown in zip(*published.values(), strict=True))


def test_a_frame_that_only_passes_is_on_both_sides(rig, look, driver, crop):
    """What cannot be opened goes out all the same, and is named once."""
    rig.launch(mode='passthrough', precision='float32')
    compared, restored = look(), look('/camera/restored/image_raw')
    wait_for_the_node(rig, driver)
    sent = make_message(crop, 1, 'bgr8')
    depth = Image(header=sent.header, encoding='32FC1', height=3, width=5, step=20, data=bytes(60))
    driver.publish(sent)
    rig.wait(lambda: compared and restored)
    assert restored == [sent] and compared[0].header == sent.header
    assert np.array_equal(rgb_of(compared[0]), side_by_side(crop, crop, 'off'))
    for number in range(3):
        driver.publish(depth)
        rig.wait(lambda n=number: len(restored) == n + 2)
    driver.publish(sent)
    rig.wait(lambda: len(restored) == 5 and len(compared) > 1)
    assert len(compared) == 2
    assert rig.said().count("cannot compare: encoding '32FC1' is not supported") == 1
