"""The node with a gyroscope beside its cameras: over DDS, and the parts of it alone."""

import struct
import sys
from math import inf, nan, pi
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from pictures import RATE, SIZE
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import serialize_message
from ros_harness import make_message
from sensor_msgs.msg import CameraInfo, Imu
from std_msgs.msg import Float32

from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.node.images import from_rgb, view
from iov_restore_ros.node.imu import read_imu
from iov_restore_ros.node.mounting import MountingError, StaticTransforms, rotations
from iov_restore_ros.video.camera_path import Camera, Gyroscope
from iov_restore_ros.video.inertial import Inertial

FOCAL = 180.0  # pixels
BEGIN = 100.0  # s
IMU_RATE = 200.0  # Hz
READOUT = 0.01  # s
MOUNTED = [0.5, -0.5, 0.5, 0.5]  # the IMU looks along x, left is y, up is z (REP 103)
TO_CAMERA = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0.0]])
FRAMES = 5
BEST_EFFORT = QoSProfile(depth=1000, reliability=QoSReliabilityPolicy.BEST_EFFORT)


@pytest.fixture(scope='module')
def restorer():
    return Restorer(device='cpu', precision='float32')


def angles(times):
    """Return how far the camera is turned about x and y (rad) at ``times``."""
    return np.stack([
        0.02 * np.sin(2 * pi * 6 * times), 0.03 * np.sin(2 * pi * 5 * times + 1)
    ], -1)


@pytest.fixture(scope='module')
def shaken(street):
    """Frames of a camera that shakes, each the mean of what it saw for half a frame time."""
    frames = []
    for number in range(FRAMES):
        moments = BEGIN + (number + np.linspace(-0.25, 0.25, 9)) / RATE
        seen = [
            cv2.warpAffine(
                street, np.array([[1, 0, 120 + FOCAL * y], [0, 1, 80 - FOCAL * x]]), SIZE[::-1],
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            ) for x, y in angles(moments)
        ]
        frames.append(np.mean(seen, 0).round().astype(np.uint8))
    return frames


def set_stamp(header, time):
    header.stamp.sec = int(time)
    header.stamp.nanosec = round((time - int(time)) * 1e9)


def seconds(message):
    return message.header.stamp.sec + message.header.stamp.nanosec / 1e9


def samples(end, begin=BEGIN - 0.1):
    """Return the messages of the IMU from ``begin`` to ``end``, s."""
    messages = []
    for time in np.arange(begin, end, 1 / IMU_RATE):
        rates = (angles(time + 1e-4) - angles(time - 1e-4)) / 2e-4
        message = Imu()
        message.header.frame_id = 'imu_link'
        set_stamp(message.header, time)
        x, y, z = TO_CAMERA.T @ [*rates, 0.0]
        message.angular_velocity.x, message.angular_velocity.y = x, y
        message.angular_velocity.z = z
        messages.append(message)
    return messages


def calibration(width=SIZE[1], height=SIZE[0], **values):
    """Return a camera_info of the shaken camera."""
    info = CameraInfo(width=width, height=height, distortion_model='plumb_bob', d=[0.0] * 5)
    info.header.frame_id = 'lens'
    scale = width / SIZE[1]
    info.k = [
        FOCAL * scale, 0.0, SIZE[1] / 2 * scale - 0.5, 0.0, FOCAL * scale,
        SIZE[0] / 2 * scale - 0.5, 0.0, 0.0, 1.0,
    ]
    for name, value in values.items():
        setattr(info, name, value)
    return info


def at(pixels, number):
    message = make_message(pixels, 0)
    set_stamp(message.header, BEGIN + number / RATE)
    return message


def offline(restorer, frames, messages, info, imu, offset=0.0, exposure=0.0, readout=READOUT):
    """Return what History and Inertial make of the same frames, samples and camera_info."""
    history = History(shutter=0.5)
    history.exposure = exposure
    gyroscope = Gyroscope()
    camera = Camera(np.array(info.k).reshape(3, 3), rotations(MOUNTED)[0], readout=readout)
    history.inertial = Inertial(gyroscope, camera, offset)
    for message in imu:
        rates = message.angular_velocity
        gyroscope.add(seconds(message), rates.x, rates.y, rates.z)
    return [
        restore_next(restorer, history, frame, seconds(message), 'deblur')
        for frame, message in zip(frames, messages, strict=True)
    ]


def same(got, pixels, sent):
    return np.array_equal(view(got), view(from_rgb(pixels, sent)))


class Shaker:
    """Publishes what belongs to a camera that shakes."""

    def __init__(self, rig, wait=1.0, qos=BEST_EFFORT, **parameters):
        parameters = {
            'mode': 'deblur', 'imu': True, 'imu_rotation': MOUNTED, 'shutter': 0.5,
            'readout': READOUT, 'imu_wait': wait, 'device': 'cpu', **parameters,
        }
        self.rig = rig
        self.publisher = rig.node.create_publisher(Imu, 'imu', qos)
        rig.start(**parameters)
        rig.wait(self.publisher.get_subscription_count)
        rig.spin(0.3)

    def turn(self, messages):
        for number, message in enumerate(messages):
            self.publisher.publish(message)
            if number % 20 == 0:  # not more than sockets take
                self.rig.spin(0.01)
        self.rig.spin(0.1)

    def calibrate(self, info):
        """Publish ``info``, and give it time to come before a frame."""
        self.rig.send(info)
        self.rig.spin(0.2)

    def show(self, messages):
        return [self.rig.round_trip(message) for message in messages]


def values_of(rig):
    return rig.next_status('camera camera')[2]


def test_frames_equal_the_offline_result_with_the_same_samples(rig, restorer, shaken):
    """Its publisher is best effort."""
    shaker = Shaker(rig)
    info, imu = calibration(), samples(BEGIN + 1)
    shaker.calibrate(info)
    shaker.turn(imu)
    sent = [at(frame, number) for number, frame in enumerate(shaken)]
    got = shaker.show(sent)
    values = values_of(rig)  # at once: after some seconds it would be idle
    expected = offline(restorer, shaken, sent, info, imu)
    assert all(map(same, got, expected, sent))
    alone = History(shutter=0.5)
    without = [
        restore_next(restorer, alone, frame, seconds(message), 'deblur')
        for frame, message in zip(shaken, sent, strict=True)
    ]
    assert not any(map(same, got[1:], without[1:], sent[1:]))
    assert values['gyroscope'] == 'used'
    assert values['frames with gyroscope'] == '4 of 5; none: first 1'
    assert values['gyroscope offset ms'] == '0.0'
    bias = map(float, values['gyroscope bias rad/s'].split())
    assert max(map(abs, bias)) < 0.005
    _, _, values = rig.next_status('restorer')
    assert values['imu refused'] == '0'
    rig.spin(1.2)
    assert rig.said().count('camera: the gyroscope is used') == 1
    unstamped = at(shaken[0], FRAMES)
    set_stamp(unstamped.header, 0.0)
    shaker.show([unstamped])
    assert values_of(rig)['gyroscope'] == 'not used: the frames have no stamps'
    rig.set_parameters(use_past=False)
    shaker.show([at(shaken[0], FRAMES)])
    assert values_of(rig)['gyroscope'].startswith('not used: use_past is false')


def test_an_exposure_that_is_told_and_an_offset(rig, restorer, shaken):
    """Reliable; the parameters change while it runs, and a picture is half its calibration."""
    shaker = Shaker(
        rig, qos=10, exposure_type='std_msgs/msg/Float32', shutter=0.1, imu_rotation=[0, 0, 0, 1],
        readout=0.0, input_timeout=0.0,
    )
    for name, value in {
        'imu_rotation': MOUNTED, 'imu_time_offset': 0.02, 'readout': READOUT,
    }.items():
        [answer] = rig.set_parameters(**{name: value})
        assert answer.successful
    exposure = rig.node.create_publisher(Float32, 'camera/exposure', 1)
    rig.wait(exposure.get_subscription_count)
    rig.spin(0.3)
    exposure.publish(Float32(data=5000.0))  # us
    rig.spin(0.2)
    exposure.publish(Float32(data=0.0078125))
    imu = samples(BEGIN + 1)
    for message in imu:
        set_stamp(message.header, seconds(message) + 0.02)
    shaker.calibrate(calibration(2 * SIZE[1], 2 * SIZE[0]))
    shaker.turn(imu)
    sent = [at(frame, number) for number, frame in enumerate(shaken)]
    got = shaker.show(sent)
    expected = offline(restorer, shaken, sent, calibration(), imu, 0.02, 0.0078125)
    assert all(map(same, got, expected, sent))
    values = values_of(rig)
    assert values['frames with gyroscope'] == '4 of 5; none: first 1', 'nothing to compare it by'
    assert (values['exposure ms'], values['exposure ignored']) == ('7.81', '1')
    assert values['gyroscope offset ms'] == '20.0'


def test_late_samples_are_gone_without_and_counted(rig, restorer, shaken):
    shaker = Shaker(rig, wait=0.02)
    info, imu = calibration(), samples(BEGIN + 1)
    shaker.calibrate(info)
    sent = [at(frame, number) for number, frame in enumerate(shaken)]
    late = next(n for n, m in enumerate(imu) if seconds(m) > seconds(sent[2]))
    shaker.turn(imu[:late])
    got = shaker.show(sent[:3])  # the last one is only half exposed by then
    [answer] = rig.set_parameters(imu_wait=1.0)
    assert answer.successful
    rig.send(sent[3])
    rig.spin(0.15)
    assert not [m for m in rig.images['camera'] if m.header == sent[3].header], 'it waits'
    shaker.turn(imu[late:])
    got.append(rig.wait(lambda: next(
        (m for m in rig.images['camera'] if m.header == sent[3].header), None
    )))
    history = History(shutter=0.5)
    expected = []
    for number, frame in enumerate(shaken[:4]):
        if number != 2:
            if number == 0:
                gyroscope = Gyroscope()
                inertial = Inertial(gyroscope, Camera(
                    np.array(info.k).reshape(3, 3), rotations(MOUNTED)[0], readout=READOUT
                ))
                for message in imu:
                    rates = message.angular_velocity
                    gyroscope.add(seconds(message), rates.x, rates.y, rates.z)
            history.inertial = inertial
        else:
            history.inertial = None
        expected.append(restore_next(restorer, history, frame, seconds(sent[number]), 'deblur'))
    assert all(map(same, got, expected, sent[:4]))
    values = values_of(rig)
    assert values['frames with gyroscope'] == '2 of 4; none: first 1, late 1'


def test_what_is_wrong_is_named_and_frames_are_as_without(rig, restorer, shaken):
    """Everything is wrong at first, and is put right one by one."""
    shaker = Shaker(rig, imu_rotation=[])
    history = History(shutter=0.5)
    numbers = iter(range(1000))
    statuses = []

    def reason():
        """Send a frame; return why it had no gyroscope."""
        number = next(numbers)
        frame, message = shaken[number % FRAMES], at(shaken[number % FRAMES], number)
        [got] = shaker.show([message])
        expected = restore_next(restorer, history, frame, seconds(message), 'deblur')
        assert same(got, expected, message)
        statuses.append(rig.next_status('camera camera'))
        return statuses[-1][2]['gyroscope']

    assert reason() == 'not used: /imu is silent'
    without_rates = Imu()
    without_rates.angular_velocity_covariance[0] = -1
    shaker.turn([without_rates])
    assert reason().startswith('not used: /imu has no angular rates: angular_velocity_covariance')

    def keep_alive():
        shaker.turn(samples(BEGIN + 30, BEGIN + 29.99))

    keep_alive()
    assert reason() == 'not used: no camera_info received on camera/camera_info'
    shaker.calibrate(CameraInfo(width=SIZE[1], height=SIZE[0]))
    keep_alive()
    assert reason() == 'not used: tf2_ros is not installed: set imu_rotation'
    rig.set_parameters(imu_rotation=MOUNTED)
    keep_alive()
    assert reason() == 'not used: camera_info is not calibrated: K has no focal lengths'
    shaker.calibrate(calibration(640, 640))
    keep_alive()
    assert reason().startswith('not used: camera_info is for 640 x 640 pixels, which cannot')
    shaker.calibrate(calibration())
    keep_alive()
    clock = 'the newest sample is 29.8 s newer than the frame: stamps of another clock?'
    assert reason() == f'not used: {clock}'
    level, message, values = statuses[-1]
    assert (level, message) == (DiagnosticStatus.WARN, f'no gyroscope: {clock}')
    assert values['frames with gyroscope'] == (
        '0 of 7; none: no calibration 3, no rotation 1, no samples 2, other clock 1'
    )
    _, _, values = rig.next_status('restorer')
    assert int(values['imu refused']) == 1
    rig.spin(1.2)
    assert rig.said().count('no gyroscope: the newest sample') == 1
    [answer] = rig.set_parameters(imu=False)
    assert answer.successful
    assert reason() == 'off'
    rig.wait(lambda: not shaker.publisher.get_subscription_count())


def test_a_remapped_topic_is_listened_to(rig):
    publisher = rig.node.create_publisher(Imu, '/sensing/imu', 10)
    rig.launch(['-r', 'imu:=/sensing/imu'], autostart=True, device='cpu')
    rig.wait(publisher.get_subscription_count)
    _, _, values = rig.next_status('restorer')
    assert values['imu'] == '/sensing/imu is silent'
    publisher.publish(samples(BEGIN)[0])
    rig.wait(lambda: rig.next_status('restorer')[2]['imu'] == '1 Hz in imu_link')


@pytest.mark.parametrize(('value', 'reason'), [
    ({'imu_rotation': [0.0, 0.0, 0.0, 2.0]}, 'must be quaternions of length 1'),
    ({'imu_rotation': [0.0, 0.0, 1.0]}, 'must be quaternions of length 1'),
    ({'imu_rotation': [nan, 0.0, 0.0, 1.0]}, 'must be quaternions of length 1'),
    ({'imu_rotation': MOUNTED * 3}, 'imu_rotation has 3 quaternions for 2 cameras'),
    ({'exposure_type': 'std_msgs/msg/String'}, "'data' of std_msgs/msg/String is of type str"),
    ({'exposure_field': 'x', 'exposure_type': 'std_msgs/msg/Float32'}, "has no field 'x'"),
])
def test_wrong_parameters_stop_configure_with_the_reason(rig, value, reason):
    rig.launch(cameras='[left, right]', device='cpu', **{
        name: str(each).replace('nan', '.nan') for name, each in value.items()
    })
    rig.wait(lambda: reason in rig.said())


def test_a_second_camera_needs_a_rotation_too(rig):
    rig.start(['left', 'right'], device='cpu', imu_rotation=MOUNTED * 2)
    answers = rig.set_parameters(imu_rotation=MOUNTED * 3)
    assert not answers[0].successful
    assert answers[0].reason == (
        'imu_rotation has 3 quaternions for 2 cameras: give one, or one for each'
    )
    for good in (MOUNTED, [], [0, 0, 0, 1]):
        assert rig.set_parameters(imu_rotation=good)[0].successful


def test_a_frame_asks_for_samples_until_the_end_of_its_exposure(shaken):
    history = History(shutter=0.6)
    assert history.asks_until(BEGIN) == -inf
    camera = Camera(np.eye(3), np.eye(3), readout=-0.01)
    history.inertial = Inertial(Gyroscope(), camera, 0.002)
    assert history.asks_until(BEGIN) == pytest.approx(BEGIN + 0.007), 'nobody knows the exposure'
    history.look_back(shaken[0], BEGIN, 'deblur')
    assert history.asks_until(BEGIN + 0.1) == pytest.approx(BEGIN + 0.137)
    history.exposure = 0.02
    assert history.asks_until(BEGIN + 0.1) == pytest.approx(BEGIN + 0.117)


@pytest.mark.parametrize('name', ['', 'a', 'imu_link', 'imu/with/a/long/name'])
def test_a_serialized_imu_is_read(name):
    message = samples(BEGIN)[3]
    message.header.frame_id = name
    message.angular_velocity_covariance[0] = 0.25
    data = serialize_message(message)
    rates = message.angular_velocity
    assert read_imu(data) == (seconds(message), name, (rates.x, rates.y, rates.z), 0.25)
    for cut in range(4, len(data) - 28 * 8, 3):
        with pytest.raises(struct.error):
            read_imu(data[:cut])


def test_rotations_are_those_of_tf():
    """The axes of REP 103: the body's x is forward, a camera's z."""
    [turn] = rotations(MOUNTED)
    assert np.allclose(turn, TO_CAMERA)
    assert [len(rotations(each)) for each in ([], MOUNTED, MOUNTED * 2)] == [0, 1, 2]


class FakeBuffer:
    """In the place of tf2_ros.Buffer, with transforms from child to parent only."""

    def __init__(self):
        self.transforms = {}

    def set_transform_static(self, transform, authority):
        self.transforms[transform.header.frame_id, transform.child_frame_id] = transform

    def lookup_transform(self, target, source, time):
        if (target, source) not in self.transforms:
            raise LookupError(f'{source} is unknown')
        return self.transforms[target, source]


def test_tf2_is_asked_until_it_knows(monkeypatch):
    tf2 = ModuleType('tf2_ros')
    tf2.Buffer, tf2.TransformException = FakeBuffer, LookupError
    messages = ModuleType('tf2_msgs.msg')
    messages.TFMessage = SimpleNamespace
    for module in (tf2, ModuleType('tf2_msgs'), messages):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    heard = []
    transforms = StaticTransforms(SimpleNamespace(
        create_subscription=lambda kind, topic, callback, qos: heard.append((topic, callback))
    ))
    with pytest.raises(MountingError, match=r'from imu_link to lens .*imu_link is'):
        transforms.rotation('imu_link', 'lens')
    with pytest.raises(MountingError, match='header of imu names no frame_id'):
        transforms.rotation('', 'lens')
    found = TransformStamped(child_frame_id='imu_link')
    found.header.frame_id = 'lens'
    turn = found.transform.rotation
    turn.x, turn.y, turn.z, turn.w = MOUNTED
    [(topic, callback)] = heard
    assert topic == '/tf_static'
    callback(SimpleNamespace(transforms=[found]))
    assert np.allclose(transforms.rotation('imu_link', 'lens'), TO_CAMERA)
    transforms._buffer.transforms.clear()
    assert np.allclose(transforms.rotation('imu_link', 'lens'), TO_CAMERA), 'it remembers'
