"""The restorer on a CUDA device against the CPU, with the shipped weights on real photographs."""

import numpy as np
import pytest
import torch
from pictures import RATE, drive, rain

from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.model import shipped_tasks
from iov_restore_ros.model.fusion import MOMENTS
from iov_restore_ros.video.before import Before, Blurring

SHIPPED = shipped_tasks('fast')
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')


@pytest.fixture(scope='module')
def frames(photograph):
    """Frames of four sizes, mixed."""
    return [photograph, photograph[:100], photograph[::-1].copy(), photograph[:100, :99]] * 3


@pytest.fixture(scope='module')
def expected(frames):
    cpu = Restorer(device='cpu', precision='float32')
    return {task: cpu.restore(frames, task) for task in SHIPPED}


def assert_close(restored, expected):
    for a, b in zip(restored, expected, strict=True):
        off = np.abs(a.astype(int) - b)
        assert (off <= 1).mean() > 0.999
        assert off.max() <= 2


@pytest.mark.parametrize('precision', ['float32', 'float16', 'auto'])
def test_equals_the_cpu(frames, expected, precision):
    cuda = Restorer(device='cuda', precision=precision)
    for _ in range(3):  # eagerly, captured, replayed
        for task in SHIPPED:
            assert_close(cuda.restore(frames, task), expected[task])
    assert cuda.graphs()


def test_batches_on_their_way_do_not_mix(frames, expected):
    cuda = Restorer(device='cuda', batch=3)
    rng = np.random.default_rng(0)
    on_their_way = []
    for number in range(40):
        task = SHIPPED[number % 2]
        chosen = rng.integers(len(frames), size=rng.integers(1, 6))
        on_their_way.append((cuda.start([frames[i] for i in chosen], task), task, chosen))
        if len(on_their_way) == 3:
            restoring, task, chosen = on_their_way.pop(0)
            assert_close(restoring.result(), [expected[task][i] for i in chosen])


@pytest.mark.parametrize('task', SHIPPED)
def test_a_sequence_is_close_to_the_cpu(street, task):
    """The frame before is moved on the device, not by OpenCV, which rounds to 8 bits."""
    frames = rain(drive(street, 6))
    cpu, cuda = (Restorer(device=device, precision='float32') for device in ('cpu', 'cuda'))
    histories = [History(shutter=0.5) for _ in range(2)]
    for number, frame in enumerate(frames):
        a, b = (
            restore_next(restorer, history, frame, number / RATE, task)
            for history, restorer in zip(histories, (cpu, cuda), strict=True)
        )
        off = np.abs(a.astype(int) - b)
        assert off.mean() < 0.5
        assert np.percentile(off, 99) <= 4
        for history in histories:  # differences do not add up
            history.keep(a, number / RATE + 0.001)


def test_frames_with_and_without_a_past_come_in_one_batch(street):
    cuda = Restorer(device='cuda', precision='float32')
    before, now, other = rain(drive(street, 3))
    history = History()
    history.look_back(before, 0.0, 'derain')
    history.keep(before, 0.0)
    known = history.look_back(now, 1 / RATE, 'derain')
    for _ in range(3):  # eagerly, captured, replayed
        together = cuda.restore([other, now, before], 'derain', [None, known, None])
        alone = [
            cuda.restore([frame], 'derain', [one])[0]
            for frame, one in ((other, None), (now, known), (before, None))
        ]
        assert_close(together, alone)


def test_a_path_of_a_gyroscope_comes_with_a_frame_before_and_without(street):
    first, now, *_ = drive(street, 3)
    cells = -(-now.shape[0] // 4), -(-now.shape[1] // 4)
    swing = np.sin(np.linspace(0, 5, MOMENTS))[:, None] * np.array([1.0, 4.0])
    path = np.broadcast_to((swing - swing[MOMENTS // 2]).astype(np.float32), (*cells, MOMENTS, 2))
    history = History(shutter=0.5)
    history.look_back(first, 0.0, 'deblur')
    history.keep(first, 0.0)
    known = history.look_back(now, 1 / RATE, 'deblur')
    blurring = Blurring(np.zeros((*cells, 2), np.float32), path, (1.0, 1.0))
    befores = [Before(None, None, blurring), known._replace(blurring=blurring), known, None]
    cpu, cuda = (Restorer(device=device, precision='float32') for device in ('cpu', 'cuda'))
    expected = cpu.restore([now] * 4, 'deblur', befores)
    for _ in range(3):  # eagerly, captured, replayed
        for a, b in zip(cuda.restore([now] * 4, 'deblur', befores), expected, strict=True):
            off = np.abs(a.astype(int) - b)
            assert off.mean() < 0.5 and np.percentile(off, 99) <= 4


def test_memory_is_constant_per_size_and_given_back(frames):
    before = torch.cuda.memory_allocated()
    cuda = Restorer(device='cuda', precision='float16')
    for _ in range(3):
        cuda.restore(frames, 'deblur')
    held = torch.cuda.memory_allocated()
    for _ in range(10):
        cuda.restore(frames, 'deblur')
    assert torch.cuda.memory_allocated() == held
    reserved = torch.cuda.memory_reserved()
    cuda.close()
    assert torch.cuda.memory_allocated() - before < 2**25  # what libraries keep for themselves
    assert torch.cuda.memory_reserved() < reserved
