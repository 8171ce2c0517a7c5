"""The table and the HTML page of the demo."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import rich.table
from rich import box
from rich.console import Console

from iov_restore_ros.evaluation.metrics import flicker, psnr
from iov_restore_ros.evaluation.report_page import Loop, Slider, Table, data_url, loop_url, page
from iov_restore_ros.pictures.picture import Picture
from iov_restore_ros.pictures.write import write_picture
from iov_restore_ros.tools.demo_footage import FPS
from iov_restore_ros.whole import write_whole

HEADINGS = (
    'scene', 'mode', 'past', 'gyro', 'task', 'in', 'restored', 'dropped', 'fps', 'p50 ms', 'p99 ms',
    'PSNR dB', 'flicker',
)
NOTE = (
    'past: with the previous frame (use_past); gyro: with the gyroscope (imu); '
    'p50, p99: latency from the stamp to the subscriber; PSNR and flicker: input -> output, of the '
    'received frames; flicker: how much more consecutive frames change than the sharp ones do, '
    'RMS in grey levels'
)
LOOP_SIDE = 480  # pixels of a frame's longest side in a loop
SLIDERS = 3  # per scene and task


class Sample(NamedTuple):
    """Frame ``number``: degraded, restored, and sharp if known; uint8 H x W x 3, RGB."""

    number: int
    degraded: np.ndarray
    restored: np.ndarray
    sharp: np.ndarray | None


class Quality(NamedTuple):
    """(before, after): mean PSNR of the frames in dB, and mean flicker of consecutive frames."""

    psnr: tuple[float, float]
    flicker: tuple[float, float]


@dataclass(frozen=True)
class Row:
    """The counts and measurements of one mode; ``quality`` if sharp frames are known."""

    scene: str
    mode: str
    use_past: bool
    use_imu: bool
    task: str
    received: int
    restored: int
    dropped: int
    fps: float
    latency_p50: float  # ms, from the stamp to the subscriber; p99 too
    latency_p99: float
    quality: Quality | None

    def shown(self) -> bool:
        """Return whether the report shows it: restored frames, with the previous frame."""
        return self.task != 'none' and self.use_past

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, in the order of ``HEADINGS``."""
        past, gyroscope = (
            '-' if self.task == 'none' else 'yes' if used else 'no'
            for used in (self.use_past, self.use_imu)
        )
        quality = ('-', '-')
        if self.quality:
            quality = _change(self.quality.psnr, 2), _change(self.quality.flicker, 1)
        return (
            self.scene, self.mode, past, gyroscope, self.task, str(self.received),
            str(self.restored), str(self.dropped), f'{self.fps:.1f}', f'{self.latency_p50:.0f}',
            f'{self.latency_p99:.0f}', *quality,
        )


class Seen(NamedTuple):
    """
    The result of one mode: a row of the table, and the frames of each drive to show.

    ``about`` is a description for the page.
    """

    row: Row
    drives: list[list[Sample]]
    about: str = ''


def measure_drives(drives: Iterable[Sequence[Sample]]) -> Quality | None:
    """Return the quality of the frames; None without sharp or without consecutive frames."""
    scores, changes = [], []
    for drive in drives:
        for s in drive:
            if s.sharp is not None:
                scores.append([psnr(picture, s.sharp) for picture in (s.degraded, s.restored)])
        for one, two in pairwise(drive):
            if two.number == one.number + 1 and one.sharp is not None and two.sharp is not None:
                truths = one.sharp, two.sharp
                changes.append([
                    *flicker((one.degraded, two.degraded), truths),
                    *flicker((one.restored, two.restored), truths),
                ])
    if not changes:
        return None
    (psnr_before, psnr_after), (before, after) = np.mean(scores, 0), np.mean(changes, 0)
    return Quality((psnr_before, psnr_after), (before, after))


def print_table(console: Console, rows: list[Row], device: str) -> None:
    """Print the table to the terminal."""
    table = rich.table.Table(title=device, caption=NOTE, box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify='left' if number < 5 else 'right', no_wrap=number > 0)
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)


def write_report(path: Path, seen: list[Seen], device: str) -> None:
    """Write one page with the table, loops of input and restored frames, and sliders."""
    table = Table('The node at work', HEADINGS, [row.cells() for row, *_ in seen], NOTE)
    loops, sliders = [], []
    for row, drives, about in _once(seen):
        title = f'{row.scene}, {row.mode}' + (', with the gyroscope' if row.use_imu else '')
        loops += [_loop(title, drive, about) for drive in drives]
        sliders += [_slider(title, sample) for sample in _spread(drives)]
    facts = [('model', device)]
    text = page([table], sliders, facts, loops, 'iov_restore demo')
    write_whole(path, text)


def write_before_after(path: Path, seen: list[Seen]) -> None:
    """Write one picture with the frame of each scene and task that changed most."""
    rows = {}
    for row, drives, _ in _once(seen):
        changed = max(_spread(drives), key=lambda s: cv2.absdiff(s.degraded, s.restored).mean())
        rows[row.scene, row.task] = np.hstack([changed.degraded, changed.restored])
    if rows:
        write_picture(path, Picture(np.vstack(list(rows.values()))))


def _once(seen: list[Seen]) -> list[Seen]:
    """Return the first mode with pictures for each scene and task, with and without gyroscope."""
    shown: dict[tuple[str, str, bool], Seen] = {}
    for one in seen:
        if any(one.drives):
            row = one.row
            which = row.scene, row.task, row.use_imu  # mode auto shows the same
            shown.setdefault(which, one._replace(drives=list(filter(None, one.drives))))
    return list(shown.values())


def _spread(drives: list[list[Sample]]) -> list[Sample]:
    """Return ``SLIDERS`` samples, spread over the drives."""
    samples = [sample for drive in drives for sample in drive]
    step = max(1, len(samples) // SLIDERS)
    return samples[step // 2 :: step][:SLIDERS]


def _loop(title: str, drive: list[Sample], about: str) -> Loop:
    pairs = [np.hstack([_small(s.degraded), _small(s.restored)]) for s in drive]
    quality = measure_drives([drive])
    text = about
    if quality:
        text += f' PSNR dB {_change(quality.psnr, 2)}, flicker {_change(quality.flicker, 1)}'
    return Loop(title, text, loop_url(pairs, FPS), data_url(pairs[len(pairs) // 2]))


def _slider(title: str, sample: Sample) -> Slider:
    text = sharp = ''
    if sample.sharp is not None:
        scores = (psnr(p, sample.sharp) for p in (sample.degraded, sample.restored))
        text, sharp = f'PSNR dB {_change(scores, 2)}', data_url(sample.sharp)
    return Slider(title, text, data_url(sample.degraded), data_url(sample.restored), sharp)


def _small(frame: np.ndarray) -> np.ndarray:
    scale = min(1, LOOP_SIDE / max(frame.shape[:2]))
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _change(values: Iterable[float], digits: int) -> str:
    return ' -> '.join(f'{value:.{digits}f}' for value in values)
