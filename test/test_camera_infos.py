"""Which camera_info goes out with which frame."""

import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo

from iov_restore_ros.node.camera_infos import LONELY, CameraInfos

MS = 10**6  # ns


def at(ms):
    return Time(sec=100 + ms // 1000, nanosec=ms % 1000 * MS)


def info(ms, width=1):
    message = CameraInfo(width=width)
    message.header.stamp, message.header.frame_id = at(ms), 'lens'
    return message


@pytest.fixture
def infos():
    """Those of a camera that has sent three frames, one every 40 ms."""
    infos = CameraInfos()
    for ms in (0, 40, 80):
        infos.watch(at(ms))
    return infos


def test_the_same_stamp_wins(infos):
    for ms in (75, 80, 81):
        assert infos.add(info(ms)) is None
    assert infos.take(at(80)) == info(80)
    assert infos.take(at(80)) == info(80), 'and again, as for frames that all have none'


def test_the_nearest_goes_once_and_with_the_stamp_of_the_frame(infos):
    came = info(95, 7)
    infos.add(info(61, 6))
    infos.add(came)
    assert infos.take(at(80)) == info(80, 7)
    assert came == info(95, 7), 'what came is left as it is'
    assert infos.newest() is came
    assert infos.take(at(80)) == info(80, 6)
    assert infos.take(at(80)) is None


def test_what_comes_late_goes_with_the_frame_that_waits(infos):
    for ms in (40, 80):
        assert infos.take(at(ms)) is None
    assert infos.add(info(19)) is None, 'more than half a frame time'
    assert infos.add(info(62, 3)) == info(80, 3)
    assert infos.add(info(80)) is None, 'that frame has one'
    assert infos.add(info(40)) == info(40)


def test_without_a_frame_time_only_the_same_stamp_counts():
    infos = CameraInfos()
    infos.add(info(0))
    assert infos.take(at(1)) is None
    infos.watch(at(500))
    infos.watch(at(0))  # a bag that begins again
    assert infos.take(at(1)) is None
    assert infos.take(at(0)) == info(0)


def test_a_latched_one_is_worth_a_hint(infos):
    for number in range(LONELY):
        infos.take(at(120 + 40 * number))
    assert infos.concern() == '', 'nobody sends any'
    infos.add(info(-1000))
    infos.take(at(1000))
    assert 'its stamps are 2.000 s from those of the frames' in infos.concern()
    infos.add(info(1001))
    assert infos.concern() == ''
