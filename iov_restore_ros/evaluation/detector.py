"""
A detector from an ONNX file, run with onnxruntime on the CPU: a picture -> boxes.

Two exports are supported, and recognised by their output: that of YOLOX's tools/export_onnx.py, and
that of Ultralytics' YOLOv8 to 11 (`yolo export format=onnx`). Both have a row, or a column, for
each cell of three grids. A picture is scaled and padded to a fixed input size. If the input size is
free, the picture is padded to multiples of 32.
"""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from iov_restore_ros.evaluation.boxes import Boxes, best_of

LEAST = 0.1  # least score of a box
STRIDES = 8, 16, 32  # pixels between the cells of the three grids
PADDING = 114  # grey level of the padding, as in the training of both
FARTHEST = 32  # largest distance of a centre from its cell, in cells, in a raw output
TRIED = 96, 128  # height and width of the test picture for a file with free size
COCO = (
    'person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant '
    'stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe '
    'backpack umbrella handbag tie suitcase frisbee skis snowboard sports_ball kite baseball_bat '
    'baseball_glove skateboard surfboard tennis_racket bottle wine_glass cup fork knife spoon bowl '
    'banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch '
    'potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave '
    'oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier toothbrush'
).replace(' ', ',').replace('_', ' ').split(',')
ROAD = (
    'person', 'bicycle', 'car', 'motorcycle', 'bus', 'truck', 'traffic light', 'stop sign',
)
ONE_KIND = 'car', 'bus', 'truck'  # detectors confuse them, also in sharp pictures


class DetectorError(ValueError):
    """A detector or labels cannot be used; the message says what is supported."""


@dataclass(frozen=True)
class Layout:
    """
    Input and output of an export.

    ``read`` converts its output for a picture of height x width to centres and sizes (N x 2 each:
    x, y in pixels) and scores (N x classes, 0..1).
    """

    name: str
    bgr: bool
    white: float  # its value for 255
    centred: bool  # whether a picture is centred in a fixed size; else at the top left
    read: Callable[[np.ndarray, int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]


def cells(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return column and row of every cell (N x 2) and its stride (N x 1), in the files' order."""
    places, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        places.append(np.stack([columns.ravel(), rows.ravel()], 1))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(places), np.concatenate(strides)


def _read_yolox(
    output: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read N x (4 + objectness + classes): the centre from its cell, the logarithm of the size."""
    places, strides = cells(height, width)
    centres, sizes = (output[:, :2] + places) * strides, np.exp(output[:, 2:4]) * strides
    return centres, sizes, output[:, 4:5] * output[:, 5:]


def _read_ultralytics(
    output: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read (4 + classes) x N, in pixels."""
    return output[:2].T, output[2:4].T, output[4:].T


YOLOX = Layout('YOLOX', True, 255.0, False, _read_yolox)
ULTRALYTICS = Layout('Ultralytics', False, 1.0, True, _read_ultralytics)


class Detector:
    """A detector of some classes."""

    def __init__(self, path: Path, classes: Sequence[str] | None = None) -> None:
        """
        Load ``path`` and check its output; this takes a tenth of a second.

        ``classes`` are the names of the classes to find, by default those of ``ROAD`` that the file
        has. Raises ``DetectorError`` for a file or classes that cannot be used.
        """
        self.path = path
        self._session = _open(path)
        self._input, self._size = self._look_at_input()
        height, width = self._size or TRIED
        output = self._run(np.full((1, 3, height, width), PADDING, np.float32))
        self.layout, count = self._recognise(output, height, width)
        self.names = self._names(count)
        self.classes = self._choose(classes)
        kinds = {name: ONE_KIND[0] if name in ONE_KIND else name for name in self.classes}
        numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds.values()))}
        # For each class the number of its kind; -1: ignored.
        self.kinds = np.array([numbers.get(kinds.get(name, ''), -1) for name in self.names])

    def find(self, picture: np.ndarray) -> Boxes:
        """Return the boxes of score ``LEAST`` or more in uint8 H x W x 3, RGB; best first."""
        canvas, scale, offset = self._canvas(picture)
        pixels = canvas[..., ::-1] if self.layout.bgr else canvas
        image = pixels.transpose(2, 0, 1)[None].astype(np.float32) * (self.layout.white / 255)
        [output] = self._run(image)
        centres, sizes, scores = self.layout.read(output[0], *canvas.shape[:2])
        best = scores.argmax(1)
        score, kinds = scores.max(1), self.kinds[best]
        chosen = (score >= LEAST) & (kinds >= 0)
        centres, sizes = centres[chosen], sizes[chosen]
        corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)
        corners = (corners - np.tile(offset, 2)) / np.tile(scale, 2)
        corners = corners.clip(0, np.tile(picture.shape[1::-1], 2)).astype(np.float32)
        return best_of(Boxes(corners, kinds[chosen], score[chosen]))

    def _canvas(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Return ``picture`` in a size that the file takes, its scale, and its top left corner.

        Scale and corner are (x, y).
        """
        height, width = picture.shape[:2]
        if self._size is None:
            size = height + -height % STRIDES[-1], width + -width % STRIDES[-1]
            part = picture
        else:
            size = self._size
            scale = min(size[0] / height, size[1] / width)
            shape = max(1, round(width * scale)), max(1, round(height * scale))
            part = cv2.resize(picture, shape, interpolation=cv2.INTER_LINEAR)
        room = np.array([size[1] - part.shape[1], size[0] - part.shape[0]])
        left, top = room // 2 if self.layout.centred and self._size else (0, 0)
        canvas = np.full((*size, 3), PADDING, np.uint8)
        canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
        return canvas, np.divide(part.shape[1::-1], (width, height)), np.array([left, top])

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        try:
            outputs = self._session.run(None, {self._input.name: image.astype(self._dtype())})
        except Exception as error:  # onnxruntime has no exception class of its own
            size = f'{image.shape[3]}x{image.shape[2]}'
            raise DetectorError(f'{self.path}: fails on a picture of {size}: {error}') from error
        return [output.astype(np.float32) for output in outputs]

    def _dtype(self) -> type:
        return np.float16 if self._input.type == 'tensor(float16)' else np.float32

    def _look_at_input(self) -> tuple[Any, tuple[int, int] | None]:
        """Return the file's input, and its height and width if they are fixed."""
        inputs = self._session.get_inputs()
        first = inputs[0]
        if len(inputs) > 1 or len(first.shape) != 4 or 'float' not in first.type:
            wants = ', '.join(f'{i.name}: {i.type} {i.shape}' for i in inputs)
            raise DetectorError(
                f'{self.path}: takes {wants}; a detector takes one picture, float 1 x 3 x H x W'
            )
        height, width = first.shape[2:]
        fixed = isinstance(height, int) and isinstance(width, int)
        return first, (height, width) if fixed else None

    def _recognise(
        self, outputs: list[np.ndarray], height: int, width: int
    ) -> tuple[Layout, int]:
        """Return the layout of the output for height x width, and its number of classes."""
        count = len(cells(height, width)[0])
        shapes = [output.shape for output in outputs]
        if len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][0] == 1:
            _, rows, columns = shapes[0]
            if rows == count and columns > 5:
                if np.abs(outputs[0][..., :2]).max() > FARTHEST:
                    raise DetectorError(
                        f'{self.path}: gives boxes that are decoded already: export it without '
                        '--decode_in_inference'
                    )
                return YOLOX, columns - 5
            if columns == count and rows > 4:
                return ULTRALYTICS, rows - 4
        gives = ', '.join('x'.join(map(str, shape)) for shape in shapes)
        raise DetectorError(
            f'{self.path}: gives {gives} for a picture of {width}x{height}. Supported: '
            f'1x{count}x(5 + classes), as YOLOX exports it (without --decode_in_inference), or '
            f'1x(4 + classes)x{count}, as Ultralytics exports YOLOv8 to 11 (detect, nms=False)'
        )

    def _names(self, count: int) -> list[str]:
        """Return the names of the classes: from the file, from COCO, or numbers."""
        said = self._session.get_modelmeta().custom_metadata_map.get('names')
        if said:
            try:
                names = ast.literal_eval(said)
                return [str(names[number]) for number in range(count)]
            except (ValueError, SyntaxError, LookupError) as error:
                raise DetectorError(
                    f'{self.path}: the names of its {count} classes cannot be read: {said}'
                ) from error
        return COCO if count == len(COCO) else [str(number) for number in range(count)]

    def _choose(self, classes: Sequence[str] | None) -> list[str]:
        chosen = [name for name in ROAD if name in self.names] if classes is None else list(classes)
        unknown = [name for name in chosen if name not in self.names]
        if unknown or not chosen:
            missing = ', '.join(unknown) or f'any of {", ".join(ROAD)}'
            raise DetectorError(
                f'{self.path}: has no class {missing}; give --classes, of: {", ".join(self.names)}'
            )
        return chosen


def _open(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DetectorError(
            f"a detector needs onnxruntime: pip install '.[export]' ({error})"
        ) from error
    if not path.is_file():
        raise DetectorError(f'{path}: no such file; expected a detector as ONNX')
    options = onnxruntime.SessionOptions()
    # As many as PyTorch has; they do not spin while they wait, which would slow PyTorch down.
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.log_severity_level = 3  # its errors become a DetectorError
    try:
        return onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # as above
        raise DetectorError(
            f'{path}: not an ONNX file that onnxruntime can run ({error}); export your detector '
            'with YOLOX (tools/export_onnx.py) or Ultralytics (yolo export format=onnx)'
        ) from error
