"""What a detector finds, as a table, as numbers for JSON, and as boxes over a picture."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from iov_restore_ros.evaluation.detection import Finding, Judge, figures
from iov_restore_ros.evaluation.report_page import Table

Ways = Mapping[str, Sequence[Finding]]  # of each way to restore, a finding for each picture
HEADINGS = 'boxes', 'recall %', 'precision %', 'AP'
FOUND = 'boxes', 'found', 'wrong'  # numbers of one picture


def detection_table(
    title: str, first: str, rows: Iterable[tuple[str, str, Ways]], judge: Judge
) -> Table:
    """Return a row for each of ``rows``: name, task, and what was found in each way."""
    cells, empty = [], []
    for name, task, ways in rows:
        count = len(next(iter(ways.values())))
        cells.append((name, str(count), task, *detection_cells(ways, judge.score)))
        if not any(len(finding.truth) for findings in ways.values() for finding in findings):
            empty.append(name)
    facts = judge.facts()
    note = (
        f'{judge.detector.path.name} ({facts["layout"]}) looks for {facts["classes"]}; car, bus '
        f'and truck count as one. There is: {facts["truth"]}. A find is right where '
        f'it is of that kind and IoU is 0.5. Recall and precision at score {judge.score}, AP over '
        'scores from 0.1: the area under precision against recall, of all pictures and kinds '
        'together (VOC 2010).'
    )
    if empty:
        note += (
            f' There is nothing to find in {", ".join(empty)}: a lower --score, other --classes or '
            'another detector may see more.'
        )
    return Table(title, (first, 'n', 'task', *HEADINGS), cells, note)


def detection_cells(ways: Ways, score: float) -> list[str]:
    """Return what stands under ``HEADINGS``, all ways in a cell."""
    each = [figures(findings, score) for findings in ways.values()]
    return [
        str(each[0].boxes),
        ' -> '.join(_number(100 * one.recall, 1) for one in each),
        ' -> '.join(_number(100 * one.precision, 1) for one in each),
        ' -> '.join(_number(one.ap, 3) for one in each),
    ]


def detection_summary(ways: Ways, score: float) -> dict[str, dict[str, float | None]]:
    """Return the figures of each way; None where there is nothing to see."""
    summary: dict[str, dict[str, float | None]] = {}
    for way, findings in ways.items():
        one = figures(findings, score)
        shares = {'recall': one.recall, 'precision': one.precision, 'AP': one.ap}
        summary[way] = {'boxes': one.boxes} | {
            name: None if math.isnan(share) else share for name, share in shares.items()
        }
    return summary


def found_row(finding: Finding, score: float) -> list[int]:
    """Return what stands under ``FOUND``."""
    return [len(finding.truth), *finding.counts(score)]


def counts_text(before: Finding, after: Finding, score: float) -> str:
    """Return how many are found in a picture before and after, and how many finds are wrong."""
    (found, wrong), (found_after, wrong_after) = (
        finding.counts(score) for finding in (before, after)
    )
    return (
        f'{found} of {len(before.truth)} found -> {found_after}, '
        f'wrong {wrong} -> {wrong_after}'
    )


def overlay(before: Finding, after: Finding, shape: tuple[int, ...], score: float) -> str:
    """
    Return boxes as SVG to lie over a ``report_page.Slider`` of ``shape`` (H x W ...).

    Before on the left of the slider, after on its right, and all that is there on the sharp one.
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
