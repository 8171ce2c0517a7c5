"""A thread that runs calls of other threads, one after the other."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar('Result')


class Worker:
    """Runs calls in a thread of its own. A call from that thread itself runs at once."""

    def __init__(self, name: str) -> None:
        """Start the thread as a daemon, so that the process can end during a long call."""
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def begin(self, function: Callable[..., Result], *arguments: Any) -> 'Future[Result]':
        """Queue a call of ``function(*arguments)``; its future also carries its exception."""
        call: Future[Result] = Future()
        if threading.current_thread() is self._thread:  # it cannot wait for itself
            _answer(call, function, arguments)
        else:
            self._calls.put((call, function, arguments))
        return call

    def stop(self) -> None:
        """End the thread after the queued calls, and wait for its end."""
        self._calls.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        # While it waits, the thread keeps no reference to the last call, not even by a name.
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
    except BaseException as error:  # noqa: BLE001  the caller handles it
        call.set_exception(error)
