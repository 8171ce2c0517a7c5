"""Batches in the CUDA engine, on the CPU with what it takes of `torch.cuda` faked."""

import gc
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pictures import RATE, drive, rain

from iov_restore_ros.inference import History, RestoreError, Restorer, cuda_engine
from iov_restore_ros.inference.cuda_engine import CudaEngine

CPU = torch.device('cpu')


class Stream:
    """Does at once what it is asked for."""

    def __init__(self, *_, **__):
        pass

    def record(self):
        pass

    wait_event = wait_stream = lambda *_: None
    synchronize = record


class Graph:
    """Cannot be captured."""

    def capture_begin(self, **_):
        raise RuntimeError('no graphs here')


class Torch:
    """PyTorch with streams, graphs, and memory that is not page-locked."""

    def __init__(self):
        self.allocated, self.full = 0, False
        self.cuda = SimpleNamespace(
            Stream=Stream, Event=Stream, CUDAGraph=Graph, current_stream=Stream,
            stream=lambda _: nullcontext(), graph_pool_handle=lambda: None, empty_cache=Stream,
        )

    def __getattr__(self, name):
        return getattr(torch, name)

    def empty(self, *shape, pin_memory=False, **how):
        if self.full:
            raise torch.OutOfMemoryError('CUDA out of memory')
        self.allocated += 1
        return torch.empty(*shape, **how)

    def empty_like(self, like, pin_memory, **how):
        return torch.empty_like(like, **how)


@pytest.fixture
def fake(monkeypatch):
    fake = Torch()
    monkeypatch.setattr(cuda_engine, 'torch', fake)
    return fake


@pytest.fixture
def cuda(fake):
    """A restorer on the CPU whose batches go through the engine for CUDA."""
    restorer = Restorer(device='cpu', precision='float32', find=())
    restorer._engine = CudaEngine(CPU, 3, restorer.tiling)
    restorer.batch = restorer._engine.batch
    yield restorer
    restorer.close()


def close(restored, expected):
    for a, b in zip(restored, expected, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1  # another order of the sums


def test_batches_on_their_way_do_not_mix(cuda, photograph):
    cpu = Restorer(device='cpu', precision='float32', find=())
    frames = [photograph[:60, :80], photograph[:33, :51], photograph[60:120, :80]] * 2
    for _ in range(2):  # eagerly, and when no graph can be captured
        started = [cuda.start(frames, task) for task in cpu.tasks]
        for task, restoring in zip(cpu.tasks, started, strict=True):
            close(restoring.result(), cpu.restore(frames, task))
    assert not cuda.graphs()


def test_memory_is_kept_for_the_next_frames(cuda, fake, photograph):
    frame = photograph[:60, :80]
    cuda.restore([frame], 'deblur')
    allocated = fake.allocated
    cuda.restore([frame] * 3, 'derain')
    assert fake.allocated == allocated
    cuda.restore([frame[:40]], 'derain')
    assert fake.allocated == 2 * allocated


def test_frames_with_and_without_a_past_come_in_one_batch(cuda, street):
    before, now, other = rain(drive(street, 3))
    history = History(shutter=0.5)
    history.look_back(before, 0.0, 'deblur')
    history.keep(before, 0.0)
    known = history.look_back(now, 1 / RATE, 'deblur')
    together = cuda.restore([other, now, before], 'deblur', [None, known, None])
    close(together, [
        cuda.restore([frame], 'deblur', [one])[0]
        for frame, one in ((other, None), (now, known), (before, None))
    ])
    assert np.abs(together[1].astype(int) - cuda.restore([now], 'deblur')[0]).max() > 1


def test_what_fails_comes_with_the_result_and_leaves_the_engine_at_work(cuda, fake, photograph):
    frame = photograph[:300, :300]
    fake.full = True
    restoring = cuda.start([frame], 'deblur')
    with pytest.raises(RestoreError, match='cpu failed: CUDA out of memory'):
        restoring.result()
    fake.full = False
    assert len(cuda.restore([frame], 'deblur')) == 1


def test_tiles_are_gathered_beside_the_device(cuda, photograph):
    frame = np.ascontiguousarray(np.tile(photograph, (2, 2, 1))[:500, :450])
    cpu = Restorer(device='cpu', precision='float32', tasks=['deblur'])
    [whole] = cpu.restore([frame], 'deblur')
    cuda.tiling.pixels = 400 * 400
    assert np.array_equal(cuda.restore([frame], 'deblur')[0], whole)


def test_an_engine_that_nobody_closes_leaves_no_thread(cuda):
    engine = CudaEngine(CPU, 1, cuda.tiling)
    thread = engine._receiving._thread
    assert thread.is_alive()
    del engine
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()
