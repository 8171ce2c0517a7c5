"""
Draw drops and dirt on the glass over the frames of a small sequence.

The soiling is refracting drops of many shapes, blurring films, dirt, insects, scratches, or a
passing wiper. Fixtures stay in place too but belong to the picture: the bonnet, a mirror, bars, a
logo.
"""

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import cv2
import numpy as np

WIDTH = 320  # pixels, the picture's width to which lengths below refer
SHARES = {'film': 0.1, 'dirt': 0.2, 'drops': 0.8, 'wiper': 0.12}  # of the sequences
UNSOILED = 0.15  # share of the sequences
WITH_FIXTURES = 0.4  # share of the sequences
NEW_ONES = 0.35  # chance of each further group of drops that falls during the sequence
OUT_OF_FOCUS = 0.5  # share of the groups of drops
RUNNING = 0.15  # share of the sequences with drops whose later groups run down


class Soiled(NamedTuple):
    """
    A soiled sequence: ``received`` and ``clean``, uint8 T x h x w x 3, RGB, and its ``cover``.

    ``cover`` is the share of each pixel that is covered, float32 T x h x w, 0..1.
    """

    received: np.ndarray
    clean: np.ndarray
    cover: np.ndarray


class _Water(NamedTuple):
    """Water on the glass: opacity, source position of each pixel, added brightness."""

    cover: np.ndarray
    source: np.ndarray
    shade: np.ndarray


def soil(
    frames: np.ndarray, rng: np.random.Generator, kinds: Collection[str] | None = None
) -> Soiled:
    """
    Return ``frames`` (uint8 T x h x w x 3, RGB) behind soiled glass.

    ``kinds`` are names of ``KINDS``; then there are no fixtures. None draws kinds and fixtures.
    """
    clean = frames
    if kinds is None:
        if rng.random() < WITH_FIXTURES:
            clean = _with_fixtures(frames, rng)
        kinds = [kind for kind, share in SHARES.items() if rng.random() < share]
        if rng.random() < UNSOILED:
            kinds = []
    cover = np.zeros(frames.shape[:3], np.float32)
    received: np.ndarray = clean.astype(np.float32)
    for kind in kinds:
        KINDS[kind](received, cover, rng)
    return Soiled(received.clip(0, 255).astype(np.uint8), clean, cover)


def _over(
    frame: np.ndarray, seen: np.ndarray | float, cover: np.ndarray, total: np.ndarray
) -> None:
    """Blend ``seen`` into ``frame`` with opacity ``cover``; ``total`` becomes the maximum."""
    frame += cover[..., None] * (seen - frame)
    np.maximum(total, cover, out=total)


def _drops(frames: np.ndarray, cover: np.ndarray, rng: np.random.Generator) -> None:
    count, height, width = frames.shape[:3]
    scale = width / WIDTH
    many = int(np.exp(rng.uniform(math.log(2), math.log(90))))
    large = rng.uniform(2, min(26, 75 / math.sqrt(many) + 3))
    defocus = rng.uniform(0.4, 4) * rng.random() + 0.4
    blur = scale * rng.uniform(0.8, 5)
    opacity = rng.uniform(0.4, 1)
    refraction = rng.random()
    groups = [0]
    while rng.random() < NEW_ONES and len(groups) < 3:
        groups.append(int(rng.integers(count)))
    running = rng.random() < RUNNING
    for group, first in enumerate(groups):
        water = _draw_water(
            (height, width), max(1, many // (1 + group)), large, defocus, refraction, rng
        )
        pace = np.float32(scale * rng.uniform(0.5, 4)) if running and group else 0.0
        for time in range(first, count):
            frame, down = frames[time], pace * (time - first)
            seen = cv2.GaussianBlur(frame, (0, 0), blur)
            if down:
                matrix = np.array([[1, 0, 0], [0, 1, down]], np.float32)
                there, source, shade = (
                    cv2.warpAffine(plane, matrix, (width, height)) for plane in water
                )
                source[..., 1] += down
            else:
                there, source, shade = water
            seen = cv2.remap(seen, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            seen += shade[..., None]
            _over(frame, seen, opacity * there, cover[time])


def _draw_water(
    size: tuple[int, int], many: int, large: float, defocus: float, refraction: float,
    rng: np.random.Generator,
) -> _Water:
    height, width = size
    scale = width / WIDTH
    defocus = scale * defocus
    cover, shade = np.zeros(size, np.float32), np.zeros(size, np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    source = np.dstack([x, y])
    rim = rng.uniform(-60, 60) * (rng.random() < 0.7)
    light = rng.uniform(-25, 45)
    for _ in range(many):
        radius = scale * (1.2 + large * rng.random() ** 1.5)
        middle = rng.uniform((0, 0), (width, height)).astype(np.float32)
        parts = [(middle, radius)]
        while rng.random() < 0.3:  # joined
            angle, away = rng.uniform(0, 2 * math.pi), radius * rng.uniform(0.6, 1.3)
            there = middle + away * np.array([math.cos(angle), math.sin(angle)], np.float32)
            parts.append((there, radius * rng.uniform(0.4, 1)))
        if rng.random() < 0.12:  # a drop that ran and left a trail
            parts += [
                (
                    middle - radius * np.array([0.2 * rng.normal(), step], np.float32),
                    radius * 0.45,
                )
                for step in np.arange(0.7, rng.uniform(1.5, 5), 0.35)
            ]
        reach = int(max(np.abs(p - middle).max() + r for p, r in parts) * 1.6 + 3 * defocus + 2)
        left, top = (max(0, int(m) - reach) for m in middle)
        part = np.s_[top : int(middle[1]) + reach + 1, left : int(middle[0]) + reach + 1]
        px, py = x[part] - middle[0], y[part] - middle[1]
        if not px.size:
            continue
        stretch = math.exp(0.25 * rng.normal())
        angle = np.arctan2(py, px)
        wave = sum(
            rng.normal() * 0.16 / k * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (1, 2, 3, 4)
        )
        inside = np.full(px.shape, -np.inf, np.float32)
        for there, r in parts:
            ax, ay = (x[part] - there[0]) * stretch, (y[part] - there[1]) / stretch
            inside = np.maximum(inside, r * (1 + wave) - np.sqrt(ax**2 + ay**2))
        drop = 1 / (1 + np.exp(-(inside / (0.35 * defocus)).clip(-30, 30)))
        kind = rng.random()
        if refraction < 0.7 and kind < 0.85:  # upside down and minified
            times = -rng.uniform(1.5, 0.6 * width / max(radius, 2 * scale))
        elif kind < 0.5:
            times = 1.0
        else:
            times = rng.uniform(1.2, 4)
        times = float(np.clip(times, -30, 30))
        seen_x, seen_y = middle[0] + times * px, middle[1] + times * py
        new = drop > cover[part]
        source[part][new] = np.stack([seen_x, seen_y], -1)[new]
        edge = np.exp(-((inside - 0.3 * radius) / (0.3 * radius + 0.5)) ** 2)
        bright = light - rim * edge * (0.6 + 0.4 * np.sign(py) * (rng.random() < 0.5))
        shade[part] = np.where(new, bright, shade[part])
        cover[part] = np.maximum(cover[part], drop)
    source = np.stack([
        source[..., 0].clip(-width, 2 * width), source[..., 1].clip(-height, 2 * height)
    ], -1).astype(np.float32)
    if defocus > scale:
        shade = cv2.GaussianBlur(shade, (0, 0), defocus / 2)
    if rng.random() < OUT_OF_FOCUS:  # defocus turns each point into a disc
        disc = _disc(scale * rng.uniform(0.7, 4))
        cover, shade = (cv2.filter2D(plane, -1, disc) for plane in (cover, shade))
    return _Water(cover, source, shade)


def _disc(radius: float) -> np.ndarray:
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (radius + 0.5 - np.hypot(x, y)).clip(0, 1).astype(np.float32)
    return disc / disc.sum()


def _film(frames: np.ndarray, cover: np.ndarray, rng: np.random.Generator) -> None:
    """Add a film of water or grease to parts of the glass; it blurs and brightens."""
    count, height, width = frames.shape[:3]
    field = smooth(int(rng.integers(3, 9)), (height, width), rng)
    if rng.random() < 0.5:  # bands that a wiper leaves
        y, x = np.mgrid[:height, :width] / np.float32(height)
        bands = np.sin(rng.uniform(10, 60) * (y + rng.normal() * 0.6 * x))
        field = field + bands.astype(np.float32)
    there = rng.uniform(0.3, 0.9) / (1 + np.exp(-4 * (field - rng.uniform(0.5, 1.3))))
    there = there.astype(np.float32)
    blur = width / WIDTH * rng.uniform(2, 7)
    veil, light = rng.uniform(0, 0.3), rng.uniform(120, 240)
    for time in range(count):
        seen = cv2.GaussianBlur(frames[time], (0, 0), blur)
        _over(frames[time], seen + veil * (light - seen), there, cover[time])


def _dirt(frames: np.ndarray, cover: np.ndarray, rng: np.random.Generator) -> None:
    """Add dry mud, insects or a scratch, in one colour and out of focus."""
    count, height, width = frames.shape[:3]
    scale = width / WIDTH
    there = np.zeros((height, width), np.float32)
    kind = rng.random()
    if kind < 0.5:
        field = smooth(int(rng.integers(4, 16)), (height, width), rng)
        field = field + 0.6 * smooth(30, (height, width), rng)
        there = 1 / (1 + np.exp(-rng.uniform(2, 8) * (field - rng.uniform(1.2, 2.2))))
    else:
        for _ in range(int(rng.integers(1, 14))):
            middle = tuple(int(n) for n in rng.uniform((0, 0), (width, height)))
            if kind < 0.85:
                axes = tuple(int(scale * n) for n in rng.uniform(1, 9, 2))
                cv2.ellipse(there, middle, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
            else:
                end = tuple(int(a + scale * rng.normal() * 40) for a in middle)
                cv2.line(there, middle, end, 1.0, int(scale * rng.uniform(1, 3)))
    there = cv2.GaussianBlur(there.astype(np.float32), (0, 0), scale * rng.uniform(0.7, 4))
    there *= rng.uniform(0.3, 1) / max(float(there.max()), 0.3)
    colour = rng.uniform(10, 190) * np.array([1, rng.uniform(0.8, 1), rng.uniform(0.6, 1)])
    grain = smooth(60, (height, width), rng)[..., None] * np.float32(rng.uniform(0, 10))
    seen = colour.astype(np.float32) + grain
    for time in range(count):
        _over(frames[time], seen, there, cover[time])


def _wiper(frames: np.ndarray, cover: np.ndarray, rng: np.random.Generator) -> None:
    """Add a wiper that crosses the picture in 3 to 8 frames, and maybe returns."""
    count, height, width = frames.shape[:3]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    pivot_x, pivot_y = width * rng.uniform(-0.2, 1.2), height * rng.uniform(1.0, 1.4)
    angle = np.arctan2(pivot_y - y, x - pivot_x)
    away = np.sqrt((pivot_y - y) ** 2 + (x - pivot_x) ** 2)
    sweep, first = int(rng.integers(3, 9)), int(rng.integers(0, count))
    begin, end = rng.uniform(-0.2, 0.3), math.pi + rng.uniform(-0.3, 0.2)
    if rng.random() < 0.5:
        begin, end = end, begin
    half, dark = width / WIDTH * rng.uniform(1.5, 8), rng.uniform(5, 50)
    smear = abs(end - begin) / sweep * rng.uniform(0.05, 0.4) / 2  # motion during the exposure
    back = rng.random() < 0.5
    for time in range(first, min(count, first + (2 * sweep if back else sweep))):
        step = (time - first) / sweep
        at = begin + (end - begin) * (step if step <= 1 else 2 - step)
        off = np.abs(angle - at) * away
        wide = half + smear * away
        there = ((wide - off) / (1.5 + smear * away) + 0.5).clip(0, 1)
        there *= min(1.0, half / (half + float(smear) * height * 0.5) + 0.5)
        _over(frames[time], float(dark), there.astype(np.float32), cover[time])


def _with_fixtures(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return frames with fixtures, which stay in place but are not dirt."""
    height, width = frames.shape[1:3]
    there = np.zeros((height, width), np.float32)
    seen = np.zeros((height, width, 3), np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    kinds: list[Callable[[], np.ndarray]] = [
        lambda: (y > height * (rng.uniform(0.72, 0.97) + rng.uniform(0, 0.4)
                               * (x / width - rng.uniform(0.2, 0.8)) ** 2)),
        lambda: np.minimum(y, height - 1 - y) < height * rng.uniform(0.02, 0.15),
        lambda: np.minimum(x, width - 1 - x) < width * rng.uniform(0.02, 0.15),
        lambda: _mirror(x, y, rng),
        lambda: _writing((height, width), rng),
        lambda: _sticker((height, width), rng),
    ]
    reflecting = np.float32(0)
    for number in rng.choice(len(kinds), int(rng.integers(1, 3)), replace=False):
        shape = kinds[number]().astype(np.float32)
        colour = rng.uniform(0, 160, 3) * rng.random()
        if number > 3:
            colour = rng.uniform(0, 255, 3)
        grain = smooth(int(rng.integers(3, 40)), (height, width), rng)
        texture = (y / height - 0.5) * rng.uniform(-60, 60) + rng.uniform(0, 12) * grain
        if number in (1, 2):
            colour, texture = rng.uniform(0, 20) * np.ones(3), 0 * texture
        shape = cv2.GaussianBlur(shape, (0, 0), rng.uniform(0.3, 1.0))
        if number == 4:
            shape *= rng.uniform(0.5, 1)
        new = (colour + texture[..., None]).clip(0, 255).astype(np.float32)
        seen += shape[..., None] * (new - seen)
        there = np.maximum(there, shape)
        if number == 0:
            reflecting = np.float32(rng.uniform(0, 0.3))
    result: np.ndarray = frames.astype(np.float32)
    for frame in result:
        mirrored = seen + reflecting * (cv2.GaussianBlur(frame[::-1], (0, 0), 3) - seen)
        frame += there[..., None] * (mirrored - frame)
    return result.clip(0, 255).astype(np.uint8)


def _mirror(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = x.shape
    off_x = (x - width * rng.uniform(0, 1)) / (width * rng.uniform(0.08, 0.25))
    off_y = (y - height * rng.uniform(-0.05, 0.1)) / (height * rng.uniform(0.05, 0.2))
    return off_x**4 + off_y**4 < 1


def _writing(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    shape = np.zeros(size, np.uint8)
    place = tuple(int(n) for n in rng.uniform((0, 10), (size[1] * 0.7, size[0])))
    text = ''.join(chr(n) for n in rng.integers(48, 91, int(rng.integers(3, 20))))
    scale = rng.uniform(0.25, 0.9)
    cv2.putText(shape, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 1, cv2.LINE_AA)
    return shape / np.float32(255)


def _sticker(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    shape = np.zeros(size, np.float32)
    x, y = (int(n) for n in rng.uniform((0, 0), (size[1], size[0])))
    wide, high = (int(n) for n in rng.uniform(4, 30, 2))
    if rng.random() < 0.5:
        cv2.rectangle(shape, (x, y), (x + wide, y + high), 1.0, -1)
    else:
        cv2.circle(shape, (x, y), wide // 2 + 2, 1.0, -1)
    return shape


def smooth(cells: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise, standard deviation about 1, float32 of ``size`` (height, width)."""
    noise = rng.standard_normal((cells, cells), np.float32)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)


KINDS: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], None]] = {
    'film': _film, 'dirt': _dirt, 'drops': _drops, 'wiper': _wiper,
}
