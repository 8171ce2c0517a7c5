"""Measuring clips: each frame, the flicker, and the gain of the history."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from iov_restore_ros.evaluation.detection import Finding, Judge
from iov_restore_ros.evaluation.detection_report import (
    FOUND,
    counts_text,
    detection_summary,
    detection_table,
    found_row,
    overlay,
)
from iov_restore_ros.evaluation.metrics import (
    check_size,
    features_kept,
    flicker,
    psnr,
    restore_image,
    ssim,
)
from iov_restore_ros.evaluation.report import Report, finite, label, mean
from iov_restore_ros.evaluation.report_page import Slider, Table, data_url
from iov_restore_ros.evaluation.sources import Root
from iov_restore_ros.inference import Restorer, restore_sequence
from iov_restore_ros.model import Generator
from iov_restore_ros.video.clear import Clearer

INPUT, ALONE, PAST = WAYS = 'input', 'alone', 'with past'
DIGITS = {'PSNR dB': 2, 'SSIM': 4, 'features kept %': 2, 'flicker': 2}
FULL_PAST = 2  # number of the first frame whose previous frame had a previous frame
PARTS = {'from the third frame on': FULL_PAST, 'all frames': 0}
NOTE = (
    'Input -> each frame alone -> with the previous frame, by the same network. Flicker: how much '
    'more than the sharp frames they change from one to the next, RMS in units of 0..255. '
    'Features kept: as for single pictures. From the third frame on the history is full: the '
    'previous frame had a previous frame, too.'
)


@dataclass(frozen=True)
class ClipScore:
    """
    The measures of a clip: those of ``DIGITS`` for each way in ``WAYS``, a value per frame.

    Flicker has a value for each frame but the last: the change to the next one.
    """

    name: str
    ways: dict[str, dict[str, list[float]]]
    found: dict[str, list[Finding]] = field(default_factory=dict)  # by a detector, if there is one

    def mean(self, way: str, measure: str, first: int) -> float:
        """Return the mean over the frames from number ``first`` on."""
        return mean(self.ways[way][measure][first:])


@dataclass
class VideoResult:
    """All clips of one root."""

    root: Root
    scores: list[ClipScore] = field(default_factory=list)
    sliders: list[Slider] = field(default_factory=list)

    def mean(self, way: str, measure: str, first: int) -> float:
        """Return the mean over the clips."""
        return mean([score.mean(way, measure, first) for score in self.scores])

    def found(self, first: int) -> dict[str, list[Finding]]:
        """Return the detections of each way, in the frames of all clips from ``first`` on."""
        return {
            way: [finding for score in self.scores for finding in score.found[way][first:]]
            for way in WAYS
        }


def measure_clips(
    root: Root, generator: Generator, shutter: float, sliders: int, judge: Judge | None = None,
    clearer: Clearer | None = None,
) -> VideoResult:
    """
    Restore and measure the clips of ``root``; keep ``sliders`` of the last frames.

    ``shutter`` is the share of the frame time that it was open; 0: unknown. With ``judge`` it also
    measures detections. ``clearer`` first removes the veil and what is on the glass.
    """
    device = next(generator.parameters()).device
    restorer = Restorer.of({root.task: generator}, clearer=clearer)
    result = VideoResult(root)
    for name, read in track(root.pictures, root.path.name, console=Console(stderr=True)):
        degraded, sharp = read()
        check_size(f'{root.path}: {name}', sharp[0])
        restored = {
            INPUT: list(degraded),
            ALONE: [restore_image(generator, frame, device, clearer) for frame in degraded],
            PAST: restore_sequence(restorer, degraded, root.task, shutter),
        }
        found = {}
        if judge is not None:
            names = root.frames[name] if judge.labels else [name] * len(sharp)
            truths = list(map(judge.truth, names, sharp))
            found = {way: list(map(judge.find, frames, truths)) for way, frames in restored.items()}
        score = ClipScore(name, {way: score_frames(f, sharp) for way, f in restored.items()}, found)
        result.scores.append(score)
        if len(result.sliders) < sliders:
            before, after = (score.ways[way]['PSNR dB'][-1] for way in (INPUT, PAST))
            text, boxes = f'PSNR dB {before:.2f} -> {after:.2f}', ''
            if judge is not None:
                both = found[INPUT][-1], found[PAST][-1]
                text += f', {counts_text(*both, judge.score)}'
                boxes = overlay(*both, sharp[-1].shape, judge.score)
            result.sliders.append(Slider(
                f'{root.path.name}: {name}, last frame', text, data_url(degraded[-1]),
                data_url(restored[PAST][-1]), data_url(sharp[-1]), boxes,
            ))
    return result


def score_frames(pictures: list[np.ndarray], truths: np.ndarray) -> dict[str, list[float]]:
    """Measure T uint8 H x W x 3 RGB images in order; see ``ClipScore``."""
    both = list(zip(pictures, truths, strict=True))
    return {
        'PSNR dB': [psnr(*pair) for pair in both],
        'SSIM': [ssim(*pair) for pair in both],
        'features kept %': [100 * features_kept(*pair) for pair in both],
        'flicker': flicker(pictures, list(truths)),
    }


def video_report(
    results: list[VideoResult], judge: Judge | None, kinds: Sequence[str] = ()
) -> Report:
    """
    Report clips: a row for each clip and for each root's mean; the CSV has a row for each frame.

    With ``judge`` also what the detector found. The headings name the ``kinds`` of weather.
    """
    rows: list[list] = [['root', 'layout', 'task', 'clip', 'restored', 'frame', *DIGITS]]
    if judge is not None:
        rows[0] += FOUND
    for result in results:
        root = result.root
        about = [str(root.path), root.layout, root.task]
        for score in result.scores:
            for way, values in score.ways.items():
                frames = zip(
                    values['PSNR dB'], values['SSIM'], values['features kept %'],
                    ['', *values['flicker']], strict=True,
                )
                looked = score.found.get(way, [])
                found = [found_row(f, judge.score) for f in looked] if judge else []
                rows += [
                    [*about, score.name, way, n, *frame, *(found[n] if found else [])]
                    for n, frame in enumerate(frames)
                ]
    sliders = [slider for result in results for slider in result.sliders]
    parts = {f'{" + ".join(kinds)}, {part}' if kinds else part: n for part, n in PARTS.items()}
    tables = [_table(part, first, results) for part, first in parts.items()]
    summaries = [_summary(result) for result in results]
    if judge is not None:
        tables += [_found_table(part, first, results, judge) for part, first in parts.items()]
        for summary, result in zip(summaries, results, strict=True):
            summary['detector'] = {
                part: detection_summary(result.found(first), judge.score)
                for part, first in PARTS.items()
            }
    return Report(tables, sliders, rows, summaries)


def _table(part: str, first: int, results: list[VideoResult]) -> Table:
    def cells(scores: ClipScore | VideoResult) -> list[str]:
        return [
            ' -> '.join(f'{scores.mean(way, name, first):.{digits}f}' for way in WAYS)
            for name, digits in DIGITS.items()
        ]

    rows = []
    for result in results:
        name, task = label(result.root.path), result.root.task
        for score in result.scores:
            count = len(score.ways[INPUT]['PSNR dB']) - first
            rows.append((f'{name}: {score.name}', str(count), task, *cells(score)))
        if len(result.scores) > 1:
            rows.append((f'{name}: mean', '', task, *cells(result)))
    note = NOTE if first else ''  # only once
    return Table(f'Video: {part}', ('clip', 'n', 'task', *DIGITS), rows, note)


def _found_table(part: str, first: int, results: list[VideoResult], judge: Judge) -> Table:
    rows: list[tuple[str, str, dict[str, list[Finding]]]] = []
    for result in results:
        name, task = label(result.root.path), result.root.task
        for score in result.scores:
            found = {way: score.found[way][first:] for way in WAYS}
            rows.append((f'{name}: {score.name}', task, found))
        if len(result.scores) > 1:
            rows.append((f'{name}: all', task, result.found(first)))
    return detection_table(f'What a detector finds: {part}', 'clip', rows, judge)


def _summary(result: VideoResult) -> dict[str, Any]:
    root = result.root
    return {
        'root': str(root.path), 'layout': root.layout, 'task': root.task,
        'clips': len(result.scores),
    } | {
        part: {
            name: {way: finite(result.mean(way, name, first)) for way in WAYS} for name in DIGITS
        }
        for part, first in PARTS.items()
    }
