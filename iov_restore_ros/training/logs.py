"""The logs of a run: log.csv, curves.png, TensorBoard events, sample pictures."""

import csv
import errno
import io
import math
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from iov_restore_ros.whole import whole, write_whole

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:  # pip install tensorboard
    SummaryWriter = None  # type: ignore[assignment, misc]
try:
    from matplotlib.figure import Figure
except ImportError:  # pip install matplotlib
    Figure = None  # type: ignore[assignment, misc]

SAMPLES = 4  # pictures
PANELS = 3  # in a row of curves.png
SMOOTHED = 20  # the thick line averages over a run's length divided by this

Row = dict[str, str]


class Logs:
    """The logs of a run in ``folder``, from ``step`` on; see ``Table``."""

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.table = Table(folder / 'log.csv', step)
        self.events = None
        if SummaryWriter is not None:
            self.events = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add one row to log.csv, and the same values to TensorBoard."""
        self.table.append({'step': str(step)} | {k: f'{v:.6g}' for k, v in values.items()})
        if self.events:
            for name, value in values.items():
                self.events.add_scalar(name, value, step)
            self.events.flush()

    def draw(self) -> None:
        """Write curves.png, if matplotlib is installed."""
        rows = self.table.rows()
        if Figure is not None and rows:
            draw_curves(rows, self.folder / 'curves.png')

    def sample(self, step: int, *columns: Tensor) -> None:
        """
        Write samples/STEP.jpg: a row for each picture, with one column for each tensor.

        The tensors are float N x 3 x H x W, RGB, 0..1.
        """
        page = torch.cat([column[:SAMPLES] for column in columns], dim=3)
        page = torch.cat(list(page), dim=1).clamp(0, 1).mul(255).round().byte().cpu()
        image = np.ascontiguousarray(page.permute(1, 2, 0).numpy()[..., ::-1])
        write_whole(
            self.folder / 'samples' / f'{step:07d}.jpg', cv2.imencode('.jpg', image)[1].tobytes()
        )


class Table:
    """
    A CSV file with a row for some of the steps of a run.

    Opening the file removes rows later than ``step``, because the continued run writes them again.
    It also removes an incomplete last row of a run that was cut off.
    """

    def __init__(self, path: Path, step: int) -> None:
        """Continue ``path``. Raises ``ValueError`` for a file that is not such a table."""
        self.path = path
        self.names: list[str] = []  # of the columns
        if path.exists():
            self.names, rows = self._read()
            if self.names and self.names[0] != 'step':
                raise ValueError(f'{path}: not the log of a run; move it away')
            self._replace(self.names, [row for row in rows if int(row['step']) <= step])

    def rows(self) -> list[Row]:
        """Return all rows."""
        return self._read()[1] if self.path.exists() else []

    def append(self, row: Row) -> None:
        """
        Add ``row``, which has 'step' first. Raises ``OSError``, e.g. on a full disk.

        The file is rewritten once for each new column.
        """
        names = list(dict.fromkeys([*self.names, *row]))
        if names != self.names or not self.path.exists():
            self._replace(names, [*self.rows(), row])
            self.names = names
            return
        line = _text(names, [row]).encode()
        with self.path.open('ab', buffering=0) as file:
            end = file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                file.truncate(end)
                raise

    def _read(self) -> tuple[list[str], list[Row]]:
        """Return the names of the columns, and the complete rows."""
        lines = self.path.read_text(encoding='utf-8', errors='replace').splitlines(keepends=True)
        whole = [line for line in lines if line.endswith('\n') and '\0' not in line]
        names, *rows = list(csv.reader(whole)) or [[]]
        return names, [
            dict(zip(names, row, strict=True)) for row in rows
            if len(row) == len(names) and row[0].isdecimal()
        ]

    def _replace(self, names: list[str], rows: list[Row]) -> None:
        header = dict(zip(names, names, strict=True))
        write_whole(self.path, _text(names, [header, *rows]))


def _text(names: list[str], rows: list[Row]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, names, lineterminator='\n').writerows(rows)
    return text.getvalue()


def draw_curves(rows: list[dict[str, str]], path: Path) -> None:
    """
    Draw every column of ``rows``, the rows of log.csv, against the step into a PNG file.

    The thin line shows the logged values. The thick line shows their running mean, because single
    batches differ much. A vertical line in each panel marks the start of a stage.
    """
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in ('step', 'stage')]
    stages = [row['stage'] for row in rows]
    begin = [
        int(rows[i]['step']) for i in range(1, len(rows)) if stages[i] != stages[i - 1]
    ]
    columns = min(PANELS, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure((4 * columns, 2.6 * lines), layout='constrained')
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        logged = [(int(row['step']), float(row[name])) for row in rows if row.get(name)]
        steps, values = np.array(logged).T
        axes.plot(steps, values, linewidth=0.7, alpha=0.4)
        axes.plot(steps, running_mean(values, math.ceil(len(values) / SMOOTHED)), color='C0')
        for step in begin:
            axes.axvline(step, color='black', linewidth=0.6)
        axes.set_title(name.replace('_', ' '), fontsize='medium')
        axes.grid(alpha=0.3)
    for axes in panels[len(names) :]:
        axes.remove()
    for axes in panels[max(0, len(names) - columns) : len(names)]:
        axes.set_xlabel('step')
    with whole(path) as part:
        figure.savefig(part, dpi=100)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean of the last ``width`` values at each position, of fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
