"""The results of a detector: as a table, as numbers for JSON, and as boxes over a picture."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from iov_restore_ros.evaluation.detection import Finding, Judge, figures
from iov_restore_ros.evaluation.report_page import Table

Ways = Mapping[str, Sequence[Finding]]  # by way of restoring: a finding for each picture
HEADINGS = 'boxes', 'recall %', 'precision %', 'AP'
FOUND = 'boxes', 'found', 'wrong'  # numbers of one picture


def detection_table(
    title: str, first: str, rows: Iterable[tuple[str, str, Ways]], judge: Judge
) -> Table:
    """Return a table with a row for each of ``rows``: name, task, and the figures of each way."""
    cells, empty = [], []
    for name, task, ways in rows:
        count = len(next(iter(ways.values())))
        cells.append((name, str(count), task, *detection_cells(ways, judge.score)))
        if not any(len(finding.truth) for findings in ways.values() for finding in findings):
            empty.append(name)
    facts = judge.facts()
    note = (
        f'{judge.detector.path.name} ({facts["layout"]}) looks for {facts["classes"]}; car, bus '
        f'and truck count as one class. Ground truth: {facts["truth"]}. A detection is correct if '
        f'its class matches and IoU is 0.5. Recall and precision at score {judge.score}, AP over '
        'scores from 0.1: the area under the precision-recall curve of all pictures and classes '
        '(VOC 2010).'
    )
    if empty:
        note += (
            f' There is nothing to find in {", ".join(empty)}: a lower --score, other --classes or '
            'another detector may find more.'
        )
    return Table(title, (first, 'n', 'task', *HEADINGS), cells, note)


def detection_cells(ways: Ways, score: float) -> list[str]:
    """Return the cells under ``HEADINGS``, each with the figures of all ways."""
    each = [figures(findings, score) for findings in ways.values()]
    return [
        str(each[0].boxes),
        ' -> '.join(_number(100 * one.recall, 1) for one in each),
        ' -> '.join(_number(100 * one.precision, 1) for one in each),
        ' -> '.join(_number(one.ap, 3) for one in each),
    ]


def detection_summary(ways: Ways, score: float) -> dict[str, dict[str, float | None]]:
    """Return the figures of each way; None without boxes."""
    summary: dict[str, dict[str, float | None]] = {}
    for way, findings in ways.items():
        one = figures(findings, score)
        shares = {'recall': one.recall, 'precision': one.precision, 'AP': one.ap}
        summary[way] = {'boxes': one.boxes} | {
            name: None if math.isnan(share) else share for name, share in shares.items()
        }
    return summary


def found_row(finding: Finding, score: float) -> list[int]:
    """Return the numbers under ``FOUND``."""
    return [len(finding.truth), *finding.counts(score)]


def counts_text(before: Finding, after: Finding, score: float) -> str:
    """Return the numbers of found boxes and of wrong detections, before and after, as text."""
    (found, wrong), (found_after, wrong_after) = (
        finding.counts(score) for finding in (before, after)
    )
    return (
        f'{found} of {len(before.truth)} found -> {found_after}, '
        f'wrong {wrong} -> {wrong_after}'
    )


def overlay(before: Finding, after: Finding, shape: tuple[int, ...], score: float) -> str:
    """
    Return boxes as SVG for a ``report_page.Slider`` of ``shape`` (H x W ...).

    They show the input on the left of the slider, the restored picture on its right, and the
    ground truth on the sharp picture.
    """
    parts = []
    for side, finding in (('before', before), ('after', after)):
        sure = finding.found.scores >= score
        right = sure & (finding.which >= 0)
        missed = np.ones(len(finding.truth), bool)
        missed[finding.which[right]] = False
        parts.append(_svg(side, shape, {
            'found': finding.found.corners[right],
            'wrong': finding.found.corners[sure & ~right],
            'missed': finding.truth.corners[missed],
        }))
    return ''.join([*parts, _svg('sharp', shape, {'found': before.truth.corners})])


def _svg(side: str, shape: tuple[int, ...], boxes: Mapping[str, np.ndarray]) -> str:
    paths = ''.join(
        f'<path class="{kind}" d="{"".join(map(_path, corners))}"/>'
        for kind, corners in boxes.items() if len(corners)
    )
    return (
        f'<svg class="boxes {side}" viewBox="0 0 {shape[1]} {shape[0]}" preserveAspectRatio="none" '
        f'aria-hidden="true">{paths}</svg>'
    )


def _path(corners: np.ndarray) -> str:
    left, top, right, bottom = corners.round().astype(int)
    return f'M{left} {top}H{right}V{bottom}H{left}z'


def _number(value: float, digits: int) -> str:
    return '-' if math.isnan(value) else f'{value:.{digits}f}'
