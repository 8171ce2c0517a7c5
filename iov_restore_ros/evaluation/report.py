"""The results, as tables for the terminal, Markdown, CSV, JSON and one HTML page."""

import csv
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rich.table
from rich.console import Console

from iov_restore_ros.evaluation.detection import Finding, Judge
from iov_restore_ros.evaluation.detection_report import (
    FOUND,
    detection_summary,
    detection_table,
    found_row,
)
from iov_restore_ros.evaluation.protocols import DIGITS, LEGEND, PROTOCOLS, PUBLISHED, Published
from iov_restore_ros.evaluation.report_page import Slider, Table, page
from iov_restore_ros.outputs import OutputError
from iov_restore_ros.whole import write_whole

FILES = 'results.json', 'results.md', 'results.csv'


@dataclass(frozen=True)
class Report:
    """
    The results: tables and pictures for people, rows and summaries for programs.

    The first of ``rows`` has the headings. ``summaries`` has one entry per root, for JSON.
    """

    tables: list[Table]
    sliders: list[Slider]
    rows: list[list]
    summaries: list[dict[str, Any]]


@dataclass(frozen=True)
class Score:
    """One picture's measures, by the names in ``DIGITS``, before and after restoring."""

    name: str
    before: dict[str, float]
    after: dict[str, float]
    found: dict[str, Finding] = field(default_factory=dict)  # by a detector, if there is one


@dataclass
class Result:
    """All pictures of one data root."""

    root: str
    layout: str
    task: str
    scores: list[Score] = field(default_factory=list)
    sliders: list[Slider] = field(default_factory=list)

    def means(self) -> dict[str, tuple[float, float]]:
        """Return (before, after) of every measure, means over the pictures."""
        return {
            name: (
                mean([score.before[name] for score in self.scores]),
                mean([score.after[name] for score in self.scores]),
            )
            for name in self.scores[0].before
        }


    def found(self) -> dict[str, list[Finding]]:
        """Return the detections in every picture, in both ways."""
        return {way: [score.found[way] for score in self.scores] for way in self.scores[0].found}


def picture_report(results: list[Result], judge: Judge | None) -> Report:
    """
    Report single pictures, with the article's tables for the data sets of ``results``.

    With ``judge`` also what the detector found.
    """
    tables = [_summary(results)]
    if judge is not None:
        tables.append(detection_table(
            'What a detector finds', 'pictures of',
            [(label(Path(r.root)), r.task, r.found()) for r in results], judge,
        ))
    tables += [
        _comparison(published, results)
        for published in PUBLISHED
        if any(r.layout in layouts for layouts in published.columns.values() for r in results)
    ]
    measures = [f'{name} {when}' for when in ('before', 'after') for name in DIGITS]
    if judge is not None:
        measures += [f'{what} {when}' for when in ('before', 'after') for what in FOUND]
    rows: list[list] = [['root', 'layout', 'task', 'picture', *measures]]
    for result in results:
        for score in result.scores:
            values: list = [v.get(name, '') for v in (score.before, score.after) for name in DIGITS]
            if judge is not None:
                values += [n for f in score.found.values() for n in found_row(f, judge.score)]
            rows.append([result.root, result.layout, result.task, score.name, *values])
    summaries = [
        {
            'root': r.root, 'layout': r.layout, 'task': r.task, 'pictures': len(r.scores),
            'protocol': PROTOCOLS[r.layout].name,
            'measures': {
                name: {'before': finite(before), 'after': finite(after)}
                for name, (before, after) in r.means().items()
            },
        } | ({'detector': detection_summary(r.found(), judge.score)} if judge else {})
        for r in results
    ]
    return Report(tables, [slider for r in results for slider in r.sliders], rows, summaries)


def print_tables(console: Console, all_tables: list[Table]) -> None:
    """Print to the terminal."""
    for table in all_tables:
        shown = rich.table.Table(
            title=table.title, caption=table.note, caption_justify='left', title_justify='left'
        )
        for number, heading in enumerate(table.headings):
            shown.add_column(
                heading, justify='right' if number else 'left',
                overflow='fold', no_wrap=number > 0,
            )
        for row in table.rows:
            shown.add_row(*(rich.markup.escape(cell) for cell in row))
        console.print(shown)


def check_replaceable(folder: Path) -> None:
    """Raise ``OutputError`` if a file to write exists and is no report."""
    there = [folder / name for name in (*FILES, 'report.html') if (folder / name).exists()]
    try:
        facts = json.loads((folder / 'results.json').read_text())
        ours = facts['command'].startswith('evaluate ')
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        ours = False
    if there and not ours:
        raise OutputError(
            f'{there[0]} exists, and evaluate did not make it: move it away, '
            'or give another --output'
        )


def write_files(folder: Path, report: Report, facts: dict[str, Any]) -> None:
    """Write ``FILES`` into ``folder``, first the one that identifies a report."""
    text = json.dumps(facts | {'results': report.summaries}, indent=2, allow_nan=False)
    write_whole(folder / 'results.json', text + '\n')
    write_whole(folder / 'results.md', _markdown(report.tables, facts))
    table = io.StringIO()
    csv.writer(table).writerows(report.rows)
    write_whole(folder / 'results.csv', table.getvalue())


def write_page(path: Path, report: Report, facts: dict[str, Any]) -> None:
    """Write the tables and the pictures as one self-contained HTML file."""
    text = page(report.tables, report.sliders, fact_lines(facts))
    write_whole(path, text)


def fact_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the numbers depend on as (name, text): command, device, weights, detector."""
    shown = 'file', 'preset', 'trained_on', 'command', 'commit'
    weights = [
        (f'weights ({task})', '; '.join(f'{key}: {about[key]}' for key in shown if about[key]))
        for task, about in facts['weights'].items()
    ]
    versions = ', '.join(f'{name} {version}' for name, version in facts['versions'].items())
    detector = [
        ('detector', '; '.join(f'{name}: {value}' for name, value in facts['detector'].items()))
    ] if facts['detector'] else []
    return [('command', facts['command']), ('device', facts['device']), *weights, *detector,
            ('versions', versions)]


def markdown_table(table: Table) -> str:
    """Return ``table`` as Markdown, under a heading, with its note below."""
    lines = [f'## {table.title}', '', _markdown_row(table.headings)]
    lines.append('|---' + '|---:' * (len(table.headings) - 1) + '|')
    lines += [_markdown_row(row) for row in table.rows]
    lines += ['', table.note] if table.note else []
    return '\n'.join(lines) + '\n'


def label(path: Path) -> str:
    """Return the end of a root's path, which distinguishes the roots of one run."""
    return '/'.join(path.absolute().parts[-2:])


def mean(values: list[float]) -> float:
    """Return the mean of the finite values: an untouched picture (inf dB) must not hide others."""
    numbers = [value for value in values if math.isfinite(value)]
    return float(np.mean(numbers)) if numbers else values[0]


def finite(value: float) -> float | str:
    """Return ``value``, as text where it is infinite: JSON has no infinity."""
    return value if math.isfinite(value) else str(value)


def _summary(results: list[Result]) -> Table:
    present = [n for n in DIGITS if any(n in r.scores[0].before for r in results)]
    rows = []
    for result in results:
        means = result.means()
        rows.append((
            label(Path(result.root)), str(len(result.scores)), result.task,
            *(_change(name, means.get(name)) for name in present),
        ))
    protocols = {r.layout: PROTOCOLS[r.layout].name for r in results}
    note = ' '.join([f'Measured: {"; ".join(protocols.values())}.', LEGEND])
    headings = ('pictures of', 'n', 'task', *present)
    return Table('Input -> restored', headings, rows, note)


def _comparison(published: Published, results: list[Result]) -> Table:
    """Add our rows to those of the article; several roots of one set make several rows."""
    headings = ('method', *(f'{c} {m}' for c in published.columns for m in ('PSNR', 'SSIM')))
    rows = [
        (method, *(cell for pair in pairs for cell in pair))
        for method, pairs in published.rows.items()
    ]
    columns = [
        [r for r in results if r.layout in layouts] for layouts in published.columns.values()
    ]
    for number in range(max(map(len, columns))):
        ours = [column[number] if number < len(column) else None for column in columns]
        for name, measures in published.ours.items():
            cells = [_after(result, measure) for result in ours for measure in measures]
            rows.append((f'{name} ({number + 1})' if number else name, *cells))
    counts = ', '.join(
        f'{label(Path(r.root))} ({r.layout}, {len(r.scores)} pictures)'
        for column in columns for r in column
    )
    return Table(published.title, headings, rows, f'This run: {counts}. {published.note}'.strip())


def _markdown(tables: list[Table], facts: dict[str, Any]) -> str:
    lines = '\n'.join(f'- {name}: `{text}`' for name, text in fact_lines(facts))
    return '\n'.join([f'# Evaluation\n\n{lines}\n', *map(markdown_table, tables)])


def _markdown_row(cells: tuple[str, ...]) -> str:
    return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def _change(name: str, values: tuple[float, float] | None) -> str:
    if values is None:
        return '-'
    return ' -> '.join(f'{value:.{DIGITS[name]}f}' for value in values)


def _after(result: Result | None, name: str) -> str:
    return f'{result.means()[name][1]:.{DIGITS[name]}f}' if result else '-'
