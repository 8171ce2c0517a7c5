"""
The way of frames from many cameras to one worker thread.

One slot per camera holds its newest frame; a newer one replaces it, so nothing queues up and
nothing is older than it need be. The worker takes frames in turns, beginning behind the camera
that it served last, so that no camera starves however many there are.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar('Item')


class FrameScheduler(Generic[Item]):
    """Newest-frame slots and the thread that empties them."""

    def __init__(
        self,
        cameras: Sequence[str],
        process: Callable[[list[Item]], None],
        batch: int,
    ) -> None:
        """Call ``process`` in a thread with up to ``batch`` items at a time."""
        self._cameras = list(cameras)
        self._process = process
        self._batch = batch
        self._slots: dict[str, Item] = {}
        self._at_work: set[str] = set()
        self._next = 0
        self._stopping = False
        self._changed = threading.Condition()
        # A daemon, because a batch on a slow machine may outlast the process's time to end.
        self._thread = threading.Thread(target=self._run, name='restore', daemon=True)
        self._thread.start()

    def offer(self, camera: str, item: Item) -> bool:
        """Put the newest frame of ``camera``; True when an older one was dropped for it."""
        with self._changed:
            replaced = camera in self._slots
            self._slots[camera] = item
            self._changed.notify()
            return replaced

    def idle(self, camera: str) -> bool:
        """Tell whether no frame of ``camera`` waits or is being processed."""
        with self._changed:
            return camera not in self._slots and camera not in self._at_work

    def stop(self, timeout: float) -> list[Item]:
        """
        End the thread after the batch at hand; return the frames left over.

        Raises ``TimeoutError`` when that batch takes longer than ``timeout`` seconds.
        """
        with self._changed:
            self._stopping = True
            left = list(self._slots.values())
            self._slots.clear()
            self._changed.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f'a batch was still being restored after {timeout} s')
        return left

    def _run(self) -> None:
        while True:
            with self._changed:
                self._at_work.clear()
                self._changed.wait_for(lambda: self._slots or self._stopping)
                if self._stopping:
                    return
                batch = self._take()
            self._process(batch)

    def _take(self) -> list[Item]:
        """Empty up to ``batch`` full slots, in turn."""
        taken: list[Item] = []
        count = len(self._cameras)
        for camera in [self._cameras[(self._next + i) % count] for i in range(count)]:
            if camera in self._slots and len(taken) < self._batch:
                taken.append(self._slots.pop(camera))
                self._at_work.add(camera)
                self._next = (self._cameras.index(camera) + 1) % count
        return taken
