"""What /diagnostics says, and whether it is true."""

import hashlib
import time
from math import inf, nan

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from ros_harness import make_message
from sensor_msgs.msg import CompressedImage

from iov_restore_ros.model import shipped_weights
from iov_restore_ros.node.diagnostics import stamp_concern
from iov_restore_ros.node.statistics import Outcome, Statistics, Timing


def test_report_counts_all_and_of_late():
    statistics = Statistics()
    assert statistics.report().age == inf
    for number in range(4):
        statistics.receive()
        statistics.end(Outcome.RESTORED, Timing(-0.001 * number, 0.1, 0.01 * number))
    statistics.end(Outcome.PASSED, Timing(nan, nan, nan))
    first = statistics.report()
    assert (first.late_received, first.late_published()) == (4, 5)
    assert first.percentile('latency', 100) == 0  # the clock has jumped back for the others
    assert first.percentile('restoring', 50) == pytest.approx(0.015)
    assert first.age < 60
    statistics.receive()
    second = statistics.report()
    assert (second.received, second.late_received, second.late_outcomes) == (5, 1, {})


def test_stamps_that_are_wrong_are_told():
    statistics = Statistics()

    def concern(stamped, *reasons):
        for why in reasons:
            statistics.receive(stamped)
            statistics.look_back(why)
        return stamp_concern(statistics.report())

    assert concern(True, 'first', '', '', 'not newer') == ''
    assert concern(True, *['not newer'] * 3, '') == (
        '3 of 4 frames restored alone: their stamps do not advance, or jump back'
    )
    assert concern(True, 'time jump', *[''] * 9) == '', 'a bag that begins again'
    assert concern(False, '', '') == 'the frames have no stamps: the time of arrival counts'
    assert concern(True, '') == concern(True) == ''


def test_figures_of_a_camera_and_of_the_restorer(rig, crop):
    rig.start(mode='derain', device='cpu')
    sent = 5
    for number in range(sent):
        message = make_message(crop, number)
        now = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 10**9)
        rig.round_trip(message)
    elapsed = (time.time_ns() - now) / 1e6
    rig.spin(1.0)
    level, message, values = rig.next_status('restorer')
    assert (level, message) == (DiagnosticStatus.OK, 'mode is derain')
    content = shipped_weights('fast', 'derain').read_bytes()
    assert values['derain weights sha256'] == hashlib.sha256(content).hexdigest()[:12]
    assert (values['device'], values['device name']) == ('cpu', 'CPU')
    assert (values['precision'], values['model']) == ('float32', 'fast')
    assert 'GPU memory MiB' not in values

    _, _, values = rig.next_status('camera camera')
    assert values['restored'] == str(sent)
    restoring, in_node, latency = (
        [float(values[f'{name} {p} ms']) for p in ('p50', 'p99')]
        for name in ('restoring', 'in the node', 'latency')
    )
    for percentile in range(2):
        assert 0 < restoring[percentile] <= in_node[percentile] <= latency[percentile]
    assert latency[0] < max(1000, 10 * elapsed)
    assert 0 < float(values['age of the last frame s']) < 60


def test_levels(rig, crop):
    """CPU without having been asked for it, a camera that falls silent and one without driver."""
    rig.start(('front', 'rear'), mode='passthrough')
    rig.round_trip(make_message(crop, 1), 'front')
    level, message, _ = rig.next_status('restorer')
    assert level == DiagnosticStatus.WARN
    assert 'mode is passthrough; on the CPU: device is auto' in message
    level, _, _ = rig.next_status('camera front', '/front/image_raw is silent')
    assert level == DiagnosticStatus.WARN
    rig.round_trip(make_message(crop, 2), 'front')
    assert rig.next_status('camera front')[:2] == (DiagnosticStatus.OK, 'passing')
    rig.node.destroy_publisher(rig._publishers.pop(('rear', 'image_raw')))
    rig.next_status('camera rear', 'nobody publishes /rear/image_raw')
    rig.node.create_publisher(CompressedImage, 'rear/image_raw', 1)
    rig.next_status(
        'camera rear',
        '/rear/image_raw has type sensor_msgs/msg/CompressedImage, expected sensor_msgs/msg/Image',
    )
