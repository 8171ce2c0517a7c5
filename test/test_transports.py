"""Compressed images and every encoding through the node, over DDS."""

import numpy as np
import pytest
import torch
from pictures import GREY, grey_of, image_message, smooth_picture
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from iov_restore_ros.model import Generator, WeightsInfo, save_weights
from iov_restore_ros.node.compressed import decode, encode
from iov_restore_ros.node.encodings import ENCODINGS
from iov_restore_ros.node.images import to_rgb, view

RGB = smooth_picture()
QOS = QoSProfile(depth=20)
LOSS = 3  # of halving the resolution of the colour, and of Bayer away from the edge


class Topics:
    """Publishes to one topic of a node, and keeps what comes back on others."""

    def __init__(self, rig, kind, source, outputs):
        self.rig = rig
        self.publisher = rig.node.create_publisher(kind, source, QOS)
        self.got = {topic: [] for topic in outputs}
        for topic, expected in outputs.items():
            rig.node.create_subscription(expected, topic, self.got[topic].append, QOS)
        rig.wait(lambda: self.publisher.get_subscription_count() and all(
            rig.node.count_publishers(topic) for topic in outputs
        ))
        rig.spin(0.5)  # the node's side of the discovery
        self.number = 0

    def round_trip(self, message):
        """Publish and return what comes back on every output."""
        self.number += 1
        message.header.frame_id, message.header.stamp.sec = 'lens', self.number
        self.publisher.publish(message)
        return [
            self.rig.wait(lambda m=messages: next(
                (got for got in m if got.header == message.header), None
            )) for messages in self.got.values()
        ]


@pytest.fixture
def identity(tmp_path):
    """Weights that restore every picture to itself."""
    generator = Generator('fast')
    last = [m for m in generator.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    path = tmp_path / 'identity.safetensors'
    save_weights(path, generator, WeightsInfo('fast', 'derain'))
    return path


def rgb_of(message):
    image = decode(message) if isinstance(message, CompressedImage) else message
    return to_rgb(view(image), image.encoding).astype(int)


def test_every_encoding_goes_through(rig, identity):
    rig.launch(mode='derain', precision='float32', derain_weights=identity, unveil=False)
    topics = Topics(rig, Image, '/camera/image_raw', {
        '/camera/restored/image_raw': Image,
        '/camera/restored/image_raw/compressed': CompressedImage,
    })
    for encoding in ENCODINGS:
        for bigendian in (False, True):
            sent = image_message(RGB, encoding, padding=5, bigendian=bigendian)
            raw, compressed = topics.round_trip(sent)
            expected = grey_of(RGB) if encoding in GREY else RGB
            assert raw.encoding == (ENCODINGS[encoding].restored_as or encoding)
            inner = slice(2, -2)
            assert np.abs(rgb_of(raw) - expected)[inner, inner].max() <= LOSS, encoding
            assert np.abs(rgb_of(compressed) - expected)[inner, inner].max() <= 9, encoding
            if encoding.endswith('16') or encoding == 'rgba8':
                assert np.array_equal(view(raw), view(sent)), encoding


def test_compressed_in_and_out_also_when_remapped(rig, identity):
    """One remapping of the base topic moves both; a PNG comes back without loss."""
    rig.launch(
        ['-r', 'camera/image_raw:=/my/camera/image', '-r', 'camera/restored/image_raw:=/clean'],
        mode='derain', precision='float32', derain_weights=identity, unveil=False,
        image_transport='compressed',
    )
    topics = Topics(rig, CompressedImage, '/my/camera/image/compressed', {
        '/clean': Image, '/clean/compressed': CompressedImage,
    })
    raw, compressed = topics.round_trip(encode(image_message(RGB, 'rgb8'), 'png', 95))
    assert raw.encoding == 'rgb8'
    assert np.array_equal(view(raw), RGB)
    assert compressed.format == 'rgb8; jpeg compressed bgr8'

    [result] = rig.set_parameters(compressed_format='png')
    assert result.successful, result.reason
    raw, compressed = topics.round_trip(encode(image_message(RGB, 'mono16'), 'png', 95))
    assert (raw.encoding, compressed.format) == ('mono16', 'mono16; png compressed ')
    assert np.array_equal(view(raw), view(image_message(RGB, 'mono16')))

    rig.set_parameters(compressed_format='jpeg', jpeg_quality=20)
    raw, poor = topics.round_trip(encode(image_message(RGB, 'bgr8'), 'jpeg', 95))
    rig.set_parameters(jpeg_quality=100)
    _, good = topics.round_trip(encode(image_message(RGB, 'bgr8'), 'jpeg', 95))
    assert raw.encoding == 'bgr8'
    assert len(good.data) > len(poor.data)
    assert not rig.set_parameters(jpeg_quality=0)[0].successful
    assert 'configure' in rig.set_parameters(image_transport='raw')[0].reason


def test_passthrough_leaves_compressed_images_as_they_came(rig):
    rig.launch(mode='passthrough', precision='float32', image_transport='compressed')
    infos = rig.node.create_publisher(CameraInfo, '/camera/camera_info', QOS)
    topics = Topics(rig, CompressedImage, '/camera/image_raw/compressed', {
        '/camera/restored/image_raw': Image,
        '/camera/restored/image_raw/compressed': CompressedImage,
        '/camera/restored/camera_info': CameraInfo,
    })
    sent = encode(image_message(RGB, 'rgb8'), 'jpeg', 80)
    sent.header.frame_id, sent.header.stamp.sec = 'lens', 1
    infos.publish(CameraInfo(header=sent.header, height=48, width=64))
    rig.spin(0.3)
    raw, compressed, _ = topics.round_trip(sent)
    assert compressed == sent
    assert np.array_equal(view(raw), view(decode(sent)))
    assert rig.next_status('camera camera')[2]['passed through'] == '1'


def test_encodings_that_cannot_be_restored_pass_in_passthrough_only(rig):
    source = 'qos_overrides./camera/image_raw.subscription'
    rig.launch(mode='passthrough', precision='float32', **{
        f'{source}.reliability': 'reliable', f'{source}.depth': 20,  # so that none is lost
    })
    topics = Topics(rig, Image, '/camera/image_raw', {'/camera/restored/image_raw': Image})
    depth = Image(
        encoding='32FC1', height=3, width=5, step=20, data=bytes(range(60)), is_bigendian=True
    )
    assert topics.round_trip(depth) == [depth]
    mosaic = image_message(RGB, 'bayer_grbg8', padding=3)
    assert topics.round_trip(mosaic) == [mosaic]

    rig.set_parameters(mode='derain')
    for _ in range(3):
        topics.publisher.publish(depth)
    rig.wait(lambda: rig.next_status('camera camera')[2]['received'] == '5')
    values = rig.next_status('camera camera')[2]
    dropped = int(values['dropped: encoding'])
    assert dropped > 0 and dropped + int(values['dropped: newer frame']) == 3
    assert len(topics.got['/camera/restored/image_raw']) == 2
    assert rig.said().count('frame skipped') == 1, 'one throttled error, not one per frame'
    assert "'32FC1' is not supported, only rgb8" in rig.said()


def test_a_depth_topic_is_refused_by_name(rig):
    rig.launch(mode='passthrough', precision='float32', image_transport='compressed')
    topics = Topics(rig, CompressedImage, '/camera/image_raw/compressed', {
        '/camera/restored/image_raw': Image,
        '/camera/restored/image_raw/compressed': CompressedImage,
    })
    topics.publisher.publish(CompressedImage(format='16UC1; compressedDepth png', data=bytes(99)))
    rig.wait(lambda: rig.next_status('camera camera')[2]['dropped: encoding'] == '1')
    assert 'depth image' in rig.said()
    assert not any(topics.got.values())


def test_other_transports_are_refused(rig):
    rig.launch(image_transport='compressedDepth')
    assert rig.process.wait(20) == 1
    assert "'compressedDepth', but must be one of raw, compressed" in rig.said()


def test_a_lazy_camera_whose_compressed_frames_alone_are_wanted(rig, photograph):
    """It listens as the publisher offers, and a sharp frame goes out as it came."""
    rig.launch(
        mode='auto', vehicle_speed=20.0, skip_sharp=True, precision='float32',
        image_transport='compressed',
    )
    source = '/camera/image_raw/compressed'
    driver = rig.node.create_publisher(CompressedImage, source, QOS)
    rig.next_status('camera camera')
    assert driver.get_subscription_count() == 0
    got = []
    viewer = rig.node.create_subscription(
        CompressedImage, '/camera/restored/image_raw/compressed', got.append, QOS
    )
    rig.wait(lambda: [
        i.qos_profile.reliability for i in rig.node.get_subscriptions_info_by_topic(source)
    ] == [ReliabilityPolicy.RELIABLE])
    rig.spin(0.5)
    sent = encode(image_message(photograph, 'rgb8'), 'png', 95)
    driver.publish(sent)
    assert rig.wait(lambda: got) == [sent]
    rig.wait(lambda: rig.next_status('camera camera')[2]['passed, sharp already'] == '1')
    rig.node.destroy_subscription(viewer)
    rig.wait(lambda: driver.get_subscription_count() == 0)
