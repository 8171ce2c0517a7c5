"""A thread that makes calls for others, one after the other."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar('Result')


class Worker:
    """The thread; what it does when it is asked by itself it does at once."""

    def __init__(self, name: str) -> None:
        """Start it. A daemon: the process may end while a call takes long."""
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def begin(self, function: Callable[..., Result], *arguments: Any) -> 'Future[Result]':
        """Have ``function(*arguments)`` called; what it raises comes with the result."""
        call: Future[Result] = Future()
        if threading.current_thread() is self._thread:  # which cannot wait for itself
            _answer(call, function, arguments)
        else:
            self._calls.put((call, function, arguments))
        return call

    def stop(self) -> None:
        """End the thread behind the calls that it has been asked for, and wait for that."""
        self._calls.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        # Nothing of a call is held while waiting for the next: not even a name.
        while self._make(self._calls.get()):
            pass

    def _make(self, call: tuple | None) -> bool:
        if call is not None:
            _answer(*call)
        return call is not None


def _answer(
    call: Future[Result], function: Callable[..., Result], arguments: tuple[Any, ...]
) -> None:
    try:
        call.set_result(function(*arguments))
    except BaseException as error:  # noqa: BLE001  it is the caller's
        call.set_exception(error)
