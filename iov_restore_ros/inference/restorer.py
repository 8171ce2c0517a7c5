"""
The one class that users of the generators meet.

    from iov_restore_ros.inference import Restorer
    restorer = Restorer()
    [restored] = restorer.restore([frame], 'deblur')
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iov_restore_ros.inference.tiling import Tiling
from iov_restore_ros.model import TASKS, Generator, WeightsInfo, load_weights, shipped_weights
from iov_restore_ros.model.device import fastest_dtype, pick_device

PRECISIONS = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
CUDA_BATCH = 8
KEPT_BUFFERS = 8  # shapes whose page-locked buffers are kept


class RestoreError(Exception):
    """Frames that could not be restored, with the reason."""


class Restorer:
    """
    Restores frames with the generators of both tasks, which stay loaded side by side.

    Not thread-safe: use one per thread, or a lock.
    """

    def __init__(
        self,
        model: str = 'fast',
        weights: Mapping[str, Path | str] | None = None,
        device: str = 'auto',
        precision: str = 'auto',
        tasks: Sequence[str] = TASKS,
    ) -> None:
        """
        Load the weights for ``tasks`` and choose device and precision; takes about a second.

        ``weights`` gives the file of a task where the shipped one is not wanted. ``device`` is
        auto, cpu, cuda or cuda:N. ``precision`` is auto (what is faster here, by measuring),
        float32 or bfloat16. Raises ``WeightsError`` for a weight file that cannot be used and
        ``ValueError`` for another wrong argument.
        """
        if precision != 'auto' and precision not in PRECISIONS:
            raise ValueError(f'unknown precision {precision!r}: auto, {", ".join(PRECISIONS)}')
        self.model = model
        self.device = pick_device(device)
        self.info: dict[str, WeightsInfo] = {}
        self.weights: dict[str, Path] = {}
        self.sha256: dict[str, str] = {}
        self._generators: dict[str, Generator] = {}
        for task in tasks:
            path = Path((weights or {}).get(task) or shipped_weights(model, task))
            self._generators[task], self.info[task] = load_weights(path, task, model)
            self.weights[task] = path
            self.sha256[task] = hashlib.sha256(path.read_bytes()).hexdigest()
        if precision == 'auto':
            dtype = fastest_dtype(next(iter(self._generators.values())), self.device)
        else:
            dtype = PRECISIONS[precision]
        self.precision = str(dtype).removeprefix('torch.')
        for generator in self._generators.values():
            generator.to(self.device, dtype)
            generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # On the CPU a batch takes as long as its frames one by one, and the first waits for all.
        self.batch = CUDA_BATCH if self.device.type == 'cuda' else 1
        self.tiling = Tiling(model, self.device)
        self._stream = torch.cuda.Stream(self.device) if self.device.type == 'cuda' else None
        self._buffers: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def restore(self, frames: Sequence[np.ndarray], task: str) -> list[np.ndarray]:
        """
        Restore ``frames``: uint8, H x W x 3, RGB, each of any size; ``task`` is deblur or derain.

        Returns new arrays of the same shapes in the same order; nothing of the input is changed.
        Frames of one size are computed together, ``batch`` at a time; what is beyond memory in
        tiles, with the same result. Raises ``ValueError`` for something that is not such a frame or
        task, and ``RestoreError`` when the device fails or the network's output is not finite.
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
        restored: dict[int, np.ndarray] = {}
        for indices in by_shape.values():
            for start in range(0, len(indices), self.batch):
                chunk = indices[start : start + self.batch]
                outputs = self._run([frames[i] for i in chunk], self._generators[task])
                restored.update(zip(chunk, outputs, strict=True))
        return [restored[index] for index in range(len(frames))]

    def device_name(self) -> str:
        """Return the name of the GPU; 'CPU' without one."""
        return torch.cuda.get_device_name(self.device) if self.device.type == 'cuda' else 'CPU'

    def device_memory(self) -> int | None:
        """Return the bytes that tensors of this process hold on the GPU; None on the CPU."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == 'cuda' else None

    def close(self) -> None:
        """Give the memory of the generators back; the object is of no use afterwards."""
        self._generators.clear()
        self._buffers.clear()
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()

    def _run(self, frames: list[np.ndarray], generator: Generator) -> list[np.ndarray]:
        """Restore frames of one size, in as many passes as memory wants."""
        try:
            return self.tiling.run(frames, partial(self._pass, generator))
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            raise RestoreError(f'{self.device} failed: {error}') from error

    @torch.inference_mode()
    def _pass(self, generator: Generator, frames: list[np.ndarray]) -> list[np.ndarray]:
        """Restore frames of one size in one pass."""
        if self._stream is None:
            pixels, finite = _restore_pixels(torch.from_numpy(np.stack(frames)), generator)
            restored = pixels.numpy()
        else:
            with torch.cuda.stream(self._stream):
                restored, finite = self._run_on_cuda(frames, generator, self._stream)
        if not finite:
            raise RestoreError('the output of the network is not finite')
        return list(restored)

    def _run_on_cuda(
        self, frames: list[np.ndarray], generator: Generator, stream: torch.cuda.Stream
    ) -> tuple[np.ndarray, Tensor]:
        """Copy in, compute and copy out on the stream of our own, through page-locked memory."""
        shape = (len(frames), *frames[0].shape)
        if shape not in self._buffers:
            while len(self._buffers) >= KEPT_BUFFERS:
                self._buffers.pop(next(iter(self._buffers)))
            sent, received = (torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in '12')
            self._buffers[shape] = sent, received
        sent, received = self._buffers[shape]
        np.stack(frames, out=sent.numpy())
        pixels = sent.to(self.device, non_blocking=True)
        pixels, finite = _restore_pixels(pixels, generator)
        received.copy_(pixels, non_blocking=True)
        stream.synchronize()
        return received.numpy().copy(), finite


def _restore_pixels(pixels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """
    Map uint8 N x H x W x 3 to the same, on the device: only uint8 crosses the bus.

    Returns with it whether the output was finite, as a tensor, so that nothing waits for it here.
    """
    # A permuted N x H x W x 3 is channels_last as it lies; the conversion keeps that.
    image = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)
    restored = generator(image)
    finite = torch.isfinite(restored.sum())
    restored = restored.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return restored.permute(0, 2, 3, 1).contiguous(), finite
