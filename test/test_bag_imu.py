"""Bags with an IMU: what restore_bag finds in them, uses, and says of it."""

import re
import signal
import sys

import numpy as np
import pytest
from bag_of_shakes import (
    FRAMES,
    HEIGHT,
    OPTICAL,
    START,
    TYPES,
    WIDTH,
    Shaken,
    cdr,
    imu_message,
    tf_message,
    write_bag,
)
from rosbags.rosbag2 import Reader
from test_bags import read

from iov_restore_ros.node.images import view
from iov_restore_ros.tools import restore_bag
from iov_restore_ros.tools.bag_imu import BagImu, ImuOptions
from iov_restore_ros.tools.imu_options import Mounting
from iov_restore_ros.video.camera_path import TAU, turned
from iov_restore_ros.video.history import History

TOPIC, NEW = '/front/image_raw', '/front/restored/image_raw'
ROTATION = ' '.join(map(str, OPTICAL))


@pytest.fixture(scope='module')
def shaken(photograph):
    return Shaken(photograph)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Return a function that restores a bag: its images, and what was said of the gyroscope."""
    def run(bag, *arguments, task='deblur'):
        monkeypatch.setattr(signal, 'signal', lambda *_: None)  # pytest's own stay
        line = [
            'restore_bag', bag, '--output', tmp_path / 'new', '--overwrite', '--task', task,
            '--device', 'cpu', '--precision', 'float32', *arguments,
        ]
        monkeypatch.setattr(sys, 'argv', list(map(str, line)))
        assert restore_bag.main() == 0
        said = capsys.readouterr().out
        images = [view(message) for _, message in read(tmp_path / 'new', NEW)[NEW]]
        told = re.findall(f'^{TOPIC}: (.*)$', said, re.M)
        return images, told
    return run


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_a_bag_s_gyroscope_is_found_and_used(shaken, run, tmp_path, storage):
    write_bag(tmp_path / 'bag', shaken, storage)
    images, [told] = run(tmp_path / 'bag', '--shutter', 0.6)
    # The first frame too: the bag is looked at before it is restored.
    pattern = rf'gyroscope /imu in {FRAMES} of {FRAMES} frames, offset -?\d+\.\d ms'
    assert re.fullmatch(pattern, told)
    without, [] = run(tmp_path / 'bag', '--shutter', 0.6, '--no-imu')
    assert not same(images, without)


@pytest.mark.parametrize(('tf', 'rotation', 'late'), [
    (True, (), 0.0), (True, (), 0.02), (False, OPTICAL, 0.0),
])
def test_the_path_of_its_frames_is_the_true_one(shaken, tmp_path, tf, rotation, late):
    write_bag(tmp_path / 'bag', shaken, tf=tf, offset=late)
    history = History()
    with Reader(tmp_path / 'bag') as reader:
        options = ImuOptions(mounting=Mounting(offset=late, rotation=rotation))
        camera = BagImu(reader, TYPES, [TOPIC], options).cameras[TOPIC]
    for number, time in enumerate(shaken.times):
        camera.advance(history, START / 1e9 + time, 'optical', (HEIGHT, WIDTH))
        inertial = history.inertial
        stamp, share = START / 1e9 + time + late, 0.6
        path = turned(
            inertial.gyroscope, inertial.camera, (HEIGHT, WIDTH), stamp,
            TAU * share * shaken.camera.period,
        )
        np.testing.assert_allclose(path, shaken.path(number, share), atol=0.1)


def test_without_an_imu_it_is_what_it_was(shaken, run, tmp_path):
    """Also with --no-imu, bit for bit; and rain does not ask for it."""
    write_bag(tmp_path / 'bag', shaken)
    write_bag(tmp_path / 'plain', shaken, tf=False, imu=False)
    plain, [told] = run(tmp_path / 'plain')
    assert told == 'no gyroscope: no rates of a sensor_msgs/msg/Imu in the bag'
    without, said = run(tmp_path / 'bag', '--no-imu')
    assert same(without, plain) and not said
    rainy, said = run(tmp_path / 'bag', task='derain')
    assert same(rainy, run(tmp_path / 'plain', task='derain')[0]) and not said


def test_the_rotation_of_the_option_wins(shaken, run, tmp_path):
    write_bag(tmp_path / 'bag', shaken)
    write_bag(tmp_path / 'bare', shaken, tf=False)
    by_tf, _ = run(tmp_path / 'bag')
    by_option, [told] = run(tmp_path / 'bare', '--imu-rotation', ROTATION)
    assert told.startswith('gyroscope /imu') and same(by_tf, by_option)
    instead, _ = run(tmp_path / 'bag', '--imu-rotation', '0 0 0 1')
    assert not same(instead, by_tf)


@pytest.mark.parametrize(('how', 'reason'), [
    ({'tf': False}, "/tf_static does not lead from 'imu' to 'optical': give --imu-rotation"),
    ({'frames': ('optical', 'loose')}, "does not lead from 'loose' to 'optical'"),
    ({'info': False}, 'no camera_info beside the images'),
    ({'k': [0.0] * 9}, 'camera_info is not calibrated'),
])
def test_why_there_is_none_is_told(shaken, run, tmp_path, how, reason):
    write_bag(tmp_path / 'bag', shaken, **how)
    images, [told] = run(tmp_path / 'bag')
    assert told.startswith('no gyroscope: ') and reason in told
    assert same(images, run(tmp_path / 'bag', '--no-imu')[0])


@pytest.mark.parametrize('frame', ['', 'camera'])
def test_headers_of_one_frame_need_no_transform(shaken, run, tmp_path, frame):
    write_bag(tmp_path / 'bag', shaken, tf=False, frames=(frame, frame))
    _, [told] = run(tmp_path / 'bag', '--imu-rotation', ROTATION)
    assert told.startswith('gyroscope /imu in')
    _, [told] = run(tmp_path / 'bag')
    assert 'does not lead' not in told  # it is listened to; that its axes are wrong is another's


def test_of_several_imus_the_nearest_is_taken_and_bad_messages_left_out(shaken, run, tmp_path):
    far = [
        ('/far/imu', 'sensor_msgs/msg/Imu', time, cdr(
            'sensor_msgs/msg/Imu', imu_message(time, np.full(3, 0.1), 'roof')))
        for time in np.arange(-0.05, 0.6, 0.001)
    ]
    bad = [
        ('/imu', 'sensor_msgs/msg/Imu', 0.1111, b'\0\1\0\0nothing'),
        ('/tf_static', 'tf2_msgs/msg/TFMessage', -0.2, b'nothing'),
        ('/tf_static', 'tf2_msgs/msg/TFMessage', -0.2, cdr('tf2_msgs/msg/TFMessage', tf_message(
            ('body', 'mount', (0, 0, 0, 1)), ('body', 'roof', (0, 0, 0, 1)),
            ('body', 'nowhere', (0, 0, 0, 0)),
        ))),
        ('/front/camera_info', 'sensor_msgs/msg/CameraInfo', -0.1, b'nothing'),
    ]
    write_bag(tmp_path / 'bag', shaken)
    write_bag(tmp_path / 'more', shaken, extra=[*far, *bad])
    images, [told] = run(tmp_path / 'more')
    assert told.startswith('gyroscope /imu in')
    assert same(images, run(tmp_path / 'bag')[0])
    _, [told] = run(tmp_path / 'more', '--imu', '/far/imu')
    assert '/far/imu' in told or told.startswith('no gyroscope: ')


def test_a_broken_image_is_reported_once_and_the_others_are_looked_at(
    shaken, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    write_bag(tmp_path / 'bag', shaken, extra=[(TOPIC, 'sensor_msgs/msg/Image', -0.01, b'nothing')])
    monkeypatch.setattr(sys, 'argv', [
        'restore_bag', str(tmp_path / 'bag'), '--output', str(tmp_path / 'new'), '--task', 'deblur',
        '--device', 'cpu', '--precision', 'float32',
    ])
    assert restore_bag.main() == 1
    said = capsys.readouterr()
    assert said.err.count('failed: ') == 1
    assert f'gyroscope /imu in {FRAMES} of {FRAMES} frames' in said.out


def test_an_imu_topic_that_is_not_there_is_told(shaken, tmp_path, monkeypatch, capsys):
    write_bag(tmp_path / 'bag', shaken)
    line = f'restore_bag {tmp_path}/bag --output {tmp_path}/new --task deblur --imu /gyro'
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    monkeypatch.setattr(sys, 'argv', line.split())
    with pytest.raises(SystemExit):
        restore_bag.main()
    assert 'no sensor_msgs/Imu topic /gyro, only /imu' in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(('option', 'value', 'reason'), [
    ('--imu-rotation', '0 0 0 0', 'no quaternion'),
    ('--imu-rotation', '0 0 1', 'no quaternion'),
    ('--readout', 'fast', 'invalid'),
    ('--imu-time-offset', 'nan', 'invalid'),
])
def test_options_that_cannot_be_are_refused(monkeypatch, capsys, option, value, reason):
    line = ['restore_bag', 'bag', '--output', 'new', '--task', 'deblur', option, value]
    monkeypatch.setattr(sys, 'argv', line)
    with pytest.raises(SystemExit):
        restore_bag.main()
    assert reason in capsys.readouterr().err
