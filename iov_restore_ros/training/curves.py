"""curves.png of a run: how each column of its log.csv went."""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from iov_restore_ros.whole import whole

PER_ROW = 3  # panels
SMOOTHED = 20  # so many stretches of a run, over which the thick line is a mean


def draw_curves(rows: list[dict[str, str]], path: Path) -> None:
    """
    Draw every column of ``rows``, as log.csv has them, against the step into a PNG file.

    The thin line is what was logged, the thick one its running mean, as single batches differ
    much. Where a stage begins, a line goes through all of them.
    """
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in ('step', 'stage')]
    stages = [row['stage'] for row in rows]
    begin = [
        int(rows[i]['step']) for i in range(1, len(rows)) if stages[i] != stages[i - 1]
    ]
    columns = min(PER_ROW, len(names))
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
    """Return the mean of the last ``width`` values at each of them, of fewer at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
