"""Restore frames on an engine, in as few passes as the memory allows."""

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import torch

from iov_restore_ros.inference.pixels import Input, RestoreError, noise_in
from iov_restore_ros.inference.tiling import Tiling
from iov_restore_ros.model import Generator

FAILURES = RuntimeError, MemoryError  # of the device, and of the memory of the host


class Engine(Protocol):
    """Restores frames on one device. Not thread-safe."""

    batch: int  # most frames of one size that are computed together
    in_flight: int  # how many passes overlap
    graphs: bool  # whether the passes run as CUDA graphs

    def submit(self, inputs: list[Input], generator: Generator) -> Future[list[np.ndarray]]:
        """
        Start to restore ``inputs`` of one size in one pass; return before it is done.

        The future holds new arrays, uint8 H x W x 3, RGB. Its ``result`` raises ``RestoreError`` or
        one of ``FAILURES``, which include ``torch.OutOfMemoryError``.
        """

    def close(self) -> None:
        """Wait for the passes that are in flight, and free all memory."""


class Passes:
    """Frames of one size. One pass starts at once; several passes run in ``result``."""

    def __init__(
        self, engine: Engine, tiling: Tiling, inputs: list[Input], generator: Generator
    ) -> None:
        self._engine, self._tiling = engine, tiling
        self._inputs, self._generator = inputs, generator
        self._begun: Future[list[np.ndarray]] | None = None
        if len(inputs) <= tiling.together(*inputs[0].size):
            self._begun = engine.submit(inputs, generator)

    def result(self) -> list[np.ndarray]:
        """
        Wait for the restored frames. Call it once.

        If the memory runs out, the frames are restored again, one pass after the other. Each time
        that it runs out again, the size of all later passes is halved. Raises ``RestoreError`` if
        restoring fails.
        """
        height, width = self._inputs[0].size
        begun, self._begun = self._begun, None
        while True:
            try:
                return list(self._one_by_one()) if begun is None else begun.result()
            except torch.OutOfMemoryError as error:
                tried = len(self._inputs) * height * width
                if begun is None and not self._tiling.halve(tried):
                    raise self._failed(error) from error
                begun = None
            except FAILURES as error:
                raise self._failed(error) from error

    def _one_by_one(self) -> Iterator[np.ndarray]:
        """Yield the restored frames, from as many passes as needed."""
        size = self._inputs[0].size
        tiles, together = self._tiling.tiles(*size), self._tiling.together(*size)
        if not tiles:
            for start in range(0, len(self._inputs), together):
                yield from self._pass(self._inputs[start : start + together])
        for one in self._inputs if tiles else ():
            restored = np.empty(one.frame.shape, np.uint8)
            whole = one._replace(noise=noise_in(one))
            for tile in tiles:
                [part] = self._pass([whole._replace(window=tile.read)])
                restored[tile.keep] = part[tile.inner]
            yield restored

    def _pass(self, inputs: list[Input]) -> list[np.ndarray]:
        return self._engine.submit(inputs, self._generator).result()

    def _failed(self, error: Exception) -> RestoreError:
        reason = 'not enough memory, ' if isinstance(error, MemoryError) else ''
        device = next(self._generator.parameters()).device
        return RestoreError(f'{device} failed: {reason}{error}')
