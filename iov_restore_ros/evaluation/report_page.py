"""The HTML page of the results: tables, pictures with a slider, and loops."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np
from PIL import Image

LONGEST_SIDE = 960  # pixels of a picture in the page
LOOP_QUALITY = 55  # of WebP

STYLE = """
:root { color-scheme: light dark; --text: #1d2330; --soft: #667085; --line: #dfe3ea;
  --paper: #fff; --ground: #f5f6f8; --mark: #0b6bcb }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ec; --soft: #98a2b3; --line: #2c323d;
  --paper: #171b22; --ground: #0e1116; --mark: #6cb2ff } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1400px; padding: 2.5rem 1.5rem 4rem; background: var(--ground);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.9rem; margin: 0 0 1rem } h2 { font-size: 1.2rem; margin: 2.5rem 0 .7rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: 13px }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
dd, td { font-variant-numeric: tabular-nums }
.scroll { overflow-x: auto; background: var(--paper); border: 1px solid var(--line);
  border-radius: 10px }
table { border-collapse: collapse; width: 100% }
th, td { padding: .5rem .9rem; text-align: right; white-space: nowrap }
th { color: var(--soft); font-weight: 600; font-size: 13px }
th:first-child, td:first-child { text-align: left }
tr + tr > * { border-top: 1px solid var(--line) }
.run td { color: var(--mark); font-weight: 600 }
.note { color: var(--soft); font-size: 13px; max-width: 90ch }
.pictures { display: grid; gap: 1.5rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 520px), 1fr)) }
figure { margin: 0; background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  overflow: hidden }
.stage { position: relative; --at: 50% }
.stage img { display: block; width: 100%; height: auto }
.stage > * + img { position: absolute; inset: 0 }
.before { clip-path: inset(0 calc(100% - var(--at)) 0 0) }
.sharp, .paused { visibility: hidden }
figure:has(:checked) :is(.sharp, .paused) { visibility: visible }
.boxes { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none }
.boxes:is(.after, .sharp) { clip-path: inset(0 0 0 var(--at)) }
figure:has(.sharp):has(:checked) .after, main:has(.switch input:not(:checked)) .boxes
  { display: none }
.boxes path { fill: none; stroke: #3ddc65; stroke-width: 2; vector-effect: non-scaling-stroke }
.boxes .missed { stroke: #ff4d4d; stroke-dasharray: 5 4 }
.boxes .wrong { stroke: #ffc53d; stroke-dasharray: 1 3 }
.switch label { float: none }
.stage i { position: absolute; inset: 0 auto 0 var(--at); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 4px #000a; pointer-events: none }
.stage b { position: absolute; bottom: .6rem; padding: .1rem .5rem; border-radius: 5px;
  background: #000a; color: #fff; font-size: 12px; font-weight: 500; pointer-events: none }
.stage .left { left: .6rem } .stage .right { right: .6rem }
.right::after { content: 'restored' }
figure:has(.sharp):has(:checked) .right::after { content: 'sharp' }
.stage input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0;
  cursor: ew-resize; touch-action: pan-y }
.scroll:focus-visible, .stage:has(:focus-visible) { outline: 3px solid var(--mark);
  outline-offset: -3px }
.loop { grid-column: 1 / -1; max-width: 960px }
figcaption { padding: .6rem .9rem; font-size: 13px; overflow-wrap: anywhere }
figcaption span { display: block; color: var(--soft) } label { float: right; cursor: pointer }
"""
SCRIPT = """
addEventListener('input', ({target}) => {
  if (target.type === 'range')
    target.parentElement.style.setProperty('--at', target.value + '%');
});
"""

SWITCH = """<p class="note switch"><label><input type="checkbox" checked> boxes of the detector: a
line where it finds what is there, dashes where it misses it, dots where it is wrong</label></p>"""


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column is a name, the others are numbers."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ''


@dataclass(frozen=True)
class Slider:
    """A picture before and after as data URLs, the sharp one if there is one, and boxes."""

    title: str
    text: str
    before: str
    after: str
    sharp: str = ''
    boxes: str = ''  # SVG over it, see `detection_report.overlay`


@dataclass(frozen=True)
class Loop:
    """Consecutive frames, input beside restored, as data URLs: animated, and one still."""

    title: str
    text: str
    moving: str
    still: str


def data_url(image: np.ndarray, quality: int = 88) -> str:
    """Return uint8 H x W x 3 RGB as a JPEG data URL, no side longer than ``LONGEST_SIDE``."""
    bgr = cv2.cvtColor(_fit(image), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return 'data:image/jpeg;base64,' + base64.b64encode(data.tobytes()).decode()


def loop_url(frames: Sequence[np.ndarray], fps: float) -> str:
    """Return uint8 H x W x 3 RGB frames as an animated WebP data URL, sized as ``data_url``."""
    first, *others = (Image.fromarray(_fit(frame)) for frame in frames)
    file = io.BytesIO()
    first.save(
        file, 'WEBP', save_all=True, append_images=others, duration=round(1000 / fps), loop=0,
        quality=LOOP_QUALITY,
    )
    return 'data:image/webp;base64,' + base64.b64encode(file.getvalue()).decode()


def page(
    tables: Sequence[Table], sliders: Sequence[Slider], facts: Sequence[tuple[str, str]],
    loops: Sequence[Loop] = (), title: str = 'iov_restore evaluation',
) -> str:
    """Return the page as HTML without references to other files."""
    described = ''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in facts)
    pictures = ''.join([*map(_loop, loops), *map(_figure, sliders)])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{STYLE}</style></head><body><main>
<h1>{escape(title)}</h1>
<dl>{described}</dl>
{''.join(map(_table, tables))}
<h2>Pictures</h2>
{SWITCH if any(slider.boxes for slider in sliders) else ''}
<div class="pictures">{pictures}</div></main>
<script>{SCRIPT}</script>
</body></html>
"""


def _table(table: Table) -> str:
    head = ''.join(f'<th scope="col">{escape(heading)}</th>' for heading in table.headings)
    rows = []
    for row in table.rows:
        ours = ' class="run"' if row[0].startswith('this run') else ''
        cells = ''.join(f'<td>{_text(cell)}</td>' for cell in row)
        rows.append(f'<tr{ours}>{cells}</tr>')
    title = _text(table.title)
    return (
        f'<h2>{title}</h2>\n<div class="scroll" role="region" tabindex="0" aria-label="{title}">\n'
        f'<table><tr>{head}</tr>\n'
        + '\n'.join(rows) + f'\n</table></div>\n<p class="note">{escape(table.note)}</p>\n'
    )


def _figure(slider: Slider) -> str:
    title = escape(slider.title)
    sharp = switch = ''
    if slider.sharp:
        sharp = f'<img class="sharp" src="{slider.sharp}" alt="{title}, sharp">'
        switch = '<label><input type="checkbox"> sharp picture</label>'
    return f"""
<figure><div class="stage"><img src="{slider.after}" alt="{title}, restored">{sharp}
<img class="before" src="{slider.before}" alt="{title}, input">{slider.boxes}
<i></i><b class="left">input</b>
<b class="right"></b>
<input type="range" value="50" step="any" aria-label="{title}: how much of it is the input"></div>
<figcaption>{switch}{title}<span>{_text(slider.text)}</span></figcaption></figure>"""


def _loop(loop: Loop) -> str:
    title = escape(loop.title)
    return f"""
<figure class="loop"><div class="stage"><picture>
<source media="(prefers-reduced-motion: reduce)" srcset="{loop.still}">
<img src="{loop.moving}" alt="{title}, consecutive frames: left the input, right restored">
</picture><img class="paused" src="{loop.still}" alt="{title}, one of the frames">
<b class="left">input</b><b class="right"></b></div>
<figcaption><label><input type="checkbox"> pause</label>{title}
<span>{_text(loop.text)}</span></figcaption></figure>"""


def _fit(image: np.ndarray) -> np.ndarray:
    """Shrink a picture whose longest side is above ``LONGEST_SIDE``."""
    scale = LONGEST_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _text(text: str) -> str:
    return escape(text.replace('->', '→'))
