"""
How PyTorch computes on a CPU beside the other threads of a node: measured in docs/speed.md.

One thread of the process computes, and the number of its threads is its own: ``use_threads`` sets
it, and what is to be computed by one alone is called as ``compute(on_one_thread, function, ...)``.
Nothing else in the package changes it (a training run sets that of its own process).
"""

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

from iov_restore_ros.compute.worker import Worker

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
    return _computing().begin(function, *arguments)


def use_threads(count: int) -> None:
    """Let ``compute`` use ``count`` threads from now on; 0: as many as PyTorch likes."""
    compute(torch.set_num_threads, count or OWN_CHOICE_OF_THREADS)


def on_one_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """
    Return ``function(*arguments)``, computed by the calling thread alone.

    Meanwhile the number of threads is 1: that of this thread, and MKL's of the whole process. So it
    is for the thread that computes, and for programs in which no other thread does.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _computing() -> Worker:
    """Start the thread that computes."""
    _keep_memory()  # before the thread is given an arena of its own
    return Worker('compute')


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
