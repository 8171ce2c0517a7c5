"""Faults around the node: memory, cameras, subscribers and the node itself that fail and return."""

import os
import resource
import signal
import subprocess
import sys
import weakref
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import FAST_DDS
from diagnostic_msgs.msg import DiagnosticStatus
from ros_harness import make_message

from iov_restore_ros.inference import Restorer
from iov_restore_ros.node.images import view
from iov_restore_ros.node.pipeline import Batch

PROFILES = f'{FAST_DDS}_DEFAULT_PROFILES_FILE'
SUBSCRIBER = """
import sys
import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('viewer')
topic, qos = sys.argv[1], QoSProfile(depth=5)
node.create_subscription(Image, topic, lambda _: print('got one', flush=True), qos)
rclpy.spin(node)
"""
# So that others soon find out that such a process is dead; 20 s if nothing is said.
SHORT_LEASE = """
      <rtps>
        <builtin><discovery_config>
          <leaseDuration><sec>3</sec></leaseDuration>
          <leaseAnnouncement><sec>1</sec></leaseAnnouncement>
        </discovery_config></builtin>"""


@pytest.fixture
def short_lease(monkeypatch, tmp_path):
    """Let the processes that are started from now on be missed after 3 s."""
    profile = Path(os.environ[PROFILES]).read_text()
    assert profile.count('<rtps>') == 1
    path = tmp_path / 'short_lease.xml'
    path.write_text(profile.replace('<rtps>', SHORT_LEASE))
    monkeypatch.setenv(PROFILES, str(path))


@contextmanager
def process(rig, log, *arguments):
    """Run Python in the rig's domain."""
    environment = {
        k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'
    } | {'ROS_DOMAIN_ID': rig.domain}
    with log.open('w') as file:
        child = subprocess.Popen(
            [sys.executable, *arguments], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait()


def test_out_of_memory_while_restoring(rig, crop, photograph):
    rig.start(mode='deblur', device='cpu')
    expected = view(rig.round_trip(make_message(crop, 0))).copy()
    large = make_message(cv2.resize(photograph, (2400, 1600)), 1)
    used = int(Path(f'/proc/{rig.process.pid}/statm').read_text().split()[0])
    # Enough to receive and publish it beside what new threads take; deblurring it needs 0.5 GB.
    room = used * os.sysconf('SC_PAGE_SIZE') + 16 * len(large.data)
    unlimited = resource.prlimit(
        rig.process.pid, resource.RLIMIT_AS, (room, resource.RLIM_INFINITY)
    )
    rig.diagnostics.clear()
    assert rig.round_trip(large).data == large.data, 'the stack does not go blind'
    assert 'memory' in rig.said()
    rig.wait(lambda: (DiagnosticStatus.ERROR, '1 frames could not be restored') in [
        (status.level, status.message) for array in rig.diagnostics for status in array.status
    ])

    # What fits is restored, and all of it when there is room again.
    assert np.array_equal(view(rig.round_trip(make_message(crop, 2))), expected)
    resource.prlimit(rig.process.pid, resource.RLIMIT_AS, unlimited)
    large.header.stamp.sec += 2
    assert rig.round_trip(large).data != large.data
    rig.wait(lambda: rig.next_status('camera camera')[2]['restored'] == '3')
    assert rig.next_status('camera camera')[2]['passed through after an error'] == '1'


def test_a_failed_step_holds_no_memory():
    """The frames are published after it, and that needs some."""
    batch, held = Batch([]), []

    def step(batch):
        pixels = np.zeros((9, 9, 3), np.uint8)
        batch.restored = [pixels]
        held.append(weakref.ref(pixels))
        raise MemoryError

    batch.attempt(step)
    assert held[0]() is None
    assert batch.error == 'MemoryError'


def test_resolution_that_changes_from_frame_to_frame(rig, photograph):
    rig.start(mode='derain')
    restorer = Restorer(device='cpu', precision='float32', tasks=['derain'])
    for number, (height, width) in enumerate([(64, 96), (250, 367), (1, 1), (5, 300), (64, 96)]):
        picture = np.ascontiguousarray(photograph[:height, :width])
        got = rig.round_trip(make_message(picture, number))
        assert np.array_equal(view(got), restorer.restore([picture], 'derain')[0])


def test_frames_that_do_not_reach_the_node_are_counted(rig, crop):
    rig.start(mode='passthrough')
    rig.round_trip(make_message(crop, 0))
    rig.process.send_signal(signal.SIGSTOP)
    for number in range(1, 10):  # with the next, no more than the rig's publisher keeps (10)
        rig.send(make_message(crop, number))
    rig.process.send_signal(signal.SIGCONT)
    rig.round_trip(make_message(crop, 10))
    rig.wait(lambda: rig.next_status('camera camera')[2]['lost before the node'].endswith(' of 11'))
    _, _, values = rig.next_status('camera camera')
    lost = 11 - int(values['received'])
    assert lost > 0
    assert values['lost before the node'] == f'{lost} of 11'
    assert values['lost on the way'] == '0', 'newer ones took their place'


def test_frames_lost_on_the_way_name_the_remedy(rig, photograph, tmp_path, monkeypatch):
    """Fast DDS as it comes cuts a large image into fragments, more than a socket holds."""
    monkeypatch.delenv(PROFILES)
    cv2.imwrite(str(tmp_path / '0.png'), cv2.resize(photograph, (1920, 1080)))
    rig.launch(cameras='[front]', mode='passthrough', precision='float32', lazy='false')
    camera = ['-m', 'iov_restore_ros.tools.image_source', str(tmp_path), '--camera', 'front']
    with process(rig, tmp_path / 'camera.log', *camera):
        remedy = 'lost on the way: give the camera driver'
        level, _, values = rig.next_status('camera front', remedy)
    assert level == DiagnosticStatus.WARN
    assert int(values['lost on the way']) > 0


def test_camera_process_that_dies_and_returns(rig, pictures, tmp_path):
    """Killed, so that it says goodbye to nobody."""
    rig.launch(cameras='[front]', mode='passthrough', precision='float32')
    rig.connect('front')
    rig.node.destroy_publisher(rig._publishers.pop(('front', 'image_raw')))
    camera = ['-m', 'iov_restore_ros.tools.image_source', str(pictures), '--camera', 'front']
    with process(rig, tmp_path / 'camera.log', *camera):
        rig.wait(lambda: rig.images['front'])
    assert rig.next_status('camera front', 'no frames for')[0] == DiagnosticStatus.WARN
    rig.images['front'].clear()
    with process(rig, tmp_path / 'camera.log', *camera):
        rig.wait(lambda: rig.images['front'])
        rig.wait(lambda: rig.next_status('camera front')[0] == DiagnosticStatus.OK)


def test_subscriber_that_is_killed(rig, crop, short_lease, tmp_path):
    """Other cameras and subscribers go on; its camera is no longer listened to."""
    rig.launch(cameras='[front, rear]', mode='passthrough', precision='float32')
    rig.connect('front')
    rear = rig.node.create_publisher(type(make_message(crop, 0)), '/rear/image_raw', 5)
    seen = tmp_path / 'viewer.log'
    with process(rig, seen, '-c', SUBSCRIBER, '/rear/restored/image_raw') as viewer:
        rig.wait_until_listening()
        rig.wait(rear.get_subscription_count)
        rig.wait(lambda: (rear.publish(make_message(crop, 0)), 'got one' in seen.read_text())[1])
        viewer.kill()
        numbers = iter(range(1, 10_000))
        rig.wait(lambda: (
            rear.publish(make_message(crop, 0)),
            rig.round_trip(make_message(crop, next(numbers)), 'front'),
            rear.get_subscription_count() == 0,
        )[2])
    assert 'rear: not listening' in rig.said()
    sent = next(numbers) - 1
    assert [m.header.stamp.sec for m in rig.images['front']] == [1001 + n for n in range(sent)]
    # The one that comes next gets frames again.
    with process(rig, seen, '-c', SUBSCRIBER, '/rear/restored/image_raw'):
        rig.wait(lambda: (rear.publish(make_message(crop, 0)), 'got one' in seen.read_text())[1])


def test_killed_node_is_found_again_when_it_restarts(rig, crop):
    rig.start(('front', 'rear'), mode='derain')
    [expected] = Restorer(device='cpu', precision='float32').restore([crop], 'derain')
    number = 0
    for _ in range(2):
        for camera in ('front', 'rear'):
            number += 1
            got = rig.round_trip(make_message(crop, number), camera)
            assert np.array_equal(view(got), expected)
        rig.stop(signal.SIGKILL)
        rig.launch(cameras='[front, rear]', mode='derain', precision='float32')
        # The dead node counts as a subscriber for 20 s, so the new one is known by its log.
        rig.wait(lambda: all(f'{c}: listening' in rig.said() for c in ('front', 'rear')))
        rig.spin(0.5)
