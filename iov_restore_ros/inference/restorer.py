"""
The one class that users of the generators meet.

    from iov_restore_ros.inference import Restorer
    restorer = Restorer()
    [restored] = restorer.restore([frame], 'deblur')
"""

import copy
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from iov_restore_ros.compute.cpu import compute, on_one_thread
from iov_restore_ros.compute.device import fastest_precision, pick_device
from iov_restore_ros.compute.phase_convolution import fold_upsampling
from iov_restore_ros.compute.precisions import PRECISIONS, prepare
from iov_restore_ros.inference.cpu_engine import CpuEngine
from iov_restore_ros.inference.cuda_engine import CudaEngine
from iov_restore_ros.inference.passes import Engine, Passes
from iov_restore_ros.inference.pixels import Input, RestoreError
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
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.video.before import Before
from iov_restore_ros.video.clear import Clearer, load_clearer


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

        Without ``tasks`` those for all tasks are loaded that there are any for, given or shipped.
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
            precision = compute(on_one_thread, fastest_precision, one, self.device)
        self.precision = precision
        for generator in self._generators.values():
            compute(prepare, generator, self.device, precision)
        self.tiling = Tiling(model, self.device)
        self._engine: Engine = (
            CudaEngine(device, batch, self.tiling) if device.type == 'cuda' else CpuEngine(batch)
        )
        self.batch, self.in_flight = self._engine.batch, self._engine.in_flight

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
        Begin to restore ``frames`` as ``restore`` does; what the device fails at comes at the end.

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
            Input(self._clear(frame, task, before), before)
            for frame, before in zip(frames, befores or [None] * len(frames), strict=True)
        ]
        chunks = [
            indices[start : start + self.batch] for indices in by_shape.values()
            for start in range(0, len(indices), self.batch)
        ]
        generator = self._generators[task]
        return Restoring([
            (chunk, Passes(self._engine, self.tiling, [inputs[i] for i in chunk], generator))
            for chunk in chunks
        ])

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
        return self._engine.graphs

    def close(self) -> None:
        """Give the memory of the generators back; the object is of no use afterwards."""
        self._generators.clear()
        self._engine.close()

    def _clear(self, frame: np.ndarray, task: str, before: Before | None) -> np.ndarray:
        """Return what is to be restored: ``frame`` without what is taken off before."""
        if before is not None and before.clear is not None:  # its history has done it
            return before.clear
        if not TASKS[task].clears or self.clearer is None:
            return frame
        return self.clearer.still(frame)


class Restoring:
    """Frames that are being restored."""

    def __init__(self, chunks: list[tuple[list[int], Passes]]) -> None:
        """Take what restores them, with their places in the result."""
        self._chunks = chunks

    def result(self) -> list[np.ndarray]:
        """Wait for the restored frames; raises ``RestoreError``. Call it once."""
        restored: dict[int, np.ndarray] = {}
        failed: RestoreError | None = None
        for indices, passes in self._chunks:  # all of them, so that nothing is left on its way
            try:
                restored.update(zip(indices, passes.result(), strict=True))
            except RestoreError as error:
                failed = error
        if failed is not None:
            raise failed
        return [restored[index] for index in range(len(restored))]
