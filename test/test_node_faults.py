"""What may fail in the node and must not end it: here it runs in this process, seen over DDS."""

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from ros_harness import make_message

from iov_restore_ros.node import restore_node
from iov_restore_ros.node.images import view
from iov_restore_ros.node.restore_node import RestoreNode, serve
from iov_restore_ros.node.topics import TopicError, check_topics

OUTPUT = '/camera/restored/image_raw'


class Inverter:
    """In the place of a Restorer: shows each frame's negative, once the ``gate`` is open."""

    batch = in_flight = 1
    uses_past = False
    model = precision = 'none'
    device = SimpleNamespace(type='none')
    tiling = SimpleNamespace(halved=0)
    weights: dict[str, Path] = {}  # noqa: RUF012
    sha256: dict[str, str] = {}  # noqa: RUF012

    def __init__(self):
        self.gate, self.at_work, self.closed = threading.Event(), threading.Event(), False
        self.gate.set()

    def start(self, frames, task, befores):
        def result():
            self.at_work.set()
            assert self.gate.wait(300)
            return [255 - frame for frame in frames]

        return SimpleNamespace(result=result)

    def device_memory(self):
        return None

    def device_name(self):
        return 'none'

    def close(self):
        self.closed = True


class Home:
    """A process for the node: this one."""

    def __init__(self, rig, monkeypatch):
        self.rig, self.restorers = rig, []
        self.loading = threading.Event()  # cleared: loading takes for ever
        self.loading.set()
        monkeypatch.setattr(restore_node, 'load_restorer', self.load)
        self._end = threading.Event()
        self._executor = self._thread = self.node = None

    def start(self, *arguments):
        self.rig.log.touch()  # what the node says goes to where pytest keeps it
        rclpy.init(args=['--ros-args', '-p', 'mode:=derain', *arguments],
                   domain_id=int(self.rig.domain))
        self.node = RestoreNode()
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=serve, args=(self.node, self._executor, self._end))
        self._thread.start()
        self.rig.connect('camera')

    def load(self, value, log):
        self.restorers.append(Inverter())
        restorer = self.restorers[-1]
        assert self.loading.wait(300)
        return restorer

    def change(self, *transitions):
        """Ask for transitions; return whether the last one succeeded."""
        for transition in transitions:
            request = ChangeState.Request()
            request.transition.id = getattr(Transition, f'TRANSITION_{transition}')
            success = self.rig.call(ChangeState, '/restore/change_state', request).success
        if transitions[-1] == 'ACTIVATE' and success:
            self.rig.wait_until_listening()
        return success

    def state(self):
        return self.rig.call(GetState, '/restore/get_state', GetState.Request()).current_state.label

    def end(self):
        self.loading.set()
        for restorer in self.restorers:
            restorer.gate.set()
        if self.node is not None:
            self._end.set()
            self._executor.wake()
            self._thread.join()
            self.node.stop_now()
            self._executor.shutdown()
            self.node.destroy_node()
            rclpy.shutdown()


@pytest.fixture
def home(rig, monkeypatch):
    home = Home(rig, monkeypatch)
    yield home
    home.end()


def test_what_takes_too_long_is_left_behind_and_cleaned_up(home, crop, monkeypatch):
    """A batch and a model, at deactivate; then a batch at shutdown."""
    rig = home.rig
    monkeypatch.setattr(restore_node, 'BATCH_TIMEOUT', 0.2)
    home.start()
    assert home.change('CONFIGURE', 'ACTIVATE')
    [stuck] = home.restorers
    stuck.gate.clear()
    home.loading.clear()
    rig.send(make_message(crop, 0))
    rig.wait(stuck.at_work.is_set)
    rig.set_parameters(unveil=False)
    rig.wait(lambda: len(home.restorers) == 2)
    cameras = home.node._cameras

    assert not home.change('DEACTIVATE')
    assert home.state() == 'unconfigured'
    level, message, _ = rig.next_status('restorer')
    assert level == DiagnosticStatus.ERROR
    assert message == 'on_deactivate failed: a batch takes longer than 0.2 s: it is abandoned'
    rig.wait(lambda: rig.node.count_publishers(OUTPUT) == 0)
    assert str(cameras[0].statistics.report()) == '1 received = 1 dropped: stopping'
    assert not stuck.closed, 'it is in use'

    home.loading.set()
    assert home.change('CONFIGURE', 'ACTIVATE')
    rig.wait(lambda: home.restorers[1].closed)  # the model that came too late
    assert [p.topic_name for p in home.node.publishers].count(OUTPUT) == 1
    assert rig.node.count_publishers(OUTPUT) == 1
    stuck.gate.set()
    got = rig.round_trip(make_message(crop, 1))
    assert np.array_equal(view(got), 255 - crop)
    assert len(rig.images['camera']) == 1, 'nothing of the abandoned batch'
    assert home.node._pipeline.restorer is home.restorers[2]

    home.restorers[2].gate.clear()
    home.restorers[2].at_work.clear()
    rig.send(make_message(crop, 2))
    rig.wait(home.restorers[2].at_work.is_set)
    assert home.change('ACTIVE_SHUTDOWN')
    assert home.state() == 'finalized'
    rig.wait(lambda: rig.node.count_publishers(OUTPUT) == 0)


def test_configure_that_raises_leaves_nothing_and_says_why(home):
    """By an override that rclpy refuses, for the second of three publishers."""
    home.start('-p', f'qos_overrides.{OUTPUT}/compressed.publisher.reliability:=nonsense')
    assert not home.change('CONFIGURE')
    assert home.state() == 'unconfigured'
    level, message, _ = home.rig.next_status('restorer')
    assert level == DiagnosticStatus.ERROR
    assert message.startswith('cannot configure: ') and 'nonsense' in message
    assert OUTPUT not in [p.topic_name for p in home.node.publishers]


def test_activate_that_raises_leaves_nothing(home):
    home.start('-p', 'qos_overrides./camera/camera_info.subscription.reliability:=nonsense')
    assert not home.change('CONFIGURE', 'ACTIVATE')
    assert home.state() == 'unconfigured'
    assert home.rig.next_status('restorer')[1].startswith('on_activate failed: ')
    assert '/camera/image_raw' not in [s.topic_name for s in home.node.subscriptions]


def test_frames_go_on_whatever_fails(home, crop, monkeypatch):
    rig = home.rig
    home.start()
    assert home.change('CONFIGURE', 'ACTIVATE')
    with monkeypatch.context() as patch:
        patch.setattr(home.node._chooser, 'decide', lambda: 1 / 0)
        assert np.array_equal(view(rig.round_trip(make_message(crop, 0))), crop)
        rig.wait(lambda: rig.next_status('restorer')[:2] == (
            DiagnosticStatus.ERROR, 'diagnostics failed: division by zero'
        ))
    with monkeypatch.context() as patch:  # even where failing fails
        patch.setattr(home.node._pipeline, '_begin', lambda batch: 1 / 0)
        patch.setattr(home.node._pipeline, '_fail', lambda *_: 1 / 0)
        rig.send(make_message(crop, 1))
        rig.wait(lambda: rig.next_status('camera camera')[2]['dropped: error'] == '1')
    with monkeypatch.context() as patch:
        failed = threading.Event()
        patch.setattr(home.node._cameras[0], 'receive', lambda _: (failed.set(), 1 / 0))
        rig.send(make_message(crop, 2))
        rig.wait(failed.is_set)
    assert np.array_equal(view(rig.round_trip(make_message(crop, 3))), 255 - crop)
    _, _, values = rig.next_status('camera camera')
    assert (values['received'], values['restored']) == ('3', '1')
    assert values['passed through after an error'] == '1'


def test_an_output_that_is_an_input_is_refused(home):
    home.start('-r', 'camera/restored/image_raw:=/camera/image_raw')
    assert not home.change('CONFIGURE')
    assert home.rig.next_status('restorer')[1].startswith(
        'cannot configure: camera/restored/image_raw and camera/image_raw are both '
        '/camera/image_raw: an output must not be an input'
    )
    assert not home.restorers, 'before anything is loaded'


@pytest.mark.parametrize(('transport', 'remap', 'cameras', 'same'), [
    ('raw', 'a/image_raw:=a/restored/compare', ['a'], '/a/restored/compare'),
    ('raw', 'a/restored/camera_info:=b/camera_info', ['a', 'b'], '/b/camera_info'),
    ('compressed', 'a/restored/image_raw:=a/image_raw', ['a'], '/a/image_raw/compressed'),
    ('raw', 'b/restored/image_raw:=a/restored/image_raw', ['a', 'b'], '/a/restored/image_raw'),
    ('raw', 'x:=y', ['a', 'a/restored'], '/a/restored/image_raw'),
    ('raw', 'x:=y', ['a', '/a'], '/a/restored/image_raw'),
    ('raw', 'b/image_raw:=a/image_raw', ['a', 'b'], ''),  # the same picture, restored twice
    ('raw', 'a/restored/image_raw:=a/image_raw/compressed', ['a'], ''),  # nobody listens there
])
def test_which_topics_must_not_be_the_same(rig, transport, remap, cameras, same):
    node = Node('remapped', context=rig.context, cli_args=['--ros-args', '-r', remap])
    node.declare_parameter('image_transport', transport)
    try:
        if same:
            with pytest.raises(TopicError, match=f'are both {same}: '):
                check_topics(node, cameras)
        else:
            check_topics(node, cameras)
    finally:
        node.destroy_node()
