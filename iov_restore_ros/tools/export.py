"""
Write a generator as ONNX, and check it against PyTorch; docs/export.md says how to use it.

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
from iov_restore_ros.inference import History
from iov_restore_ros.inference.pixels import Gathered, make_evidence
from iov_restore_ros.model import (
    PRESETS,
    Evidence,
    Generator,
    WeightsError,
    WeightsInfo,
    load_weights,
    shipped_weights,
)
from iov_restore_ros.model.fusion import CUES
from iov_restore_ros.model.generators import SIZE_MULTIPLE
from iov_restore_ros.outputs import OutputError, keep_apart
from iov_restore_ros.tasks import DEBLUR, TASKS
from iov_restore_ros.whole import whole

OPSET = 18
# Batch, height and width of the compared pictures; most are no multiples of 4.
CHECKED = ((1, 360, 640), (2, 250, 367), (3, 64, 97), (1, 3, 2))
TOLERANCE = {'float32': 1e-4, 'uint8': 1}  # of 0..1; grey levels, for values half between two
FORMATS = {
    'float32': 'float32, batch x 3 x height x width, RGB, 0..1',
    'uint8': 'uint8, batch x height x width x 3, RGB',
}


class ExportError(Exception):
    """The results of an ONNX file differ from those of PyTorch."""


class Exported(nn.Module):
    """The exported module: the generator, clamped, without branches on the image's size."""

    def __init__(self, generator: Generator, dtype: str) -> None:
        """Wrap ``generator`` (evaluation mode) for images of ``dtype``, a key of ``FORMATS``."""
        super().__init__()
        self.body = generator.body
        self.fusion = generator.fusion
        self.dtype = dtype

    def forward(
        self, image: Tensor, before: Tensor | None = None, undone: Tensor | None = None,
        cues: Tensor | None = None,
    ) -> Tensor:
        """
        Map images in the format of ``dtype`` to restored ones in the same format.

        With a fusion the other inputs are those of ``Evidence``. ``before`` has the format of
        ``dtype``. Each pixel of ``cues`` has the value of its cell, so that all inputs have the
        same height and width.
        """
        image = self._planes(image)
        height, width = image.shape[-2:]

        def pad(planes: Tensor) -> Tensor:
            pads = (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE)
            return functional.pad(planes, pads, mode='replicate')

        start = pad(image)
        seen = start - 0.5
        if self.fusion is not None:
            assert before is not None and undone is not None and cues is not None
            cells = pad(cues)[..., ::SIZE_MULTIPLE, ::SIZE_MULTIPLE]
            evidence = Evidence(pad(self._planes(before)), pad(undone), cells)
            start, seen = self.fusion(start, evidence)
        restored = (start + self.body(seen))[..., :height, :width].clamp(0, 1)
        if self.dtype == 'uint8':
            return (restored * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return restored

    def _planes(self, image: Tensor) -> Tensor:
        if self.dtype == 'uint8':
            return image.permute(0, 3, 1, 2).to(torch.float32) / 255
        return image


def export(path: Path, generator: Generator, dtype: str, description: dict[str, str]) -> float:
    """
    Write ``generator`` (evaluation mode, CPU, float32) to ``path`` as ONNX.

    Input ``image`` and output ``restored`` are in the format ``FORMATS[dtype]``, of any batch,
    height and width; the others are those of ``Exported``. ``description`` goes into the file's
    metadata. Returns the largest difference from PyTorch, for photographs and for a sequence.
    Raises ``ExportError``, leaving no file, if it is above ``TOLERANCE[dtype]``.
    """
    import onnxruntime

    module = Exported(generator, dtype)
    video = generator.fusion is not None
    example = inputs_of([still(photo) for photo in photos(2, 45, 63)], dtype, video)
    shapes = {
        name: {0: 'batch', **dict(zip(_sides(name, dtype), ('height', 'width'), strict=True))}
        for name in example
    }
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        logging.getLogger('torch.onnx').setLevel(logging.ERROR)  # warns of missing torchvision
        program = torch.onnx.export(
            module, tuple(map(torch.from_numpy, example.values())), dynamo=True,
            opset_version=OPSET, verbose=False, input_names=list(example),
            output_names=['restored'], dynamic_shapes=shapes,
        )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # paths of this machine
    program.model.doc_string = f'image, restored: {FORMATS[dtype]}'
    program.model.metadata_props.update(description)
    with whole(path) as partial:
        program.save(partial, external_data=False)
        session = onnxruntime.InferenceSession(partial, providers=['CPUExecutionProvider'])
        differences = []
        for gathered in checked(video):
            with torch.inference_mode():
                expected = original(generator, gathered, dtype)
            [restored] = session.run(None, inputs_of(gathered, dtype, video))
            differences.append(np.abs(restored.astype(np.float64) - expected).max())
        largest = float(np.max(differences))
        if not largest <= TOLERANCE[dtype]:
            raise ExportError(f'{path}: not written, it differs from PyTorch by {largest:.2g}')
    return largest


def check_replaceable(path: Path) -> None:
    """Raise ``OutputError`` if ``path`` exists and was not made by this command."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        return
    try:
        known = {entry.key for entry in onnx.load(path, load_external_data=False).metadata_props}
    except (DecodeError, ValueError):
        known = set()
    if 'iov_restore' not in known:
        raise OutputError(
            f'{path} exists, and export did not make it: move it away, or give another --output'
        )


def original(generator: Generator, gathered: list[Gathered], dtype: str) -> np.ndarray:
    """Restore frames with the original generator, not the exported module."""
    def batch(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(g, name) for g in gathered])).permute(0, 3, 1, 2)

    evidence = Evidence(batch('before') / 255, batch('undone'), batch('cues'))
    restored = generator(batch('frame') / 255, evidence).clamp(0, 1)
    if dtype == 'uint8':
        restored = restored.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return restored.numpy()


def inputs_of(gathered: list[Gathered], dtype: str, video: bool) -> dict[str, np.ndarray]:
    """Return the inputs of the exported file for frames of one size."""
    def pixels(name: str) -> np.ndarray:
        frames = np.stack([getattr(one, name) for one in gathered])
        if dtype == 'uint8':
            return frames
        planes = frames.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        return np.ascontiguousarray(planes)

    inputs = {'image': pixels('frame')}
    if video:
        height, width = gathered[0].frame.shape[:2]
        cues = np.stack([one.cues for one in gathered]).transpose(0, 3, 1, 2)
        cues = cues.repeat(SIZE_MULTIPLE, 2).repeat(SIZE_MULTIPLE, 3)[..., :height, :width]
        undone = np.stack([one.undone for one in gathered]).transpose(0, 3, 1, 2)
        inputs |= {
            'before': pixels('before'), 'undone': np.ascontiguousarray(undone),
            'cues': np.ascontiguousarray(cues),
        }
    return inputs


def _sides(name: str, dtype: str) -> tuple[int, int]:
    """Return the dimensions of an input that are height and width."""
    last = dtype == 'uint8' and name in ('image', 'before')
    return (1, 2) if last else (2, 3)


def still(frame: np.ndarray) -> Gathered:
    """Return a frame without side information."""
    return make_evidence(frame, None)


def checked(video: bool) -> Iterator[list[Gathered]]:
    """Yield stills in all compared sizes; with ``video`` also a sequence, frame by frame."""
    for size in CHECKED:
        yield [still(photo) for photo in photos(*size)]
    if not video:
        return
    [photo] = photos(1, 300, 400)
    history = History(shutter=0.5)
    for number in range(3):
        frame = np.ascontiguousarray(photo[4 * number :, 6 * number :][:250, :331])
        yield [make_evidence(frame, history.look_back(frame, number / 30, DEBLUR.name))]
        history.keep(frame, number / 30)


def photos(batch: int, height: int, width: int) -> list[np.ndarray]:
    """Return photographs, uint8 height x width x 3, RGB."""
    return [
        cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        for photo in (
            photographs.coffee(), photographs.astronaut(), photographs.chelsea()
        )[:batch]
    ]


def describe(info: WeightsInfo, weights: Path, dtype: str) -> dict[str, str]:
    """Return the metadata of the ONNX file: its contents and their origin."""
    beside = {
        'before': FORMATS[dtype] + ': the restored previous frame, warped to the image',
        'undone': 'float32, batch x 3 x height x width, the change by the filter',
        'cues': f'float32, batch x {CUES} x height x width',
    }
    return {
        **(beside if PRESETS[info.preset].evidence else {}),
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
    parser.add_argument('--weights', type=Path, help='.safetensors file (default: the shipped one)')
    parser.add_argument('--uint8', action='store_true', help='use the format of camera frames: ' +
                        f'{FORMATS["uint8"]} (default: {FORMATS["float32"]})')
    options = parser.parse_args()
    dtype = 'uint8' if options.uint8 else 'float32'
    try:
        weights = options.weights or shipped_weights(options.model, options.task)
        keep_apart([options.output], [weights])
        check_replaceable(options.output)
        generator, info = load_weights(weights, options.task, options.model)
        largest = export(options.output, generator, dtype, describe(info, weights, dtype))
    except (OutputError, WeightsError) as error:
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
