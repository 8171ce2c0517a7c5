"""Stretches of consecutive frames: from footage, and from pairs in temporal order."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from iov_restore_ros.pictures.datasets import LAYOUTS, find_pairs
from iov_restore_ros.pictures.files import DataError, Pictures, by_number
from iov_restore_ros.pictures.footage import STRETCH, list_footage
from iov_restore_ros.pictures.readings import Pair

Stretch = Callable[[], np.ndarray]  # reads uint8 K x STRETCH x H x W x 3, RGB


class Clips:
    """
    Stretches of ``STRETCH`` consecutive frames to draw from; ``cache_gb`` GB stay in memory.

    If a stretch cannot be read, a warning is given and another stretch is read.
    """

    def __init__(self, stretches: Sequence[Stretch], cache_gb: float) -> None:
        self.pictures = Pictures(stretches, lambda read: read(), cache_gb)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return a random stretch, uint8 K x STRETCH x H x W x 3, RGB."""
        return self.pictures[int(rng.integers(len(self.pictures.sources)))]


def footage_stretches(roots: Iterable[Path]) -> list[Stretch]:
    """Return the stretches of all videos and folders of frames below ``roots``, K = 1."""
    return [
        partial(_read_footage, footage.read, first)
        for root in roots for footage in list_footage(root)
        for first in range(0, footage.length - STRETCH + 1, STRETCH)
    ]


def pair_stretches(roots: Iterable[Path]) -> list[Stretch]:
    """
    Return the stretches of pairs, see ``pair_sequences``; K = 2: degraded, sharp.

    A root is LAYOUT=PATH with a layout that is ``in_order``, or a path in the layout `folders`.
    Raises ``DataError`` for a layout that is not, and if all sequences are shorter than
    ``STRETCH``.
    """
    stretches: list[Stretch] = []
    for root in roots:
        told, equals, path = str(root).partition('=')
        layout, where = (told, Path(path)) if equals and told in LAYOUTS else ('folders', root)
        if not LAYOUTS[layout].in_order:
            raise DataError(f'{root}: {layout} are single pictures')
        found: list[Stretch] = [
            partial(read_pairs, sequence[first : first + STRETCH])
            for sequence in pair_sequences(find_pairs(where, layout))
            for first in range(0, len(sequence) - STRETCH + 1, STRETCH)
        ]
        if not found:
            raise DataError(f'{root}: no folder of {STRETCH} consecutive pairs and more')
        stretches += found
    return stretches


def pair_sequences(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Return each folder of degraded pictures as one sequence, in numerical order."""
    ordered = sorted(
        pairs, key=lambda pair: (str(pair.degraded.parent), by_number(pair.degraded))
    )
    return [list(group) for _, group in groupby(ordered, lambda pair: pair.degraded.parent)]


def read_pairs(pairs: Sequence[Pair]) -> np.ndarray:
    """
    Return T ``pairs``, uint8 2 x T x H x W x 3, RGB: degraded, sharp.

    Raises ``DataError`` if one cannot be read, or if they differ in size.
    """
    both = [np.stack(pair.read()) for pair in pairs]
    if len({frame.shape for frame in both}) > 1:
        raise DataError(f'{pairs[0].degraded}: pictures differ in size from here on')
    return np.stack(both, 1)


def _read_footage(read: Callable[[int], np.ndarray], first: int) -> np.ndarray:
    return read(first)[None]
