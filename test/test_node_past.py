"""The node restores video: what a camera saw lately, over DDS."""

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from pictures import RATE, drive, rain
from ros_harness import message_at as at
from sensor_msgs.msg import CompressedImage

from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.node.images import from_rgb, view


@pytest.fixture(scope='module')
def restorer():
    return Restorer(device='cpu', precision='float32')


@pytest.fixture(scope='module')
def wet(street):
    """Frames of a camera that drives through rain."""
    return rain(drive(street, 6))


def seconds(message):
    return message.header.stamp.sec + message.header.stamp.nanosec / 1e9


def offline(restorer, messages, frames, task, history=None):
    """Return what restoring ``frames`` at the messages' times in order gives."""
    history = history or History()
    return [
        restore_next(restorer, history, frame, seconds(message), task)
        for message, frame in zip(messages, frames, strict=True)
    ]


def same(got, pixels, sent):
    return np.array_equal(view(got), view(from_rgb(pixels, sent)))


@pytest.mark.parametrize('task', ['derain', 'deblur'])
def test_frames_equal_the_offline_result_of_the_same_sequence(rig, restorer, wet, task):
    rig.start(mode=task)
    sent = [at(frame, 100 + n / RATE, 'bgr8') for n, frame in enumerate(wet)]
    got = [rig.round_trip(message) for message in sent]
    expected = offline(restorer, sent, wet, task)
    assert all(map(same, got, expected, sent))
    stills = restorer.restore(wet, task)
    assert same(got[0], stills[0], sent[0])
    assert not any(map(same, got[1:], stills[1:], sent[1:]))
    _, _, values = rig.next_status('camera camera')
    assert values['frame before'] == '5 of 6; none: first 1'
    assert float(values['aligning p50 ms']) > 0


def test_each_camera_has_a_past_of_its_own(rig, restorer, wet):
    cameras = ('left', 'right')
    rig.start(cameras, mode='derain', max_batch=2)
    ways = {'left': wet, 'right': wet[::-1]}
    got = {camera: [] for camera in cameras}
    for number in range(4):
        sent = {camera: at(ways[camera][number], 100 + number / RATE) for camera in cameras}
        for camera in cameras:
            rig.send(sent[camera], camera)
        for camera in cameras:
            got[camera].append(rig.wait(lambda c=camera, header=sent[camera].header: next(
                (m for m in rig.images[c] if m.header == header), None
            )))
    for camera in cameras:
        messages = [at(frame, 100 + n / RATE) for n, frame in enumerate(ways[camera][:4])]
        expected = offline(restorer, messages, ways[camera][:4], 'derain')
        for message, pixels in zip(got[camera], expected, strict=True):
            off = np.abs(view(message).astype(int) - pixels)
            assert off.mean() < 0.01  # in a batch sums come in another order
            assert off.max() <= 2


def test_gaps_loops_and_late_frames(rig, restorer, wet):
    rig.start(mode='derain')
    rig.set_parameters(max_gap=0.2)
    times = [100.0, 100.1, 100.5, 100.45, 100.6, 50.0, 50.1]
    frames = [wet[n % 6] for n in range(7)]
    sent = [at(frame, time) for frame, time in zip(frames, times, strict=True)]
    got = [rig.round_trip(message) for message in sent]
    expected = offline(restorer, sent, frames, 'derain', History(longest_gap=0.2))
    assert all(map(same, got, expected, sent))
    stills = restorer.restore(frames, 'derain')
    assert [same(*each) for each in zip(got, stills, sent, strict=True)] == [
        True, False, True, True, False, True, False
    ]
    _, _, values = rig.next_status('camera camera')
    assert values['frame before'] == '3 of 7; none: first 1, gap 1, not newer 1, time jump 1'


def test_without_a_past_when_it_is_not_wanted(rig, restorer, wet):
    rig.start(mode='derain', use_past=False)
    sent = [at(frame, 100 + n / RATE) for n, frame in enumerate(wet[:4])]
    got = [rig.round_trip(message) for message in sent[:2]]
    assert all(map(same, got, restorer.restore(wet[:2], 'derain'), sent))
    [answer] = rig.set_parameters(use_past=True)
    assert answer.successful
    got = [rig.round_trip(message) for message in sent[2:]]
    assert all(map(same, got, offline(restorer, sent[2:], wet[2:4], 'derain'), sent[2:]))
    [answer] = rig.set_parameters(shutter=1.5)
    assert not answer.successful
    assert answer.reason == 'shutter is 1.5, but must be at least 0.0, at most 1.0'

    # Without stamps the time of arrival counts, here after a jump in time.
    rig.set_parameters(max_gap=60.0)
    for frame in wet[:3]:
        rig.images['camera'].clear()
        rig.round_trip(at(frame, 0.0))
    assert [same(rig.images['camera'][0], restorer.restore([wet[2]], 'derain')[0], at(wet[2], 0))
            ] == [False]
    rig.wait(lambda: [
        status for array in rig.diagnostics for status in array.status
        if status.level == DiagnosticStatus.WARN and 'no stamps: the time of' in status.message
    ])
    assert rig.next_status('camera camera')[2]['frame before'].startswith('3 of 5; none: ')


def test_a_shutter_that_becomes_known_counts_from_the_next_frame(rig, restorer, wet):
    rig.start(mode='deblur')
    sent = [at(frame, 100 + n / RATE) for n, frame in enumerate(wet[:4])]
    history = History()
    got = [rig.round_trip(message) for message in sent[:2]]
    expected = offline(restorer, sent[:2], wet[:2], 'deblur', history)
    rig.set_parameters(shutter=0.5)
    history.shutter = 0.5
    got += [rig.round_trip(message) for message in sent[2:]]
    expected += offline(restorer, sent[2:], wet[2:4], 'deblur', history)
    assert all(map(same, got, expected, sent))


def test_another_task_or_other_weights_begin_anew(rig, restorer, wet):
    rig.start(mode='derain')
    sent = [at(frame, 100 + n / RATE) for n, frame in enumerate(wet)]
    for message in sent[:2]:
        rig.round_trip(message)
    rig.set_parameters(mode='deblur')
    got = rig.round_trip(sent[2])
    assert same(got, restorer.restore([wet[2]], 'deblur')[0], sent[2])
    rig.round_trip(sent[3])
    rig.set_parameters(deblur_weights=str(restorer.weights['deblur']))
    rig.wait(lambda: rig.said().count('ready in') == 2)
    rig.spin(0.3)
    got = rig.round_trip(sent[4])
    assert same(got, restorer.restore([wet[4]], 'deblur')[0], sent[4])
    _, _, values = rig.next_status('camera camera')
    assert values['frame before'] == '2 of 5; none: another task 1, first 2'


def test_a_frame_that_was_dropped_is_the_frame_before(rig, restorer, wet):
    """While a large frame is restored two small ones come; the newer one wins, and knows both."""
    rig.start(mode='derain')
    rig.round_trip(at(wet[0], 100.0))
    large = at(cv2.resize(wet[0], (960, 540)), 100.05)
    dropped, newest = at(wet[1], 100.1), at(wet[2], 100.15)
    rig.send(large)
    rig.spin(0.15)
    rig.send(dropped)
    rig.spin(0.05)
    got = rig.round_trip(newest)
    assert not any(m.header == dropped.header for m in rig.images['camera'])
    history = History()
    history.miss(seconds(dropped), lambda: wet[1])
    before = history.look_back(wet[2], seconds(newest), 'derain', restorer.clearer)
    assert same(got, restorer.restore([wet[2]], 'derain', [before])[0], newest)


def test_compressed_frames_have_a_past(rig, restorer, wet):
    rig.launch(
        cameras='[camera]', precision='float32', mode='derain', image_transport='compressed'
    )
    rig.connect('camera')
    publisher = rig.node.create_publisher(CompressedImage, 'camera/image_raw/compressed', 10)
    rig.wait(lambda: publisher.get_subscription_count())
    rig.spin(0.5)
    sent = [at(frame, 100 + n / RATE, 'bgr8') for n, frame in enumerate(wet[:3])]
    got = []
    for frame, message in zip(wet, sent, strict=False):
        data = cv2.imencode('.png', cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()
        publisher.publish(CompressedImage(header=message.header, format='png', data=data))
        got.append(rig.wait(lambda m=message: next(
            (i for i in rig.images['camera'] if i.header == m.header), None
        )))
    assert all(map(same, got, offline(restorer, sent, wet[:3], 'derain'), sent))
