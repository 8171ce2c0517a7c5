"""
How frames of many cameras reach one worker thread.

Each camera has one slot for its newest frame. A newer frame replaces it, so no queue builds up and
no frame gets older than necessary. The worker takes frames in turns. It starts after the camera
that it served last, so no camera starves. When a batch is ready, the worker starts the next one
before it finishes (publishes) this one, so computing does not wait for publishing.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar('Item')
Work = TypeVar('Work')

RECENT = 1.0  # s after a camera's last frame in which another one is expected


class FrameScheduler(Generic[Item, Work]):
    """The slots of the newest frames, and the thread that empties them."""

    def __init__(
        self,
        cameras: Sequence[str],
        start: Callable[[list[Item]], Work],
        wait: Callable[[Work], None],
        finish: Callable[[Work], None],
        batch: int,
        in_flight: int = 1,
        batch_wait: float = 0.0,
        in_order: bool = False,
    ) -> None:
        """
        Call ``start`` with up to ``batch`` items, then ``wait`` and ``finish`` with its result.

        One thread calls all three, so none of them may raise. Batches keep their order. Up to
        ``in_flight`` batches are started and not ready. While there are none, an incomplete batch
        waits ``batch_wait`` s for the other cameras. With ``in_order`` a camera's frame is started
        only when its previous frame is ready.
        """
        self._cameras = list(cameras)
        self._start = start
        self._wait = wait
        self._finish = finish
        self._batch = batch
        self._in_flight = in_flight
        self._batch_wait = batch_wait
        self._in_order = in_order
        self._slots: dict[str, Item] = {}
        self._offered: dict[str, float] = {}  # time of the last offer, s, monotonic
        self._at_work: deque[dict[str, Item]] = deque()  # started batches, by camera
        self._ready: deque[Work] = deque()  # of these, ready and not finished; one at most
        self._finishing: dict[str, Item] = {}
        self._next = 0
        self._stopping = False
        self.left_behind = False  # whether ``stop`` abandoned the thread
        self._changed = threading.Condition()
        # A daemon, because a batch on a slow machine may take longer than the process may.
        self._thread = threading.Thread(target=self._run, name='restore', daemon=True)
        self._thread.start()

    def offer(self, camera: str, item: Item) -> Item | None:
        """Store the newest frame of ``camera``; return the older one that it replaces."""
        with self._changed:
            replaced = self._slots.get(camera)
            self._slots[camera] = item
            self._offered[camera] = time.monotonic()
            self._changed.notify()
            return replaced

    def idle(self, camera: str) -> bool:
        """Return whether no frame of ``camera`` waits or is being processed."""
        with self._changed:
            places = self._slots, self._finishing, *self._at_work
            return not any(camera in place for place in places)

    def stop(self, timeout: float) -> list[Item]:
        """
        End the thread after the current batches; return the frames that are not finished.

        Batches that take longer than ``timeout`` s are abandoned: their frames are returned too.
        """
        with self._changed:
            self._stopping = True
            left = list(self._slots.values())
            self._slots.clear()
            self._changed.notify()
        self._thread.join(timeout)
        with self._changed:
            self.left_behind = self._thread.is_alive()
            if self.left_behind:
                left += [item for batch in self._at_work for item in batch.values()]
        return left

    def _run(self) -> None:
        started: deque[Work] = deque()
        ready = self._ready
        while True:
            with self._changed:
                if not started and not ready:
                    self._changed.wait_for(lambda: self._slots or self._stopping)
                    self._gather()
                if self._stopping and not started and not ready:
                    return
                # A ready batch does not wait for the next one to fill.
                batch = [] if ready and not self._complete() else self._take()
            if batch:
                started.append(self._start(batch))
            if ready:
                with self._changed:
                    if self.left_behind:
                        return
                    self._finishing = self._at_work.popleft()
                    work = ready.popleft()
                self._finish(work)
                with self._changed:
                    self._finishing = {}
                if not batch:
                    continue  # frames may have arrived meanwhile
            if started and (not batch or len(started) >= self._in_flight):
                self._wait(started[0])
                ready.append(started.popleft())

    def _gather(self) -> None:
        """Wait up to ``batch_wait`` for the frames of the other cameras that are sending."""
        self._changed.wait_for(lambda: self._complete() or self._stopping, self._batch_wait)

    def _complete(self) -> bool:
        """Return whether all cameras that are sending have a frame, or the batch is full."""
        since = time.monotonic() - RECENT
        busy = self._busy()
        sending = sum(when > since for name, when in self._offered.items() if name not in busy)
        return len(self._slots.keys() - busy) >= min(self._batch, sending)

    def _busy(self) -> set[str]:
        """Return the cameras whose next frame must wait for the previous one."""
        if not self._in_order:
            return set()
        return {name for batch in list(self._at_work)[len(self._ready) :] for name in batch}

    def _take(self) -> list[Item]:
        """Empty up to ``batch`` full slots, in turn."""
        count = len(self._cameras)
        free = self._slots.keys() - self._busy()
        in_turn = [self._cameras[(self._next + i) % count] for i in range(count)]
        chosen = [camera for camera in in_turn if camera in free][: self._batch]
        if chosen:
            self._next = (self._cameras.index(chosen[-1]) + 1) % count
            self._at_work.append({camera: self._slots.pop(camera) for camera in chosen})
        return list(self._at_work[-1].values()) if chosen else []
