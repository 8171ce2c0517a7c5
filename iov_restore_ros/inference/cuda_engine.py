"""
Restoring on a CUDA device: one batch is copied while another is computed.

Uploads, computing and downloads have one stream each. They wait for one another by events. A thread
of the host waits for the downloads, one after the other, and never for the whole device. Memory is
allocated once for each frame size: page-locked on the host and on the device, for as many batches
as are in flight.
"""

import threading
import weakref
from concurrent.futures import Future

import numpy as np
import torch

from iov_restore_ros.compute.cpu import begin
from iov_restore_ros.compute.worker import Worker
from iov_restore_ros.inference.pixels import (
    Input,
    checked,
    restore_inputs,
    restore_pixels,
    to_image,
)
from iov_restore_ros.inference.tiling import Tiling
from iov_restore_ros.model import Generator
from iov_restore_ros.model.fusion import CELL, MOMENTS, make_evidence

BATCH = 8  # by default
KEPT_SIZES = 8  # memory and graphs are kept for so many frame sizes

ALIGNED = 'before', 'displacement', 'trust'  # what is sent of the previous frame
BLURRED = 'motion', 'path', 'told'  # what is sent of the blur of a frame
Key = tuple[Generator, int, tuple[str, ...]]  # of a graph: its frames, and what is sent


class Slot:
    """Memory for one batch in flight, of frames of one size, and the graphs that run on it."""

    def __init__(self, batch: int, size: tuple[int, int], device: torch.device) -> None:
        shape = (batch, *size, 3)
        cells = tuple(-(-side // CELL) for side in size)
        kinds = {
            'pixels': (shape, torch.uint8), 'before': (shape, torch.uint8),
            'displacement': ((batch, *cells, 2), torch.float32),
            'trust': ((batch, *cells, 3), torch.float32),
            'motion': ((batch, *cells, 2), torch.float32),
            'path': ((batch, *cells, 2 * MOMENTS), torch.float32),
            'told': ((batch, 1, 1, 2), torch.float32),
        }
        self.sent = {
            name: torch.empty(kind[0], dtype=kind[1], pin_memory=True)
            for name, kind in kinds.items()
        }
        self.there = {name: torch.empty_like(kind, device=device, pin_memory=False)
                      for name, kind in self.sent.items()}
        self.received = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.finite_received = torch.empty((), dtype=torch.bool, pin_memory=True)
        self.restored = torch.empty(shape, dtype=torch.uint8, device=device)
        self.finite = torch.empty((), dtype=torch.bool, device=device)
        self.uploaded, self.computed = torch.cuda.Event(), torch.cuda.Event()
        self.downloaded = torch.cuda.Event(blocking=True)  # the host sleeps while it waits
        # None: it has run eagerly once, so cuDNN has chosen its algorithms.
        self.graphs: dict[Key, torch.cuda.CUDAGraph | None] = {}

    def fill(self, inputs: list[Input]) -> tuple[str, ...]:
        """Write ``inputs`` into the page-locked memory; return the names of what must be sent."""
        names = ['pixels']
        befores = [one.before for one in inputs if one.before is not None]
        if befores:
            names += ALIGNED
        if any(before.blurring is not None for before in befores):
            names += BLURRED
        for place, one in enumerate(inputs):
            known = {'pixels': one.frame, 'before': one.frame}
            if one.before is not None:
                known |= one.before.planes()
                if one.before.pixels is not None:
                    known['before'] = one.before.pixels
            for name in names:
                self.sent[name][place].numpy()[:] = known.get(name, 0)
        return tuple(names)


class CudaEngine:
    """See ``Engine``. It keeps several batches in flight on one device."""

    in_flight = 2  # one is computed while the next is sent and the previous one received

    def __init__(self, device: torch.device, batch: int, tiling: Tiling) -> None:
        """``batch`` 0 means ``BATCH``. A slot holds a batch, or as much as ``tiling`` allows."""
        self.batch = batch or BATCH
        torch.backends.cudnn.benchmark = True  # there are few sizes, and each is used often
        self._device = device
        self._tiling = tiling
        self._upload, self._compute, self._download = (
            torch.cuda.Stream(device) for _ in range(3)
        )
        # The weights of the generators are still being copied to the device.
        self._compute.wait_stream(torch.cuda.current_stream(device))
        self._idle: dict[tuple[int, int], list[Slot]] = {}
        self._idle_in_use = threading.Lock()
        self._receiving = Worker('receive')
        weakref.finalize(self, self._receiving.stop).atexit = False  # if nobody calls close
        self._pool = torch.cuda.graph_pool_handle()
        self.graphs = True  # until capturing one fails

    def submit(self, inputs: list[Input], generator: Generator) -> Future[list[np.ndarray]]:
        """See ``Engine``. The previous frames are warped onto the frames on the device."""
        if inputs[0].window is not None:  # its evidence needs the whole frame
            return begin(restore_inputs, inputs, generator, self._device)
        try:
            slot = self._send(inputs, generator)
        except (RuntimeError, MemoryError) as error:
            failed: Future[list[np.ndarray]] = Future()
            failed.set_exception(error)
            return failed
        return self._receiving.begin(self._receive, slot, inputs[0].size, len(inputs))

    def close(self) -> None:
        """See ``Engine``."""
        self._receiving.stop()
        for stream in (self._upload, self._compute, self._download):
            stream.synchronize()
        self._idle.clear()
        torch.cuda.empty_cache()

    def _send(self, inputs: list[Input], generator: Generator) -> Slot:
        """Start to restore frames with ``generator``; return the slot that receives the result."""
        size, count = inputs[0].size, len(inputs)
        together = min(self.batch, self._tiling.together(*size))
        slot = self._take(size, max(together, count))
        names = slot.fill(inputs)
        with torch.cuda.stream(self._upload):
            for name in names:
                slot.there[name][:count].copy_(slot.sent[name][:count], non_blocking=True)
            slot.uploaded.record()
        with torch.cuda.stream(self._compute):
            self._compute.wait_event(slot.uploaded)
            self._run(slot, (generator, count, names))
            slot.computed.record()
        with torch.cuda.stream(self._download):
            self._download.wait_event(slot.computed)
            slot.received[:count].copy_(slot.restored[:count], non_blocking=True)
            slot.finite_received.copy_(slot.finite, non_blocking=True)
            slot.downloaded.record()
        return slot

    def _receive(self, slot: Slot, size: tuple[int, int], count: int) -> list[np.ndarray]:
        """Wait for the frames of a slot, and make it idle. Runs in the receiving thread."""
        slot.downloaded.synchronize()
        restored, finite = slot.received[:count].numpy().copy(), bool(slot.finite_received)
        with self._idle_in_use:
            self._idle.setdefault(size, []).append(slot)
        return checked(restored, finite)

    def _take(self, size: tuple[int, int], together: int) -> Slot:
        """Return an idle or a new slot; keep ``KEPT_SIZES`` sizes, the most recently used."""
        with self._idle_in_use:
            idle = self._idle.pop(size, [])
            self._idle[size] = idle  # moves it to the end: the most recently used
            while len(self._idle) > KEPT_SIZES:
                self._idle.pop(next(iter(self._idle)))
            if idle:
                return idle.pop()
        # Allocate on the computing stream, like all memory of the generator. Memory that was freed
        # there may still be in use, so the upload has to wait for that stream once.
        with torch.cuda.stream(self._compute):
            slot = Slot(together, size, self._device)
        self._upload.wait_stream(self._compute)
        return slot

    def _run(self, slot: Slot, key: Key) -> None:
        """Restore the first frames of the slot: eagerly the first time, then by a CUDA graph."""
        if self.graphs and key in slot.graphs:
            try:
                graph = slot.graphs[key] or self._capture(slot, key)
            except RuntimeError:  # run eagerly from now on: slower, but correct
                self.graphs = False
            else:
                slot.graphs[key] = graph
                graph.replay()
                return
        _restore(slot, key)
        slot.graphs[key] = None

    def _capture(self, slot: Slot, key: Key) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # With 'thread_local', another thread may load a model meanwhile; only this thread must do
        # nothing else. The graphs share a pool, because they run one after another on one stream.
        graph.capture_begin(pool=self._pool, capture_error_mode='thread_local')
        try:
            _restore(slot, key)
        finally:
            graph.capture_end()
        return graph


@torch.inference_mode()
def _restore(slot: Slot, key: Key) -> None:
    generator, count, names = key
    # The shape has the channels first. In memory they stay last.
    planes = {name: slot.there[name][:count].permute(0, 3, 1, 2) for name in names}
    evidence = None
    if 'before' in names and generator.fusion is not None:
        evidence = make_evidence(
            to_image(planes['pixels']), to_image(planes['before']),
            planes['displacement'], planes['trust'],
            (planes['motion'], planes['path'], planes['told']) if 'path' in names else None,
        )
    restored, finite = restore_pixels(planes['pixels'], generator, evidence)
    slot.restored[:count].copy_(restored)
    slot.finite.copy_(finite)
