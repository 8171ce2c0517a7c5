"""Newest-frame slots, turns and the worker thread."""

import threading
import time

import pytest

from iov_restore_ros.node.scheduler import FrameScheduler


def ignore(_):
    """Be what waits, or finishes, for those who look at starts only."""


class Worker:
    """A start function that waits to be let go, and remembers its batches."""

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
    scheduler = FrameScheduler('a', worker, ignore, ignore, 1)
    busy(worker, scheduler)
    assert [scheduler.offer('a', n) for n in range(5)] == [None, 0, 1, 2, 3]
    finish(worker, scheduler, 1)
    assert worker.batches == [['first'], [4]]


def test_a_camera_is_idle_when_it_has_no_frame_on_its_way(worker):
    scheduler = FrameScheduler('ab', worker, ignore, ignore, 1)
    assert scheduler.idle('a')
    busy(worker, scheduler)
    assert (scheduler.idle('a'), scheduler.idle('b')) == (False, True)
    scheduler.offer('b', 'second')
    assert not scheduler.idle('b')
    worker.gate.release()
    assert worker.started.acquire(timeout=10)
    assert not scheduler.idle('a'), 'it is ready, but not finished'
    worker.gate.release()
    deadline = time.monotonic() + 10
    while not (scheduler.idle('a') and scheduler.idle('b')):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    scheduler.stop(10)


def test_batch_holds_what_is_ready_up_to_the_limit(worker):
    scheduler = FrameScheduler('abcde', worker, ignore, ignore, 3)
    busy(worker, scheduler)
    for camera in 'abce':
        scheduler.offer(camera, camera)
    finish(worker, scheduler, 2)
    assert worker.batches == [['first'], ['b', 'c', 'e'], ['a']]


def test_cameras_beyond_the_batch_do_not_starve(worker):
    cameras = 'abcdefg'
    scheduler = FrameScheduler(cameras, worker, ignore, ignore, 2)
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
    scheduler = FrameScheduler('ab', worker, ignore, ignore, 2)
    for number in range(3):
        scheduler.offer('b', number)
        assert worker.started.acquire(timeout=10)
        worker.gate.release()
    scheduler.stop(10)
    assert worker.batches == [[0], [1], [2]]


def test_stop_while_busy_waits_for_the_batch_and_returns_the_rest(worker):
    scheduler = FrameScheduler('ab', worker, ignore, ignore, 1)
    busy(worker, scheduler)
    scheduler.offer('b', 'left')
    threading.Timer(0.1, worker.gate.release).start()
    assert scheduler.stop(10) == ['left']
    assert worker.batches == [['first']]


def test_stop_leaves_a_batch_behind_that_takes_long(worker):
    finished = []
    scheduler = FrameScheduler('ab', worker, ignore, finished.append, 1)
    busy(worker, scheduler)
    scheduler.offer('b', 'left')
    assert scheduler.stop(0.1) == ['left', 'first'], 'none is lost from the account'
    assert scheduler.left_behind
    worker.gate.release()
    scheduler._thread.join(10)
    assert not scheduler._thread.is_alive()
    assert finished == [], 'whoever left it behind has forgotten its camera'


def log_of(in_flight, offers):
    """Return what became of batches, in order, while ``offers`` come during each start."""
    log, done = [], threading.Event()
    offers = iter(offers)

    def start(batch):
        log.append(('start', batch))
        for camera in next(offers, ''):
            scheduler.offer(camera, camera)
        return batch

    def wait(batch):
        log.append(('wait', batch))

    def finish(batch):
        log.append(('finish', batch))
        if len(log) == 9:
            done.set()

    scheduler = FrameScheduler('abc', start, wait, finish, 1, in_flight)
    scheduler.offer('a', 'a')
    assert done.wait(10)
    assert scheduler.stop(10) == []
    return ' '.join(f'{event} {batch[0]}' for event, batch in log)


def test_next_batch_starts_when_the_one_before_is_ready_and_before_it_is_finished():
    assert log_of(1, ['bc']) == (
        'start a wait a start b finish a wait b start c finish b wait c finish c'
    )


def test_two_in_flight_are_started_before_the_first_is_ready():
    assert log_of(2, ['bc']) == (
        'start a start b wait a start c finish a wait b finish b wait c finish c'
    )


def test_what_is_ready_does_not_wait_for_a_batch_to_fill():
    log, gate, done = [], threading.Event(), threading.Event()

    def start(batch):
        log.append(('start', *batch))
        return batch

    def wait(batch):
        log.append(('wait', *batch))
        assert gate.wait(10)

    def finish(batch):
        log.append(('finish', *batch))
        if len(log) == 6:
            done.set()

    scheduler = FrameScheduler('ab', start, wait, finish, 2, batch_wait=10.0)

    def come(event):
        deadline = time.monotonic() + 10
        while event not in log:
            assert time.monotonic() < deadline, log
            time.sleep(0.01)

    scheduler.offer('a', 1)
    come(('wait', 1))
    scheduler.offer('b', 2)  # a's is still to come
    gate.set()
    come(('finish', 1))
    scheduler.offer('a', 3)
    assert done.wait(5)
    scheduler.stop(10)
    assert log == [
        ('start', 1), ('wait', 1), ('finish', 1), ('start', 2, 3), ('wait', 2, 3), ('finish', 2, 3)
    ]


def test_a_started_batch_is_finished_when_nothing_else_comes_and_at_the_end():
    finished = []
    scheduler = FrameScheduler('a', tuple, ignore, finished.append, 1, in_flight=2)
    scheduler.offer('a', 'alone')
    deadline = time.monotonic() + 10
    while not finished:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    gate = threading.Event()
    slow = FrameScheduler(
        'a', lambda batch: gate.wait(10), ignore, finished.append, 1, in_flight=2
    )
    slow.offer('a', 'last')
    threading.Timer(0.1, gate.set).start()
    left = slow.stop(10)
    assert (True in finished) == (left == []), 'what has been taken is finished'
    scheduler.stop(10)
    assert finished[0] == ('alone',)


def test_incomplete_batch_waits_for_the_cameras_that_are_sending(worker):
    scheduler = FrameScheduler('abc', worker, ignore, ignore, 3, batch_wait=10.0)
    scheduler.offer('a', 1)  # nobody else has sent yet
    assert worker.started.acquire(timeout=5)
    scheduler.offer('b', 1)
    worker.gate.release()
    time.sleep(0.1)
    assert len(worker.batches) == 1, 'b waits for a, but not for c'
    scheduler.offer('a', 2)
    assert worker.started.acquire(timeout=5)
    worker.gate.release()
    scheduler.stop(10)
    assert worker.batches == [[1], [1, 2]]


def test_incomplete_batch_does_not_wait_for_long(worker):
    scheduler = FrameScheduler('ab', worker, ignore, ignore, 2, batch_wait=0.05)
    for camera in 'ab':
        scheduler.offer(camera, camera)
        assert worker.started.acquire(timeout=10)
        worker.gate.release()
    scheduler.stop(10)
    assert worker.batches == [['a'], ['b']]
