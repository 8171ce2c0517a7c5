"""
Write a generator as ONNX, checked against PyTorch; docs/export.md says what it is good for.

    python -m iov_restore_ros.tools.export --task deblur --output deblur.onnx
"""

import argparse
import hashlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage import data as photographs
from torch import Tensor, nn
from torch.nn import functional

from iov_restore_ros import __version__
from iov_restore_ros.model import (
    PRESETS,
    TASKS,
    Generator,
    WeightsError,
    WeightsInfo,
    load_weights,
    shipped_weights,
)
from iov_restore_ros.model.generators import SIZE_MULTIPLE

OPSET = 18
# Batch, height and width of what is compared; most are no multiples of 4.
CHECKED = ((1, 360, 640), (2, 250, 367), (3, 64, 97), (1, 3, 2))
TOLERANCE = {'float32': 1e-4, 'uint8': 1}  # of 0..1; grey levels, for values half between two
FORMATS = {
    'float32': 'float32, batch x 3 x height x width, RGB, 0..1',
    'uint8': 'uint8, batch x height x width x 3, RGB',
}


class ExportError(Exception):
    """An ONNX file that does not do what PyTorch does."""


class Exported(nn.Module):
    """What is exported: the generator without branches on the image's size, and clamped."""

    def __init__(self, generator: Generator, dtype: str) -> None:
        """Wrap ``generator`` (evaluation mode) for images of ``dtype``, a key of ``FORMATS``."""
        super().__init__()
        self.body = generator.body
        self.dtype = dtype

    def forward(self, image: Tensor) -> Tensor:
        """Map images in the format of ``dtype`` to restored ones in the same."""
        if self.dtype == 'uint8':
            image = image.permute(0, 3, 1, 2).to(torch.float32) / 255
        height, width = image.shape[-2:]
        pads = (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE)
        padded = functional.pad(image, pads, mode='replicate')
        restored = (image + self.body(padded - 0.5)[..., :height, :width]).clamp(0, 1)
        if self.dtype == 'uint8':
            return (restored * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return restored


def export(path: Path, generator: Generator, dtype: str, description: dict[str, str]) -> float:
    """
    Write ``generator`` (evaluation mode, CPU, float32) to ``path`` as ONNX.

    Input ``image`` and output ``restored`` are in the format ``FORMATS[dtype]``, of any batch,
    height and width; ``description`` goes into the file's metadata. Returns the largest difference
    from PyTorch. Raises ``ExportError``, leaving no file, if it is above ``TOLERANCE[dtype]``.
    """
    import onnxruntime

    module = Exported(generator, dtype)
    rows, columns = (2, 3) if dtype == 'float32' else (1, 2)
    example = next(pictures(((2, 45, 63),), dtype))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        logging.getLogger('torch.onnx').setLevel(logging.ERROR)  # it misses torchvision
        program = torch.onnx.export(
            module, (torch.from_numpy(example),), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=['image'], output_names=['restored'],
            dynamic_shapes={'image': {0: 'batch', rows: 'height', columns: 'width'}},
        )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # paths of this machine
    program.model.doc_string = f'image, restored: {FORMATS[dtype]}'
    program.model.metadata_props.update(description)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + '.part')
    try:
        program.save(partial, external_data=False)
        session = onnxruntime.InferenceSession(partial, providers=['CPUExecutionProvider'])
        differences = []
        for image in pictures(CHECKED, dtype):
            with torch.inference_mode():
                expected = original(generator, torch.from_numpy(image), dtype).numpy()
            [restored] = session.run(None, {'image': image})
            differences.append(np.abs(restored.astype(np.float64) - expected).max())
        largest = float(np.max(differences))
        if not largest <= TOLERANCE[dtype]:
            raise ExportError(f'{path}: not written, it differs from PyTorch by {largest:.2g}')
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return largest


def original(generator: Generator, image: Tensor, dtype: str) -> Tensor:
    """Restore ``image`` with the generator as it is, not as it is exported."""
    if dtype == 'float32':
        return generator(image).clamp(0, 1)
    restored = generator(image.permute(0, 3, 1, 2) / 255).clamp(0, 1)
    return restored.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)


def pictures(sizes: tuple[tuple[int, int, int], ...], dtype: str) -> Iterator[np.ndarray]:
    """Yield photographs in batches of the (batch, height, width) given, in ``dtype``'s format."""
    photos = [photographs.coffee(), photographs.astronaut(), photographs.chelsea()]
    for batch, height, width in sizes:
        images = np.stack([
            cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
            for photo in photos[:batch]
        ])
        if dtype == 'float32':
            images = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        yield np.ascontiguousarray(images)


def describe(info: WeightsInfo, weights: Path, dtype: str) -> dict[str, str]:
    """Return the metadata of the ONNX file: what it holds and where that comes from."""
    return {
        'model': info.preset,
        'task': info.task,
        'weights sha256': hashlib.sha256(weights.read_bytes()).hexdigest(),
        'weights commit': info.commit,
        'weights trained_on': info.trained_on,
        'iov_restore': __version__,
        'image': FORMATS[dtype],
        'restored': FORMATS[dtype],
    }


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description='Write a generator as ONNX.')
    parser.add_argument('--task', choices=TASKS, required=True)
    parser.add_argument('--output', type=Path, required=True, help='the .onnx file')
    parser.add_argument('--model', choices=PRESETS, default='fast')
    parser.add_argument('--weights', type=Path, help='a .safetensors file (default: the shipped)')
    parser.add_argument('--uint8', action='store_true', help='frames as cameras give them: ' +
                        f'{FORMATS["uint8"]} (default: {FORMATS["float32"]})')
    options = parser.parse_args()
    dtype = 'uint8' if options.uint8 else 'float32'
    try:
        weights = options.weights or shipped_weights(options.model, options.task)
        generator, info = load_weights(weights, options.task, options.model)
        largest = export(options.output, generator, dtype, describe(info, weights, dtype))
    except WeightsError as error:
        parser.error(str(error))
    except ImportError as error:
        parser.error(f'{error}: pip install onnx onnxruntime onnxscript')
    except (ExportError, OSError) as error:
        print(f'failed: {error}', file=sys.stderr)
        return 1
    unit = 'of 0..1' if dtype == 'float32' else 'grey levels'
    print(f'{options.output}: image, restored: {FORMATS[dtype]}')
    print(f'largest difference from PyTorch, in {len(CHECKED)} sizes: {largest:.2g} {unit}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
