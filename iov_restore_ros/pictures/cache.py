"""Decoded pictures in memory that the processes of a DataLoader share."""

import mmap
import os
from multiprocessing import get_context

import numpy as np

FORK = get_context('fork')  # only forked workers share the memory
MOST_AXES = 5
ABSENT, COMING, THERE = range(3)


class Cache:
    """
    Arrays of uint8 by number, up to ``size`` bytes in total.

    All forks of this process share what any of them keeps. Memory is allocated as it is filled.
    """

    def __init__(self, count: int, size: int) -> None:
        """Reserve space for the arrays number 0 to ``count`` - 1."""
        size = min(size, os.sysconf('SC_PHYS_PAGES') * mmap.PAGESIZE)  # more would be refused
        self.size = size
        self.lock = FORK.Lock()
        self.used = _shared(1, np.int64)  # bytes
        self.states = _shared(count, np.uint8)
        self.places = _shared(count * (1 + MOST_AXES), np.int64).reshape(count, 1 + MOST_AXES)
        self.bytes = _shared(size, np.uint8)

    def get(self, number: int) -> np.ndarray | None:
        """Return a kept array, or None."""
        with self.lock:
            if self.states[number] != THERE:
                return None
        begin, *shape = (int(value) for value in self.places[number] if value >= 0)
        return self.bytes[begin : begin + int(np.prod(shape))].reshape(shape)

    def keep(self, number: int, array: np.ndarray) -> None:
        """Keep a copy of ``array`` if there is space, and no other process is keeping it."""
        with self.lock:
            begin = int(self.used[0])
            if self.states[number] != ABSENT or begin + array.nbytes > self.size:
                return
            self.used[0] += array.nbytes
            self.states[number] = COMING
        self.bytes[begin : begin + array.nbytes] = array.reshape(-1)
        self.places[number] = begin, *array.shape, *[-1] * (MOST_AXES - array.ndim)
        with self.lock:
            self.states[number] = THERE


def _shared(count: int, kind: type) -> np.ndarray:
    """Return zeros of type ``kind`` that forks share."""
    memory = mmap.mmap(-1, max(1, count * np.dtype(kind).itemsize))
    return np.frombuffer(memory, kind, count)
