"""What the node holds and gives back, and models that change while it runs."""

import os
import re
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from ros_harness import make_message

from iov_restore_ros.inference import Restorer
from iov_restore_ros.model import Generator, WeightsInfo, save_weights
from iov_restore_ros.node.images import view
from iov_restore_ros.tasks import TASKS

LARGE = 'wei2021_preprint'
LARGE_BYTES = 2 * 4 * 11_378_179  # both tasks


@pytest.fixture(scope='module')
def large_weights(tmp_path_factory):
    """Untrained weight files of a large model for both tasks, as parameters."""
    folder = tmp_path_factory.mktemp('large')
    generator = Generator(LARGE)
    for task in TASKS:
        save_weights(folder / task, generator, WeightsInfo(LARGE, task))
    return {f'{task}_weights': str(folder / task) for task in TASKS}


def small_weights(path, task='deblur', value=None):
    """Write untrained weights (all of them ``value``, if given); return the path as text."""
    torch.manual_seed(3)
    generator = Generator('fast')
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.fill_(value) if value is not None else parameter.normal_(0, 0.01)
    save_weights(path, generator, WeightsInfo('fast', task))
    return str(path)


def change_state(rig, transition):
    """Ask for a transition; return whether it succeeded."""
    request = ChangeState.Request()
    request.transition.id = getattr(Transition, f'TRANSITION_{transition}')
    return rig.call(ChangeState, '/restore/change_state', request).success


def state(rig):
    """Return the name of the lifecycle state."""
    return rig.call(GetState, '/restore/get_state', GetState.Request()).current_state.label


def resident(rig):
    """Return the node's resident memory in bytes."""
    pages = Path(f'/proc/{rig.process.pid}/statm').read_text().split()[1]
    return int(pages) * os.sysconf('SC_PAGE_SIZE')


def shared_memory(pid):
    """Return the segments of Fast DDS that a process has mapped (ports are shared by all)."""
    maps = Path(f'/proc/{pid}/maps').read_text().splitlines()
    names = {line.split()[-1] for line in maps if '/fastdds_' in line or '/fastrtps_' in line}
    return {name for name in names if 'port' not in name}


def threads(rig):
    """Return how many threads the node has."""
    return len(os.listdir(f'/proc/{rig.process.pid}/task'))


def test_weights_change_between_two_frames(rig, crop, tmp_path):
    rig.start(mode='deblur', device='cpu')
    before = Restorer(device='cpu', precision='float32')
    [old] = before.restore([crop], 'deblur')
    path = small_weights(tmp_path / 'new')
    [new] = Restorer(
        device='cpu', precision='float32', weights={'deblur': path}
    ).restore([crop], 'deblur')
    assert not np.array_equal(old, new)

    assert np.array_equal(view(rig.round_trip(make_message(crop, 0))), old)
    [result] = rig.set_parameters(deblur_weights=path)
    assert result.successful, result.reason
    results = []
    rig.wait(lambda: (
        results.append(view(rig.round_trip(make_message(crop, len(results) + 1)))),
        np.array_equal(results[-1], new),
    )[1])
    assert all(np.array_equal(r, old) for r in results[:-1])
    assert len(rig.images['camera']) == 1 + len(results), 'no frame lost, none twice'
    assert rig.next_status('restorer')[2]['deblur weights'] == path


def test_bad_weights_leave_the_old_ones_at_work(rig, crop, tmp_path):
    rig.start(mode='deblur', device='cpu')
    expected = view(rig.round_trip(make_message(crop, 0)))
    garbage = tmp_path / 'garbage'
    garbage.write_bytes(b'garbage')
    for path in (str(garbage), small_weights(tmp_path / 'other', 'derain')):
        [result] = rig.set_parameters(deblur_weights=path)
        assert not result.successful
        assert path in result.reason

    path = small_weights(tmp_path / 'nan', value=float('nan'))  # seen when loaded only
    [result] = rig.set_parameters(deblur_weights=path)
    assert result.successful
    level, message, values = rig.next_status('restorer', path)
    assert level == DiagnosticStatus.WARN
    assert 'not finite' in message and path in rig.said()
    assert values['deblur weights'].endswith('fast_deblur.safetensors')
    assert np.array_equal(view(rig.round_trip(make_message(crop, 1))), expected)
    rig.set_parameters(deblur_weights='')
    rig.wait(lambda: rig.next_status('restorer')[0] == DiagnosticStatus.OK)


def test_model_changes_one_parameter_after_the_other(rig, crop, large_weights):
    rig.start(mode='derain', device='cpu')
    for name, value in (large_weights | {'model': LARGE}).items():
        [result] = rig.set_parameters(**{name: value})
        assert result.successful, result.reason
    sent = 0
    while rig.next_status('restorer')[2]['model'] != LARGE:
        rig.round_trip(make_message(crop, sent))
        sent += 1
    got = rig.round_trip(make_message(crop, sent))
    large = Restorer(LARGE, {t: large_weights[f'{t}_weights'] for t in TASKS}, 'cpu', 'float32')
    assert np.array_equal(view(got), large.restore([crop], 'derain')[0])
    assert len(rig.images['camera']) == sent + 1
    assert rig.next_status('restorer')[:2] == (DiagnosticStatus.OK, 'mode is derain')


def test_out_of_memory_at_configure_and_memory_given_back(rig, large_weights):
    rig.start(autostart=False, mode='derain', device='cpu', model=LARGE, **large_weights)
    assert state(rig) == 'unconfigured'
    used = int(Path(f'/proc/{rig.process.pid}/statm').read_text().split()[0])
    room = used * os.sysconf('SC_PAGE_SIZE') + LARGE_BYTES
    unlimited = resource.prlimit(
        rig.process.pid, resource.RLIMIT_AS, (room, resource.RLIM_INFINITY)
    )
    assert not change_state(rig, 'CONFIGURE')
    assert state(rig) == 'unconfigured'
    level, message, _ = rig.next_status('restorer')
    assert level == DiagnosticStatus.ERROR
    assert 'memory' in message

    resource.prlimit(rig.process.pid, resource.RLIMIT_AS, unlimited)
    held = []
    for _ in range(4):
        assert change_state(rig, 'CONFIGURE')
        held.append(resident(rig))
        assert change_state(rig, 'CLEANUP')
    # The first ones find their way into the C library's heap; from then on a leak adds up.
    assert held[3] < held[1] + LARGE_BYTES, 'every cleanup gives back what configure took'


def test_shutdown_while_busy_accounts_for_all_and_leaves_nothing(rig, photograph):
    rig.start(('front', 'rear'), mode='deblur', autostart=False)
    large = cv2.resize(photograph, (960, 540))
    assert change_state(rig, 'CONFIGURE')
    assert change_state(rig, 'ACTIVATE')
    rig.wait_until_listening()
    rig.round_trip(make_message(large, 0), 'front')  # from here on OpenCV has its own threads
    assert change_state(rig, 'DEACTIVATE')
    idle = threads(rig)
    assert change_state(rig, 'ACTIVATE')
    rig.wait_until_listening()
    assert threads(rig) > idle
    for number in range(1, 8):
        for camera in ('front', 'rear'):
            rig.send(make_message(large, number), camera)
    rig.spin(0.1)
    assert change_state(rig, 'ACTIVE_SHUTDOWN')
    assert state(rig) == 'finalized'
    assert threads(rig) < idle  # the loader's went too
    accounts = re.findall(r'(front|rear): (\d+) received = (.*)', rig.said())[2:]
    assert [camera for camera, _, _ in accounts] == ['front', 'rear']
    rig.spin(0.5)
    for camera, received, ends in accounts:
        counts = {name: int(n) for n, name in re.findall(r'(\d+) ([^+]+?)(?: \+|$)', ends)}
        assert sum(counts.values()) == int(received) > 0
        assert counts.get('restored', 0) == len(rig.images[camera])
    status, _ = rig.stop()
    assert status == 0


@pytest.mark.parametrize('loading', [False, True])
def test_it_ends_at_once_and_leaves_no_shared_memory(rig, large_weights, loading):
    rig.start(mode='derain', device='cpu')
    if loading:
        rig.set_parameters(**large_weights, model=LARGE)
        rig.wait(lambda: f'loading {LARGE}' in rig.said())
    segments = shared_memory(rig.process.pid)
    status, seconds = rig.stop()
    assert status == 0, rig.said()
    assert seconds < 5
    own = segments - shared_memory('self')
    assert own
    assert not [name for name in own if os.path.exists(name)]
