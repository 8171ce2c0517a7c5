"""
Restoring on a CUDA device: the copies of one batch run beside the computing of another.

Uploads, computing and downloads have a stream each and wait for one another by events; the host
waits for the download of the batch that it wants, never for the device. Memory is allocated once
for each size of frame: page-locked and on the device, for as many batches as are on their way.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from iov_restore_ros.inference.pixels import restore_pixels
from iov_restore_ros.model import Generator

KEPT_SIZES = 8  # sizes of frames whose memory and graphs are kept


class Slot:
    """Memory for one batch of frames of one size on its way, and the graphs that run on it."""

    def __init__(self, batch: int, size: tuple[int, int], device: torch.device) -> None:
        shape = (batch, *size, 3)
        self.sent, self.received = (
            torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(2)
        )
        self.finite_received = torch.empty((), dtype=torch.bool, pin_memory=True)
        self.pixels, self.restored = (
            torch.empty(shape, dtype=torch.uint8, device=device) for _ in range(2)
        )
        self.finite = torch.empty((), dtype=torch.bool, device=device)
        self.uploaded, self.computed = torch.cuda.Event(), torch.cuda.Event()
        self.downloaded = torch.cuda.Event(blocking=True)  # the host sleeps while it waits
        # By generator and number of frames; None: has run, so that cuDNN has chosen algorithms.
        self.graphs: dict[tuple[Generator, int], torch.cuda.CUDAGraph | None] = {}


class CudaPipeline:
    """Batches on their way through one device. Not thread-safe."""

    def __init__(self, device: torch.device) -> None:
        torch.backends.cudnn.benchmark = True  # there are few sizes, and each comes often
        self._device = device
        self._upload, self._compute, self._download = (
            torch.cuda.Stream(device) for _ in range(3)
        )
        # The generators' weights are still on their way there.
        self._compute.wait_stream(torch.cuda.current_stream(device))
        self._idle: dict[tuple[int, int], list[Slot]] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self.graphs = True  # until capturing one fails

    def start(
        self, frames: Sequence[np.ndarray], generator: Generator, together: int
    ) -> Callable[[], tuple[np.ndarray, bool]]:
        """
        Send ``frames`` (uint8, H x W x 3, all of one size) on their way through ``generator``.

        Returns a function that waits for them and gives the restored pixels, a new uint8
        N x H x W x 3, and whether the generator's output was finite. Call it once. ``together`` is
        how many frames of this size may come in one call, for which memory is kept.
        """
        size = frames[0].shape[:2]
        slot = self._take(size, max(together, len(frames)))
        count = len(frames)
        np.stack(frames, out=slot.sent[:count].numpy())
        with torch.cuda.stream(self._upload):
            slot.pixels[:count].copy_(slot.sent[:count], non_blocking=True)
            slot.uploaded.record()
        with torch.cuda.stream(self._compute):
            self._compute.wait_event(slot.uploaded)
            self._run(slot, count, generator)
            slot.computed.record()
        with torch.cuda.stream(self._download):
            self._download.wait_event(slot.computed)
            slot.received[:count].copy_(slot.restored[:count], non_blocking=True)
            slot.finite_received.copy_(slot.finite, non_blocking=True)
            slot.downloaded.record()

        def finish() -> tuple[np.ndarray, bool]:
            slot.downloaded.synchronize()
            restored = slot.received[:count].numpy().copy()
            finite = bool(slot.finite_received)
            self._idle.setdefault(size, []).append(slot)
            return restored, finite

        return finish

    def close(self) -> None:
        """Wait for what is on its way and let go of all memory."""
        for stream in (self._upload, self._compute, self._download):
            stream.synchronize()
        self._idle.clear()

    def _take(self, size: tuple[int, int], together: int) -> Slot:
        """Return memory that is not in use; a size that has not come for long is forgotten."""
        idle = self._idle.pop(size, [])
        self._idle[size] = idle  # to the end: used last
        while len(self._idle) > KEPT_SIZES:
            self._idle.pop(next(iter(self._idle)))
        if idle:
            return idle.pop()
        # On the stream that computes, as all of the generator's memory: what it gave back there may
        # still be in use, so the upload has to wait for it once.
        with torch.cuda.stream(self._compute):
            slot = Slot(together, size, self._device)
        self._upload.wait_stream(self._compute)
        return slot

    def _run(self, slot: Slot, count: int, generator: Generator) -> None:
        """Restore the slot's first ``count`` frames: eagerly at first, then by a CUDA graph."""
        key = generator, count
        if self.graphs and key in slot.graphs:
            try:
                graph = slot.graphs[key] or self._capture(slot, count, generator)
            except RuntimeError:  # eagerly then: slower, but right
                self.graphs = False
            else:
                slot.graphs[key] = graph
                graph.replay()
                return
        _restore(slot, count, generator)
        slot.graphs[key] = None

    def _capture(self, slot: Slot, count: int, generator: Generator) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # Another thread may be loading a model meanwhile: only this one must do nothing else. The
        # pool is shared, because the graphs run one after the other on one stream.
        graph.capture_begin(pool=self._pool, capture_error_mode='thread_local')
        try:
            _restore(slot, count, generator)
        finally:
            graph.capture_end()
        return graph


def _restore(slot: Slot, count: int, generator: Generator) -> None:
    restored, finite = restore_pixels(slot.pixels[:count], generator)
    slot.restored[:count].copy_(restored)
    slot.finite.copy_(finite)
