"""
Time per frame on the CPU of PyTorch, onnxruntime and OpenVINO: python benchmarks/backends.py

Needs `pip install onnx onnxruntime onnxscript openvino` and, for torch.compile, a C++ compiler.
All but one line compute in float32, from uint8 frames to uint8 frames, with the same number of
threads, in turn in every round; the ratio is to the first line, so above 1 is faster. The
difference is to it as well, on photographs, in grey levels. Not a test: nothing fails here.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
from common import machine
from rich.console import Console
from rich.table import Table

from iov_restore_ros.compute.cpu import compute
from iov_restore_ros.inference import Restorer
from iov_restore_ros.model import load_weights, shipped_weights
from iov_restore_ros.model.fusion import CUES
from iov_restore_ros.tools.export import Exported, export, inputs_of, photos, still

Run = Callable[[np.ndarray], np.ndarray]  # uint8, 1 x H x W x 3


def backends(height: int, width: int, threads: int, folder: Path) -> dict[str, Run]:
    """Return what is compared, all of it the shipped `fast` for deblurring."""
    generator, _ = load_weights(shipped_weights('fast', 'deblur'))
    path = folder / 'fast.onnx'
    export(path, generator, 'uint8', {})

    restorer, int8 = (
        Restorer(device='cpu', precision=name, tasks=['deblur']) for name in ('float32', 'int8'))
    module = Exported(generator.to(memory_format=torch.channels_last), 'uint8')
    compiled = torch.compile(module, dynamic=False)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])

    core = openvino.Core()
    model = core.read_model(path)
    sides = height, width
    model.reshape({
        'image': [1, *sides, 3], 'before': [1, *sides, 3],
        'undone': [1, 3, *sides], 'cues': [1, CUES, *sides],
    })
    openvino_model = core.compile_model(model, 'CPU', {
        'INFERENCE_NUM_THREADS': threads, 'PERFORMANCE_HINT': 'LATENCY',
        'INFERENCE_PRECISION_HINT': 'f32',
    })

    def inputs(image: np.ndarray) -> dict[str, np.ndarray]:
        return inputs_of([still(image[0])], 'uint8', True)

    def tensors(image: np.ndarray) -> list[torch.Tensor]:
        return [torch.from_numpy(one) for one in inputs(image).values()]

    return {
        'Restorer': lambda image: restorer.restore([image[0]], 'deblur')[0][None],
        'Restorer, int8': lambda image: int8.restore([image[0]], 'deblur')[0][None],
        'PyTorch eager, channels_last': lambda image: module(*tensors(image)).numpy(),
        'torch.compile, channels_last': lambda image: compiled(*tensors(image)).numpy(),
        f'onnxruntime {onnxruntime.__version__}': lambda image: session.run(
            None, inputs(image)
        )[0],
        f'OpenVINO {openvino.__version__.partition("-")[0]}': lambda image: openvino_model(
            inputs(image)
        )[0],
    }


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description='Time per frame of inference libraries.')
    parser.add_argument('--size', type=int, nargs=2, default=(640, 360), help='width, height')
    parser.add_argument('--threads', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    width, height = options.size
    frames = [photo[None] for photo in photos(3, height, width)]
    with tempfile.TemporaryDirectory() as folder:
        runs = backends(height, width, options.threads, Path(folder))
    names = list(runs)
    differences = dict.fromkeys(names, 0)
    for frame in frames:  # also warms up
        expected = runs[names[0]](frame).astype(int)
        for name in names:
            off = int(np.abs(runs[name](frame) - expected).max())
            differences[name] = max(differences[name], off)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names:
            started = time.perf_counter()
            runs[name](frames[number % len(frames)])
            times[name].append((time.perf_counter() - started) * 1000)
    table = Table(
        title=f'{machine(torch.device("cpu"))}, {options.threads} threads, fast {width}x{height}'
    )
    for heading in ('', 'ms', 'quartiles', 'faster by', 'largest difference'):
        table.add_column(heading, justify='right' if heading else 'left')
    for name in names:
        low, middle, high = statistics.quantiles(times[name], n=4, method='inclusive')
        ratio = statistics.median(
            first / own for first, own in zip(times[names[0]], times[name], strict=True)
        )
        table.add_row(
            name, f'{middle:.1f}', f'{low:.1f}..{high:.1f}', f'{ratio:.2f}', str(differences[name])
        )
    Console().print(table)


if __name__ == '__main__':
    compute(main)
