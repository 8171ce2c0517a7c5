"""Ground truth from label files in the YOLO text format."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from iov_restore_ros.evaluation.boxes import Boxes
from iov_restore_ros.evaluation.detector import DetectorError
from iov_restore_ros.pictures.files import IMAGE_SUFFIXES


class Labels:
    """
    A folder of label files: ``a/b.txt`` for the picture ``a/b.png``; no file means no boxes.

    A line is a box: the number of its class, then x and y of its centre, width and height, relative
    to the picture.
    """

    def __init__(self, folder: Path, kinds: np.ndarray) -> None:
        """Use ``folder``; ``kinds`` is the kind of each class, -1 for ignored classes."""
        self.folder, self.kinds = folder, kinds

    def check(self, names: Iterable[str]) -> None:
        """Raise ``DetectorError`` if none of the pictures called ``names`` has a file."""
        paths = [self._path(name) for name in names]
        if not any(path.is_file() for path in paths):
            raise DetectorError(f'{self.folder}: no labels, looked for {paths[0]} and so on')

    def read(self, name: str, height: int, width: int) -> Boxes:
        """Return the boxes in the picture ``name``, of height x width pixels."""
        path = self._path(name)
        lines = path.read_text(encoding='utf-8').splitlines() if path.is_file() else []
        rows = [self._row(path, line) for line in lines if line.strip()]
        numbers = np.array(rows, np.float32).reshape(-1, 5)
        centres, sizes = numbers[:, 1:3], numbers[:, 3:5]
        corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)
        corners *= np.array([width, height] * 2, np.float32)
        kinds = self.kinds[numbers[:, 0].astype(int)]
        return Boxes(corners, kinds, np.ones(len(kinds), np.float32))[kinds >= 0]

    def _row(self, path: Path, line: str) -> list[float]:
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != 5 or row[0] not in range(len(self.kinds)):
            raise DetectorError(
                f'{path}: {line!r} is no box; expected CLASS X Y WIDTH HEIGHT, the class below '
                f'{len(self.kinds)}, the others 0 to 1'
            )
        return row

    def _path(self, name: str) -> Path:
        path = self.folder / name
        named = path.suffix.lower() in IMAGE_SUFFIXES
        return path.with_suffix('.txt') if named else path.with_name(path.name + '.txt')
