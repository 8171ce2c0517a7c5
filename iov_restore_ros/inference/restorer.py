"""
The one class that users of the generators meet.

    from iov_restore_ros.inference import Restorer
    restorer = Restorer()
    [restored] = restorer.restore([frame], 'deblur')
"""

import copy
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from iov_restore_ros.inference.cuda import CudaPipeline
from iov_restore_ros.inference.pixels import Window, gather, restore_gathered
from iov_restore_ros.inference.tiling import Tiling
from iov_restore_ros.model import (
    FINDERS,
    PRESETS,
    Generator,
    WeightsInfo,
    finder_weights,
    load_weights,
    shipped_tasks,
    shipped_weights,
)
from iov_restore_ros.model.cpu import begin, compute
from iov_restore_ros.model.device import fastest_precision, pick_device
from iov_restore_ros.model.int8 import int8_is_exact, to_int8
from iov_restore_ros.model.phase_convolution import fold_upsampling
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.video.before import Before
from iov_restore_ros.video.clear import Clearer, load_clearer

PRECISIONS = ('float32', 'float16', 'bfloat16', 'int8')
CUDA_BATCH = 8
CUDA_IN_FLIGHT = 2  # one batch is computed while the next is sent and the one before received
Pass = Callable[[], tuple[np.ndarray, bool]]  # waits for pixels, and whether they are finite
Finish = Callable[[], list[np.ndarray]]  # waits for restored frames
Input = tuple[np.ndarray, Before | None]  # a frame, and the one before it
FAILURES = RuntimeError, MemoryError  # of a device, and of the memory before it


class RestoreError(Exception):
    """Frames that could not be restored, with the reason."""


class Restorer:
    """
    Restores frames with the generators of all tasks, which stay loaded side by side.

    For a task that ``clears`` a veil and what lies on the glass are taken off them first, by
    ``clearer``, unless that is None.

    Not thread-safe: use one per thread, or a lock.
    """

    def __init__(
        self,
        model: str = 'fast',
        weights: Mapping[str, Path | str] | None = None,
        device: str = 'auto',
        precision: str = 'auto',
        tasks: Collection[str] = (),
        batch: int = 0,
        find: Collection[str] = tuple(FINDERS),
    ) -> None:
        """
        Load the weights for ``tasks`` and choose device and precision; takes about a second.

        Without ``tasks`` all are loaded that have weights, given here or shipped.

        ``weights`` gives the file of a task, or of what finds a veil (``veil``) or drops and dirt
        (``glass``), where the shipped one is not wanted. What is not in ``find`` isn't looked for.
        ``device`` is auto, cpu, cuda or cuda:N.
        ``precision`` is auto (the fastest here, by measuring), float32, float16, bfloat16, or int8
        on a CPU with VNNI (the residual blocks; the rest is float32). ``batch`` is how many
        frames are computed together at most; 0 means what suits the device.
        Raises ``WeightsError`` for a weight file that cannot be used and ``ValueError`` for another
        wrong argument.
        """
        if precision != 'auto' and precision not in PRECISIONS:
            raise ValueError(f'unknown precision {precision!r}: auto, {", ".join(PRECISIONS)}')
        self.info: dict[str, WeightsInfo] = {}
        self.weights: dict[str, Path] = {}
        self.sha256: dict[str, str] = {}
        where = pick_device(device)
        given = {name: path for name, path in (weights or {}).items() if path}
        tasks = tasks or [task for task in TASKS if task in (*given, *shipped_tasks(model))]
        generators: dict[str, Generator] = {}
        for task in tasks or TASKS:  # where there are no weights, the first task says so
            path = Path(given.get(task) or shipped_weights(model, task))
            generators[task], self.info[task] = compute(load_weights, path, task, model)
            self.weights[task] = path
            self.sha256[task] = hashlib.sha256(path.read_bytes()).hexdigest()
        self.clearer = None
        if any(TASKS[task].clears for task in tasks):
            files = {name: Path(given.get(name) or finder_weights(name)) for name in find}
            self.clearer = compute(load_clearer, files)
            for name, path in files.items():
                self.weights[name] = path
                self.sha256[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        self._take(model, generators, where, precision, batch)

    @classmethod
    def of(
        cls, generators: Mapping[str, Generator], precision: str = 'float32',
        clearer: Clearer | None = None,
    ) -> 'Restorer':
        """
        Return one of ``generators`` that are at hand, by their tasks, on their device.

        All of one model, of float32 weights, in evaluation mode; they are copied. ``info``,
        ``weights`` and ``sha256`` are empty, as there are no files.
        """
        restorer = cls.__new__(cls)
        restorer.info, restorer.weights, restorer.sha256 = {}, {}, {}
        restorer.clearer = clearer
        one = next(iter(generators.values()))
        device = next(one.parameters()).device
        restorer._take(one.preset, copy.deepcopy(dict(generators)), device, precision, 0)
        return restorer

    def _take(
        self, model: str, generators: dict[str, Generator], device: torch.device, precision: str,
        batch: int,
    ) -> None:
        """Make ``generators`` ready to restore, see ``__init__``."""
        self.model = model
        self.uses_past = PRESETS[model].evidence
        self.device = device
        self._generators = generators
        for generator in generators.values():
            generator.body = compute(fold_upsampling, generator.body)
        if precision == 'auto':
            one = next(iter(self._generators.values()))
            precision = compute(fastest_precision, one, self.device)
        self.precision = precision
        for generator in self._generators.values():
            compute(self._prepare, generator)
        on_cuda = self.device.type == 'cuda'
        # On the CPU a batch takes as long as its frames one by one, and the first waits for all.
        self.batch = batch or (CUDA_BATCH if on_cuda else 1)
        self.in_flight = CUDA_IN_FLIGHT if on_cuda else 1
        self.tiling = Tiling(model, self.device)
        self._pipeline = CudaPipeline(self.device) if on_cuda else None

    def restore(
        self, frames: Sequence[np.ndarray], task: str,
        befores: Sequence[Before | None] | None = None,
    ) -> list[np.ndarray]:
        """
        Restore ``frames``: uint8, H x W x 3, RGB, each of any size; ``task``: of ``TASKS``.

        ``befores`` are the frames before them, of their sizes, as each one's ``History`` has them;
        without, they are stills. Returns new arrays of the same shapes in the same order; nothing
        of the input is changed. Frames of one size are computed together, ``batch`` at a time; what
        is beyond memory in tiles, with the same result. Raises ``ValueError`` for something that is
        not such a frame or task, and ``RestoreError`` when the device fails or the network's output
        is not finite.
        """
        return self.start(frames, task, befores).result()

    def start(
        self, frames: Sequence[np.ndarray], task: str,
        befores: Sequence[Before | None] | None = None,
    ) -> 'Restoring':
        """
        Begin to restore ``frames`` as ``restore`` does; raises what it raises.

        The device works on them while the caller goes on, and up to ``in_flight`` such calls
        overlap.
        """
        if task not in self._generators:
            raise ValueError(f'unknown task {task!r}: {", ".join(self._generators)} are loaded')
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, frame in enumerate(frames):
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
                raise ValueError(
                    f'frame {index} is {frame.dtype} {frame.shape}: '
                    'wanted is uint8 (height, width, 3), RGB, not empty'
                )
            by_shape.setdefault(frame.shape, []).append(index)
        inputs = [
            (self._clear(frame, task, before), before)
            for frame, before in zip(frames, befores or [None] * len(frames), strict=True)
        ]
        restoring = Restoring()
        for indices in by_shape.values():
            for start in range(0, len(indices), self.batch):
                chunk = indices[start : start + self.batch]
                finish = self._start([inputs[i] for i in chunk], self._generators[task])
                restoring.add(chunk, finish)
        return restoring

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks whose generators are loaded."""
        return tuple(self._generators)

    def device_name(self) -> str:
        """Return the name of the GPU; 'CPU' without one."""
        return torch.cuda.get_device_name(self.device) if self.device.type == 'cuda' else 'CPU'

    def device_memory(self) -> int | None:
        """Return the bytes that tensors of this process hold on the GPU; None on the CPU."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == 'cuda' else None

    def graphs(self) -> bool:
        """Return whether passes run as CUDA graphs."""
        return self._pipeline is not None and self._pipeline.graphs

    def close(self) -> None:
        """Give the memory of the generators back; the object is of no use afterwards."""
        self._generators.clear()
        if self._pipeline is not None:
            self._pipeline.close()
            torch.cuda.empty_cache()

    def _clear(self, frame: np.ndarray, task: str, before: Before | None) -> np.ndarray:
        """Return what is to be restored: ``frame`` without what is taken off before."""
        if before is not None and before.clear is not None:  # its history has done it
            return before.clear
        if not TASKS[task].clears or self.clearer is None:
            return frame
        return self.clearer.still(frame)

    def _prepare(self, generator: Generator) -> None:
        """Put ``generator`` on the device in the precision that was chosen."""
        dtype = torch.float32 if self.precision == 'int8' else getattr(torch, self.precision)
        generator.to(self.device, dtype)
        generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.precision == 'int8':
            if self.device.type != 'cpu' or not int8_is_exact():
                raise ValueError('precision int8 needs device cpu, and a processor with VNNI')
            generator.body = to_int8(generator.body)

    def _start(self, inputs: list[Input], generator: Generator) -> Finish:
        """Begin to restore frames of one size, if they fit in one pass; else ``Finish`` does it."""
        begun = None
        if len(inputs) <= self.tiling.together(*inputs[0][0].shape[:2]):
            try:
                begun = self._pass(inputs, generator)
            except torch.OutOfMemoryError:
                pass  # in smaller passes then
            except FAILURES as error:
                raise self._failed(error) from error
        return partial(self._finish, inputs, generator, begun)

    def _finish(
        self, inputs: list[Input], generator: Generator, begun: Pass | None
    ) -> list[np.ndarray]:
        """Wait for the pass that has begun; without one, restore ``inputs`` as memory allows."""
        try:
            if begun is not None:
                try:
                    return _finite(begun)
                except torch.OutOfMemoryError:
                    pass
            return self.tiling.run(
                inputs, inputs[0][0].shape[:2],
                lambda part: _finite(self._pass(part, generator)),
                lambda one: self._cut(one, generator),
            )
        except FAILURES as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> RestoreError:
        reason = 'not enough memory, ' if isinstance(error, MemoryError) else ''
        return RestoreError(f'{self.device} failed: {reason}{error}')

    def _pass(self, inputs: list[Input], generator: Generator) -> Pass:
        """Begin to restore frames of one size in one pass."""
        if self._pipeline is not None:
            together = min(self.batch, self.tiling.together(*inputs[0][0].shape[:2]))
            return self._pipeline.start(inputs, generator, together)
        gathered = [gather(frame, before) for frame, before in inputs]
        return begin(restore_gathered, gathered, generator, self.device).result

    def _cut(self, one: Input, generator: Generator) -> Callable[[Window], np.ndarray]:
        """Return what restores a window of a frame that is too large for one pass."""
        whole = gather(*one)

        def restore(window: Window) -> np.ndarray:
            part = [whole.cut(window)]
            return _finite(partial(compute, restore_gathered, part, generator, self.device))[0]

        return restore


class Restoring:
    """Frames that are being restored."""

    def __init__(self) -> None:
        self._chunks: list[tuple[list[int], Finish]] = []

    def add(self, indices: list[int], finish: Finish) -> None:
        """Add those that ``finish`` returns, and their places in the result."""
        self._chunks.append((indices, finish))

    def result(self) -> list[np.ndarray]:
        """Wait for the restored frames; raises ``RestoreError``. Call it once."""
        restored: dict[int, np.ndarray] = {}
        failed: RestoreError | None = None
        for indices, finish in self._chunks:  # all of them, so that nothing is left on its way
            try:
                restored.update(zip(indices, finish(), strict=True))
            except RestoreError as error:
                failed = error
        if failed is not None:
            raise failed
        return [restored[index] for index in range(len(restored))]


def _finite(begun: Pass) -> list[np.ndarray]:
    pixels, finite = begun()
    if not finite:
        raise RestoreError('the output of the network is not finite')
    return list(pixels)
