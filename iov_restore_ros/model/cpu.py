"""How PyTorch computes on a CPU beside the other threads of a node: measured in docs/speed.md."""

import ctypes
import functools
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

OWN_CHOICE_OF_THREADS = torch.get_num_threads()
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h
KEPT_MEMORY = 1 << 30  # bytes that are kept at most when they become free
KEPT_BLOCK = 1 << 26  # and the largest block; 1920x1080 has layers of 33 MB

Result = TypeVar('Result')


def compute(function: Callable[..., Result], *arguments: Any) -> Result:
    """Return ``function(*arguments)``, called in the thread that ``begin`` calls it in."""
    return begin(function, *arguments).result()


def begin(function: Callable[..., Result], *arguments: Any) -> 'Future[Result]':
    """
    Have ``function(*arguments)`` called in the one thread of the process that computes.

    Every thread that computes gets a team of OpenMP threads of its own, and where there are more
    threads in teams than cores, they no longer wait for each other's next layer awake but are put
    to sleep and woken by the kernel, several times a layer.
    """
    calls, thread = _computing()
    call: Future[Result] = Future()
    if threading.current_thread() is thread:  # which cannot wait for itself
        _answer(call, function, arguments)
    else:
        calls.put((call, function, arguments))
    return call


def use_threads(count: int) -> None:
    """Let ``compute`` use ``count`` threads from now on; 0: as many as PyTorch likes."""
    compute(torch.set_num_threads, count or OWN_CHOICE_OF_THREADS)


def on_one_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Return ``function(*arguments)``, computed by the calling thread alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _computing() -> tuple[queue.SimpleQueue, threading.Thread]:
    """Start the thread that computes; return its queue and it."""
    calls: queue.SimpleQueue = queue.SimpleQueue()

    def run() -> None:
        while True:
            _answer(*calls.get())

    _keep_memory()  # before the thread is given an arena of its own
    # A daemon: the process may end while a large picture is being restored.
    thread = threading.Thread(target=run, name='compute', daemon=True)
    thread.start()
    return calls, thread


def _answer(
    call: Future[Result], function: Callable[..., Result], arguments: tuple[Any, ...]
) -> None:
    """Make a call; a function, so that nothing of it is held while waiting for the next."""
    try:
        call.set_result(function(*arguments))
    except BaseException as error:  # noqa: BLE001  it is the caller's
        call.set_exception(error)


def _keep_memory() -> None:
    """
    Have the C library keep the memory of one layer for the next one.

    By default it gives large blocks back to the kernel at once, which then has to map and to
    clear them anew, page by page: tens of thousands of page faults in each frame.
    """
    if os.confstr('CS_GNU_LIBC_VERSION'):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_MEMORY)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK)
        libc.mallopt(M_ARENA_MAX, 1)  # the others are given back whatever the thresholds say


os.register_at_fork(after_in_child=_computing.cache_clear)  # threads stay with the parent
