"""
The public interface: one class that restores frames with the generators.

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
    Restores frames. The generators of all its tasks stay loaded.

    For a task that ``clears``, ``clearer`` first removes the veil, and drops and dirt on the glass.
    If ``clearer`` is None, nothing is removed first.

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
        Load the weights, and choose the device and the precision. This takes about a second.

        ``tasks``: the tasks to load. If it is empty, all tasks with given or shipped weights.
        ``weights``: weight files that replace the shipped ones, by task, or by finder: ``veil``, or
        ``glass`` for drops and dirt.
        ``find``: the finders to load. What has no finder here is not looked for.
        ``device``: auto, cpu, cuda or cuda:N.
        ``precision``: auto (measures which is the fastest here), float32, float16, bfloat16, or
        int8 on a CPU with VNNI (for the residual blocks; the rest is float32).
        ``batch``: the most frames that are computed together; 0 chooses a number for the device.

        Raises ``WeightsError`` for a weight file that cannot be used, and ``ValueError`` for any
        other wrong argument.
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
        for task in tasks or TASKS:  # if there are no weights at all, the first task raises
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
        Make a restorer from loaded ``generators``, by task, on their device.

        All of them have one model, float32 weights, and are in evaluation mode. They are copied.
        ``info``, ``weights`` and ``sha256`` are empty, as there are no files.
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
        """Prepare ``generators`` for restoring; see ``__init__`` for the arguments."""
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
        Restore ``frames``: uint8, H x W x 3, RGB, each of any size.

        ``task`` is one of ``TASKS``. ``befores`` holds the previous frame of each frame, of the
        same size, as its ``History`` returns it. Without ``befores`` the frames are stills.

        Returns new arrays of the same shapes, in the same order. The input does not change. Frames
        of one size are computed together, ``batch`` at a time. A frame that does not fit in memory
        is computed in tiles, with the same result.

        Raises ``ValueError`` for a wrong frame or task, and ``RestoreError`` if the device fails or
        the output of the network is not finite.
        """
        return self.start(frames, task, befores).result()

    def start(
        self, frames: Sequence[np.ndarray], task: str,
        befores: Sequence[Before | None] | None = None,
    ) -> 'Restoring':
        """
        Start to restore ``frames`` as ``restore`` does, and return at once.

        The device works while the caller continues. Up to ``in_flight`` such calls overlap.
        ``Restoring.result`` raises the errors of the device.
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
        """Return the name of the GPU, or 'CPU' without one."""
        return torch.cuda.get_device_name(self.device) if self.device.type == 'cuda' else 'CPU'

    def device_memory(self) -> int | None:
        """Return the bytes that tensors of this process hold on the GPU; None on the CPU."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == 'cuda' else None

    def graphs(self) -> bool:
        """Return whether passes run as CUDA graphs."""
        return self._engine.graphs

    def close(self) -> None:
        """Free the memory of the generators. Do not use the object afterwards."""
        self._generators.clear()
        self._engine.close()

    def _clear(self, frame: np.ndarray, task: str, before: Before | None) -> np.ndarray:
        """Return ``frame`` without the veil, and without drops and dirt: the generator's input."""
        if before is not None and before.clear is not None:  # its history has already cleared it
            return before.clear
        if not TASKS[task].clears or self.clearer is None:
            return frame
        return self.clearer.still(frame)


class Restoring:
    """Frames whose restoration has started."""

    def __init__(self, chunks: list[tuple[list[int], Passes]]) -> None:
        """Take the passes, each with the places of its frames in the result."""
        self._chunks = chunks

    def result(self) -> list[np.ndarray]:
        """Wait for the restored frames; raises ``RestoreError``. Call it once."""
        restored: dict[int, np.ndarray] = {}
        failed: RestoreError | None = None
        for indices, passes in self._chunks:  # wait for all, so that no pass stays in flight
            try:
                restored.update(zip(indices, passes.result(), strict=True))
            except RestoreError as error:
                failed = error
        if failed is not None:
            raise failed
        return [restored[index] for index in range(len(restored))]
