"""The demo's table and its page of pictures."""

import html
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from iov_restore_ros.evaluation.report_page import data_url

HEADINGS = (
    'scene', 'mode', 'task', 'frames in', 'restored', 'dropped', 'fps', 'p50 ms', 'p99 ms',
    'PSNR dB',
)
STYLE = """
body { font: 16px system-ui, sans-serif; margin: 2rem auto; max-width: 1500px; color: #222 }
table { border-collapse: collapse } td, th { padding: .3rem .8rem; border-bottom: 1px solid #ccc }
td:nth-child(n+4) { text-align: right } figure { display: inline-block; margin: .4rem; width: 31% }
img { width: 100% } figcaption { color: #666 }
"""


@dataclass(frozen=True)
class Row:
    """What was counted and measured in one mode; PSNR in dB where the truth is known."""

    scene: str
    mode: str
    task: str
    received: int
    restored: int
    dropped: int
    fps: float
    latency_p50: float  # ms, from the stamp to the subscriber; p99 too
    latency_p99: float
    psnr_before: float | None
    psnr_after: float | None

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, in the order of ``HEADINGS``."""
        quality = '-'
        if self.psnr_before is not None and self.psnr_after is not None:
            quality = f'{self.psnr_before:.2f} -> {self.psnr_after:.2f}'
        return (
            self.scene, self.mode, self.task, str(self.received), str(self.restored),
            str(self.dropped), f'{self.fps:.1f}', f'{self.latency_p50:.0f}',
            f'{self.latency_p99:.0f}', quality,
        )


@dataclass(frozen=True)
class Sample:
    """A frame before and after, and the truth if it is known; uint8 H x W x 3, RGB."""

    degraded: np.ndarray
    restored: np.ndarray
    sharp: np.ndarray | None


def print_table(console: Console, rows: list[Row], device: str) -> None:
    """Print the table to the terminal."""
    table = Table(title=device, caption='p50, p99: latency from the stamp to the subscriber')
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify='left' if number < 3 else 'right', no_wrap=True)
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)


def write_report(path: Path, pictures: list[tuple[Row, list[Sample]]], device: str) -> None:
    """Write one page that holds the table and the pictures."""
    parts = [
        '<!doctype html><meta charset="utf-8"><title>iov_restore demo</title>',
        f'<style>{STYLE}</style><h1>iov_restore demo</h1><p>{html.escape(device)}</p><table><tr>',
        *(f'<th>{heading}</th>' for heading in HEADINGS), '</tr>',
    ]
    for row, _ in pictures:
        cells = ''.join(f'<td>{html.escape(cell)}</td>' for cell in row.cells())
        parts.append(f'<tr>{cells}</tr>')
    parts.append('</table>')
    for row, samples in pictures:
        if row.mode == 'passthrough':
            continue
        parts.append(f'<h2>{html.escape(row.scene)}: {row.mode} ({row.task})</h2>')
        for sample in samples:
            parts.append('<div>')
            for caption in ('degraded', 'restored', 'sharp'):
                image = getattr(sample, caption)
                if image is not None:
                    parts.append(f'<figure><img src="{data_url(image)}">'
                                 f'<figcaption>{caption}</figcaption></figure>')
            parts.append('</div>')
    path.write_text('\n'.join(parts), encoding='utf-8')


def write_before_after(path: Path, pictures: list[tuple[Row, list[Sample]]]) -> None:
    """Write one picture: of every task the frame that changed most, before and after."""
    rows = {}
    for row, samples in pictures:
        if row.task != 'none' and samples:
            changed = max(samples, key=lambda s: cv2.absdiff(s.degraded, s.restored).mean())
            rows[row.task] = np.hstack([changed.degraded, changed.restored])
    if rows:
        cv2.imwrite(str(path), cv2.cvtColor(np.vstack(list(rows.values())), cv2.COLOR_RGB2BGR))
