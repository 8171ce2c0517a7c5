"""The node as a process of its own, over DDS."""

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.qos import ReliabilityPolicy
from ros_harness import make_info, make_message
from sensor_msgs.msg import Image

from iov_restore_ros.inference import Restorer
from iov_restore_ros.model import Generator, WeightsInfo, save_weights
from iov_restore_ros.node.compare import side_by_side
from iov_restore_ros.node.images import from_rgb, view


@pytest.fixture(scope='module')
def restorer():
    return Restorer(device='cpu', precision='float32')


def test_restored_frames_equal_the_offline_result(rig, restorer, photograph):
    rig.start(mode='deblur')
    [expected] = restorer.restore([photograph], 'deblur')
    for number, encoding in enumerate(('rgb8', 'bgr8', 'rgba8', 'bgra8')):
        sent = make_message(photograph, number, encoding)
        got = rig.round_trip(sent)
        assert got.header == sent.header
        assert (got.height, got.width, got.encoding) == (*photograph.shape[:2], encoding)
        assert np.array_equal(view(got), view(from_rgb(expected, sent))), encoding

    grey = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)
    [expected] = restorer.restore([cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)], 'deblur')
    got = rig.round_trip(make_message(photograph, 9, 'mono8'))
    assert np.array_equal(view(got)[..., 0], cv2.cvtColor(expected, cv2.COLOR_RGB2GRAY))


def test_camera_info_goes_with_the_frame_also_when_late(rig, crop):
    rig.start(mode='derain')
    early, late, never = (make_message(crop, n) for n in range(3))
    rig.send(make_info(early))
    rig.spin(0.2)
    rig.round_trip(early)
    rig.round_trip(late)
    rig.send(make_info(late, k=600.0))
    rig.round_trip(never)
    rig.wait(lambda: len(rig.infos['camera']) >= 2)
    rig.spin(0.3)
    assert [(i.header, i.k[0]) for i in rig.infos['camera']] == [
        (early.header, 500.0), (late.header, 600.0)
    ]
    near = make_message(crop, 3)
    info = make_info(near, k=700.0)
    info.header.stamp.nanosec += 200_000_000  # of a frame time of 1 s
    rig.send(info)
    rig.round_trip(near)
    rig.wait(lambda: (near.header, 700.0) in [(i.header, i.k[0]) for i in rig.infos['camera']])


def test_three_cameras_at_once(rig, restorer, photograph):
    cameras = ('front', 'left', 'side/right')
    rig.start(cameras, mode='derain')
    sizes = {'front': (64, 96), 'left': (50, 70), 'side/right': (33, 35)}
    frames = {c: np.ascontiguousarray(photograph[:h, :w]) for c, (h, w) in sizes.items()}
    for number in range(4):
        sent = {c: make_message(frames[c], number, frame_id=c) for c in cameras}
        for camera in cameras:
            rig.send(sent[camera], camera)
        for camera in cameras:
            header = sent[camera].header
            got = rig.wait(lambda c=camera, h=header: next(
                (m for m in rig.images[c] if m.header == h), None
            ))
            [expected] = restorer.restore([frames[camera]], 'derain')
            assert np.array_equal(view(got), expected)
    assert all(len(rig.images[camera]) == 4 for camera in cameras)


def test_frames_of_several_cameras_in_one_batch(rig, restorer, photograph):
    cameras = ('front', 'left', 'right')
    rig.start(cameras, mode='derain', device='cpu', max_batch=3, batch_wait=0.5, threads=2)
    frames = {c: np.ascontiguousarray(photograph[n : n + 64, :96]) for n, c in enumerate(cameras)}
    for number in range(3):  # from the second on the node knows that all three are sending
        for camera in cameras:
            rig.send(make_message(frames[camera], number), camera)
        rig.wait(lambda n=number: all(len(rig.images[c]) == n + 1 for c in cameras))
    assert rig.next_status('restorer')[2]['batch'] == '3'
    for camera in cameras:
        [expected] = restorer.restore([frames[camera]], 'derain')
        got = view(rig.images[camera][-1])
        assert np.abs(got.astype(int) - expected).max() <= 1  # another order of the sums


def test_mode_switch_takes_effect_on_the_next_frame_without_loss(rig, restorer, crop):
    rig.start(mode='passthrough')
    expected = {task: restorer.restore([crop], task)[0] for task in ('deblur', 'derain')}
    expected['passthrough'] = crop
    number = 0
    for mode in ('deblur', 'derain', 'passthrough', 'derain', 'deblur'):
        [result] = rig.set_parameters(mode=mode)
        assert result.successful, result.reason
        for _ in range(2):
            number += 1
            got = rig.round_trip(make_message(crop, number))
            assert np.array_equal(view(got), expected[mode]), f'{mode}, frame {number}'
    assert len(rig.images['camera']) == number


def test_a_frame_that_only_passes_does_not_overtake_one_that_is_restored(rig, photograph, crop):
    rig.start(mode='deblur')
    slow = make_message(cv2.resize(photograph, (1280, 720)), 1)
    rig.send(slow)
    rig.spin(0.1)  # by now it is at work, for some tenths of a second
    rig.set_parameters(mode='passthrough')
    rig.send(make_message(crop, 2))
    rig.wait(lambda: len(rig.images['camera']) == 2)
    assert [m.header.stamp.sec for m in rig.images['camera']] == [1001, 1002]


def test_auto_follows_weather_and_speed(rig, restorer, crop):
    rig.start(mode='auto')
    deblurred, derained = (restorer.restore([crop], t)[0] for t in ('deblur', 'derain'))
    for number, (values, expected) in enumerate([
        ({}, crop),
        ({'vehicle_speed': 20}, deblurred),  # a whole number will do
        ({'weather': 'rain'}, derained),
        ({'weather': 'clear', 'deblur_min_speed': 25.0}, crop),
    ]):
        assert all(r.successful for r in rig.set_parameters(**values))
        assert np.array_equal(view(rig.round_trip(make_message(crop, number))), expected), values
    assert 'nothing to restore' in rig.next_status('restorer')[1]


def test_wrong_parameters_are_refused_with_the_reason(rig, crop):
    rig.start(mode='passthrough')
    for name, value, reason in [
        ('mode', 'off', 'must be one of auto, deblur, derain, passthrough'),
        ('weather', 'snow', 'must be one of clear, rain, fog'),
        ('deblur_min_speed', -1.0, 'at least 0.0'),
        ('vehicle_speed', float('nan'), 'finite number'),
        ('vehicle_speed', 'fast', 'finite number'),
        ('device', 'cpu', 'takes effect at configure'),
        ('derain_weights', '/nowhere.safetensors', '/nowhere.safetensors: there is no such'),
        ('cameras', ['a', 'a'], 'twice'),
        ('cameras', ['no good'], 'topic namespaces'),
        ('cameras', 'front', 'a list of texts'),
        ('mode', False, 'mode is False, but must be one of auto'),  # YAML makes that of `off`
        ('on_error', 3, 'must be one of passthrough, drop'),
        ('deblur_weights', 3, 'must be a text'),
        ('jpeg_quality', 0, 'Min: 1, Max: 100'),
        ('jpeg_quality', 50.5, 'must be a whole number'),
        ('lazy', 1, 'must be true or false'),
        ('no_such_parameter', 1, 'undeclared'),
    ]:
        [result] = rig.set_parameters(**{name: value})
        assert not result.successful, f'{name} = {value!r} was accepted'
        assert reason in result.reason
    assert np.array_equal(view(rig.round_trip(make_message(crop, 1))), crop)


@pytest.mark.parametrize(('name', 'value', 'reason'), [
    ('mode', 'sideways', 'must be one of auto'),
    ('deblur_min_speed', '-3.0', 'at least 0.0'),
    ('cameras', "['a b']", 'topic name'),
    ('cameras', '[]', 'cameras has no value'),
    ('mode', '7', 'mode is 7, but must be one of auto'),
])
def test_wrong_parameter_at_the_start_ends_the_node(rig, name, value, reason):
    rig.launch(autostart=False, **{name: value})
    assert rig.process.wait(20) == 1
    assert reason in rig.said()
    assert 'Traceback' not in rig.said()


def test_malformed_and_unknown_images_are_skipped_and_counted(rig, crop):
    rig.start(mode='derain')
    good = make_message(crop, 0)
    rig.round_trip(good)

    def spoilt(number, **fields):
        message = make_message(crop, number)
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    bad = [
        spoilt(1, data=b''), spoilt(2, step=3), spoilt(3, height=0), spoilt(4, height=100_000),
        spoilt(5, encoding='32FC1'), spoilt(6, encoding='nonsense'),
    ]
    for message in 2 * bad:
        rig.send(message)
        rig.spin(0.1)
    rig.round_trip(make_message(crop, 7))
    assert [m.header.stamp.sec for m in rig.images['camera']] == [1000, 1007]
    rig.spin(1.0)
    _, _, values = rig.next_status('camera camera')
    assert values['received'] == '14'
    assert values['restored'] == '2'
    assert values['dropped: malformed'] == '8'
    assert values['dropped: encoding'] == '4'
    lines = [line.partition(']: ')[2] for line in rig.said().splitlines() if 'skipped' in line]
    assert len(lines) == len(set(lines)) == len(bad) - 1, 'one of each reason, 1 and 4 share it'


def test_overload_keeps_the_newest_and_counts_the_rest(rig, photograph):
    rig.start(mode='deblur')
    large = cv2.resize(photograph, (960, 540))
    rig.round_trip(make_message(large, 0))
    count = 25
    for number in range(1, count + 1):
        rig.send(make_message(large, number))
        rig.spin(0.02)
    last = 1000 + count
    rig.wait(lambda: rig.images['camera'][-1].header.stamp.sec == last)
    seen = [m.header.stamp.sec for m in rig.images['camera']]
    assert seen == sorted(seen)
    assert len(seen) < count
    rig.spin(1.0)
    _, _, values = rig.next_status('camera camera')
    ended = {k: int(v) for k, v in values.items() if v.isdigit() and k != 'received'}
    assert int(values['received']) == sum(ended.values())
    assert ended['restored'] == len(seen)
    assert ended['dropped: newer frame'] > 0


def test_frame_passes_untouched_when_restoring_fails(rig, crop, tmp_path):
    """Weights that are finite, pass the warm-up on a black frame, and overflow on a real one."""
    generator = Generator('fast')
    for name, parameter in generator.named_parameters():
        large = name.startswith('body') and name.endswith('weight')
        torch.nn.init.constant_(parameter, 1e20 if large else 0.0)
    first = generator.body[0]
    with torch.no_grad():  # 0 where the picture is black, which the body sees as -0.5
        first.weight.zero_()[:, 0, 1, 1] = 1e20
        first.bias.fill_(0.5e20)
    path = tmp_path / 'overflow.safetensors'
    save_weights(path, generator, WeightsInfo('fast', 'deblur'))
    compared = []
    rig.node.create_subscription(Image, '/camera/restored/compare', compared.append, 10)
    rig.start(mode='deblur', deblur_weights=path)
    assert np.array_equal(view(rig.round_trip(make_message(crop, 1))), crop)
    rig.wait(lambda: compared)
    assert np.array_equal(view(compared[0]), side_by_side(crop, crop, 'failed'))
    level, message, values = rig.next_status('camera camera')
    assert (level, message) == (DiagnosticStatus.ERROR, '1 frames could not be restored')
    assert values['passed through after an error'] == '1'
    assert 'not finite' in rig.said()

    rig.set_parameters(on_error='drop')
    rig.send(make_message(crop, 2))
    rig.wait(lambda: rig.next_status('camera camera')[2]['dropped: error'] == '1')
    rig.set_parameters(mode='derain')
    rig.round_trip(make_message(crop, 3))
    rig.wait(lambda: len(compared) == 2)
    for messages in (rig.images['camera'], compared):
        assert [m.header.stamp.sec for m in messages] == [1001, 1003]


def test_broken_weights_stop_configure_and_name_the_file(rig, tmp_path):
    path = tmp_path / 'broken.safetensors'
    path.write_bytes(b'not weights')
    rig.start(autostart=False, derain_weights=path)
    answer = rig.call(ChangeState, '/restore/change_state', ChangeState.Request(
        transition=Transition(id=Transition.TRANSITION_CONFIGURE)
    ))
    assert not answer.success
    state = rig.call(GetState, '/restore/get_state', GetState.Request()).current_state
    assert state.label == 'unconfigured'
    level, message, _ = rig.next_status('restorer')
    assert level == DiagnosticStatus.ERROR
    assert str(path) in message and str(path) in rig.said()
    # A correction by parameter is all it takes.
    [result] = rig.set_parameters(derain_weights='')
    assert result.successful
    assert rig.call(ChangeState, '/restore/change_state', ChangeState.Request(
        transition=Transition(id=Transition.TRANSITION_CONFIGURE)
    )).success


def test_lifecycle(rig, crop):
    rig.start(autostart=False, mode='passthrough')
    for number, (transition, works) in enumerate([
        ('CONFIGURE', False), ('ACTIVATE', True), ('DEACTIVATE', False), ('ACTIVATE', True),
        ('DEACTIVATE', False), ('CLEANUP', False), ('CONFIGURE', False), ('ACTIVATE', True),
    ]):
        request = ChangeState.Request()
        request.transition.id = getattr(Transition, f'TRANSITION_{transition}')
        assert rig.call(ChangeState, '/restore/change_state', request).success, transition
        if works:
            rig.wait_until_listening()
            rig.round_trip(make_message(crop, number))
        else:
            rig.send(make_message(crop, number))
            rig.spin(0.3)
            assert all(m.header.stamp.sec != 1000 + number for m in rig.images['camera'])


def test_output_qos_can_be_overridden(rig):
    topic = '/camera/restored/image_raw'
    rig.start(**{f'qos_overrides.{topic}.publisher.reliability': 'best_effort'})
    [publisher] = rig.node.get_publishers_info_by_topic(topic)
    assert publisher.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    [info] = rig.node.get_publishers_info_by_topic('/camera/restored/camera_info')
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_a_stamp_before_all_time_stops_nothing(rig, crop):
    rig.start(mode='passthrough')
    for number in (-2000, 1):
        rig.round_trip(make_message(crop, number))
    rig.wait(lambda: rig.next_status('camera camera')[2]['passed through'] == '2')


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_cleanly_while_busy(rig, photograph, how):
    shared_memory = Path('/dev/shm')  # noqa: S108  where Fast DDS keeps its segments

    def segments():
        """Return the segments that some process still has mapped."""
        return {
            line.split()[-1] for maps in Path('/proc').glob(f'{rig.process.pid}/maps')
            for line in maps.read_text().splitlines() if str(shared_memory) in line
        }

    rig.start(mode='deblur')
    large = cv2.resize(photograph, (960, 540))
    rig.round_trip(make_message(large, 0))
    own = {name for name in segments() if 'port' not in name}
    assert own
    for number in range(1, 6):
        rig.send(make_message(large, number))
    status, seconds = rig.stop(how)
    assert status == 0, rig.said()
    assert seconds < 2
    assert 'Traceback' not in rig.said()
    mine = {line.split()[-1] for line in Path('/proc/self/maps').read_text().splitlines()
            if str(shared_memory) in line}
    assert not [name for name in own - mine if os.path.exists(name)]
