"""
PyTorch on a CPU beside the other threads of a node; docs/speed.md has measurements.

One thread of the process computes: the computing thread. It has its own number of OpenMP threads.
``use_threads`` sets this number. ``compute(on_one_thread, function, ...)`` makes one call without
more threads. Nothing else in the package changes the number, but a training run sets that of its
own process.
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
KEPT_MEMORY = 1 << 30  # most bytes that are kept after they become free
KEPT_BLOCK = 1 << 26  # largest block that is kept; 1920x1080 has layers of 33 MB

Result = TypeVar('Result')


def compute(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call ``function(*arguments)`` in the computing thread, and return its result."""
    return begin(function, *arguments).result()


def begin(function: Callable[..., Result], *arguments: Any) -> 'Future[Result]':
    """
    Call ``function(*arguments)`` in the computing thread; return its future result.

    There is only one such thread, because each thread that computes gets its own team of OpenMP
    threads. If the teams have more threads than there are cores, these no longer wait actively for
    the next layer. The kernel then puts them to sleep and wakes them, several times a layer.
    """
    return _computing().begin(function, *arguments)


def use_threads(count: int) -> None:
    """Let ``compute`` use ``count`` threads from now on; 0 means the default of PyTorch."""
    compute(torch.set_num_threads, count or OWN_CHOICE_OF_THREADS)


def on_one_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """
    Call ``function(*arguments)`` in the calling thread, without OpenMP threads; return the result.

    Meanwhile the number of threads is 1: for this thread, and for MKL in the whole process. So use
    it in the computing thread, or in a program where no other thread computes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _computing() -> Worker:
    """Start the computing thread."""
    _keep_memory()  # before the thread gets its own arena
    return Worker('compute')


def _keep_memory() -> None:
    """
    Make the C library keep the memory of one layer for the next one.

    By default it returns large blocks to the kernel at once. The kernel then maps and clears them
    again, page by page: tens of thousands of page faults in each frame.
    """
    if os.confstr('CS_GNU_LIBC_VERSION'):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_MEMORY)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK)
        libc.mallopt(M_ARENA_MAX, 1)  # other arenas return memory despite the thresholds


os.register_at_fork(after_in_child=_computing.cache_clear)  # a child does not inherit threads
