"""Newest-frame slots, turns and the worker thread."""

import threading
import time

import pytest

from iov_restore_ros.node.scheduler import FrameScheduler


class Worker:
    """A process function that waits to be let go, and remembers its batches."""

    def __init__(self):
        self.batches = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def __call__(self, batch):
        self.batches.append(batch)
        self.started.release()
        assert self.gate.acquire(timeout=10)


@pytest.fixture
def worker():
    return Worker()


def busy(worker, scheduler, camera='a'):
    """Make the worker busy with a first frame."""
    scheduler.offer(camera, 'first')
    assert worker.started.acquire(timeout=10)


def finish(worker, scheduler, batches):
    """Let the worker do ``batches`` more and stop it."""
    for _ in range(batches):
        worker.gate.release()
        assert worker.started.acquire(timeout=10)
    worker.gate.release()
    scheduler.stop(10)


def test_newest_wins(worker):
    scheduler = FrameScheduler('a', worker, 1)
    busy(worker, scheduler)
    assert [scheduler.offer('a', n) for n in range(5)] == [False, True, True, True, True]
    finish(worker, scheduler, 1)
    assert worker.batches == [['first'], [4]]


def test_a_camera_is_idle_when_it_has_no_frame_on_its_way(worker):
    scheduler = FrameScheduler('ab', worker, 1)
    assert scheduler.idle('a')
    busy(worker, scheduler)
    assert (scheduler.idle('a'), scheduler.idle('b')) == (False, True)
    scheduler.offer('b', 'second')
    assert not scheduler.idle('b')
    worker.gate.release()
    assert worker.started.acquire(timeout=10)
    assert (scheduler.idle('a'), scheduler.idle('b')) == (True, False)
    finish(worker, scheduler, 0)


def test_batch_holds_what_is_ready_up_to_the_limit(worker):
    scheduler = FrameScheduler('abcde', worker, 3)
    busy(worker, scheduler)
    for camera in 'abce':
        scheduler.offer(camera, camera)
    finish(worker, scheduler, 2)
    assert worker.batches == [['first'], ['b', 'c', 'e'], ['a']]


def test_cameras_beyond_the_batch_do_not_starve(worker):
    cameras = 'abcdefg'
    scheduler = FrameScheduler(cameras, worker, 2)
    busy(worker, scheduler)
    rounds = 14
    for _ in range(rounds):
        for camera in cameras:  # all cameras are always ready
            scheduler.offer(camera, camera)
        worker.gate.release()
        assert worker.started.acquire(timeout=10)
    worker.gate.release()
    scheduler.stop(10)
    served = [camera for batch in worker.batches[1:] for camera in batch]
    assert {camera: served.count(camera) for camera in cameras} == dict.fromkeys(cameras, 4)


def test_idle_camera_never_blocks(worker):
    scheduler = FrameScheduler('ab', worker, 2)
    for number in range(3):
        scheduler.offer('b', number)
        assert worker.started.acquire(timeout=10)
        worker.gate.release()
    scheduler.stop(10)
    assert worker.batches == [[0], [1], [2]]


def test_stop_while_busy_waits_for_the_batch_and_returns_the_rest(worker):
    scheduler = FrameScheduler('ab', worker, 1)
    busy(worker, scheduler)
    scheduler.offer('b', 'left')
    threading.Timer(0.1, worker.gate.release).start()
    assert scheduler.stop(10) == ['left']
    assert worker.batches == [['first']]


def test_stop_does_not_wait_for_ever(worker):
    scheduler = FrameScheduler('a', worker, 1)
    busy(worker, scheduler)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        scheduler.stop(0.1)
    assert time.monotonic() - started < 5
    worker.gate.release()
