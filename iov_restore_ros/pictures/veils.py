"""
Whole pictures for training the veil finder: some with a known veil, the others without one.

Scenes without black (mist, snow, a tunnel, night, bad exposure) look much like veiled scenes. So
most of the pictures have no veil, and many of those show such scenes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from torch.utils.data import Dataset

from iov_restore_ros.pictures.degradations.layers import StreakLayers
from iov_restore_ros.pictures.degradations.rain import draw_fall
from iov_restore_ros.pictures.files import (
    DataError,
    Pictures,
    Still,
    flip_at_random,
    list_images,
    list_stills,
    read_image,
)
from iov_restore_ros.pictures.soiled import smooth
from iov_restore_ros.pictures.thumbnail import COLUMNS, ROWS, THUMBNAIL, darkest, describe

KEPT_SIDE = 640  # pixels, greatest longer side of the pictures in memory
VEILED = 0.45  # share of the pictures with a veil
OWN_MIST = 0.2  # share of the others with mist that counts as part of the scene
IN_RAIN = 0.4  # share of all pictures, veiled or not, with streaks
DEPTHS = np.exp(np.linspace(-5.3, 0, 256)).astype(np.float32)  # depth for each value in a file
FALLS = 150  # drawn pictures of streaks
NOISE = 200  # rows of noise beyond the height of a picture
COLOURS = np.array([-1, 0, 1], np.float32)  # direction of a tint towards blue
SIZE = THUMBNAIL[1], THUMBNAIL[0]


class VeiledPicture(NamedTuple):
    """
    A picture, ``described`` by `thumbnail.describe`, and its veil.

    ``mean``: float32 3 x ROWS x COLUMNS, RGB, 0..1, the colour of each cell; ``through``: the
    transmission, ROWS x COLUMNS, 0..1; ``light``: the airlight, 3, 0..1, RGB; ``veiled``: 1 with a
    veil, else 0.
    """

    described: np.ndarray
    mean: np.ndarray
    through: np.ndarray
    light: np.ndarray
    veiled: np.float32


@dataclass(frozen=True)
class VeilSources:
    """The sources of the pictures."""

    stills: Pictures  # uint8 H x W x 3
    measured: Pictures | None = None  # uint8 H x W x 4, the last channel is the depth
    measured_share: float = 0.2  # of the pictures
    layers: StreakLayers | None = None  # for half of the pictures in rain


def find_veil_sources(
    root: Path, depth: Path | None, layers: Path | None, cache_gb: float, share: float
) -> VeilSources:
    """
    Return the pictures and videos below ``root``, and those below ``depth``/picture.

    The depth of the latter is a PNG of the same name below ``depth``/depth. Raises ``DataError``.
    """
    measured = None
    if depth is not None:
        measured = Pictures(list_images(depth / 'picture'), read_with_depth, cache_gb)
    return VeilSources(
        Pictures(list_stills(root), read_small, cache_gb), measured, share,
        StreakLayers(layers, cache_gb) if layers else None,
    )


class Veils(Dataset):
    """Picture number i, a function of (seed, i) alone, see ``VeiledPicture``."""

    def __init__(self, sources: VeilSources, count: int, seed: int) -> None:
        self.sources, self.count, self.seed = sources, count, seed
        rng = np.random.default_rng(seed)
        self.noise = rng.standard_normal((NOISE + SIZE[0], SIZE[1], 3), np.float32)
        self.falls: dict[int, np.ndarray] = {}  # those already drawn, by number

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> VeiledPicture:
        rng = np.random.default_rng((self.seed, index))
        picture, depth = self._draw(rng)
        picture = _of_its_own(picture, rng)
        veiled = rng.random() < VEILED
        through = np.ones(SIZE, np.float32)
        light = np.full(3, 0.8, np.float32)
        if veiled:
            through = draw_through(picture, depth, 0.25, rng)
            light = draw_light(picture, rng)
            picture = _mix(picture, through, light)
        elif rng.random() < OWN_MIST:
            mist = draw_through(picture, depth, 0.6, rng)
            picture = _mix(picture, mist, draw_light(picture, rng))
        if rng.random() < IN_RAIN:
            picture = self._rainy(picture, rng)
        noise = self.noise[int(rng.integers(NOISE)) :][: SIZE[0]]
        picture = cv2.scaleAdd(noise, rng.uniform(0, 0.012), picture.astype(np.float32, copy=False))
        seen = cv2.multiply(picture, 255.0, dtype=cv2.CV_8U)
        described = describe(seen)
        return VeiledPicture(
            described, described[:3] + np.float32(0.5),
            cv2.resize(through, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA), light,
            np.float32(veiled),
        )

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        """Return a part of a picture, uint8, and its depth, or None if that is unknown."""
        sources = self.sources
        pictures = sources.stills
        if sources.measured is not None and rng.random() < sources.measured_share:
            pictures = sources.measured
        image = pictures[int(rng.integers(len(pictures.sources)))]
        height, width = image.shape[:2]
        across = int(width * rng.uniform(0.6, 1))
        down = min(height, int(across * rng.uniform(0.5, 0.75)))
        top, left = rng.integers((height - down + 1, width - across + 1))
        part = flip_at_random(image[top : top + down, left : left + across], rng, upside_down=0.0)
        part = cv2.resize(np.ascontiguousarray(part), THUMBNAIL, interpolation=cv2.INTER_AREA)
        if part.shape[-1] == 3:
            return part, None
        return np.ascontiguousarray(part[..., :3]), cv2.LUT(part[..., 3], DEPTHS)

    def _rainy(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.sources.layers is not None and rng.random() < 0.5:
            fall = self.sources.layers.draw(1, THUMBNAIL[0], rng)[0, 0, : SIZE[0]].numpy()
        else:
            number = int(rng.integers(FALLS))
            if number not in self.falls:
                self.falls[number] = draw_fall(SIZE, number % 2 + 1, number)
            fall = self.falls[number]
            fall = flip_at_random(fall[..., None], rng)[..., 0] * np.float32(rng.uniform(0.3, 1.3))
        fall = fall[..., None]
        if rng.random() < 0.3:  # these streaks hide the scene instead of adding light
            level = np.float32(rng.uniform(0.6, 1))
            return picture + np.minimum(1.5 * fall, 1) * (level - picture).clip(0)
        return picture + fall


def draw_through(
    picture: np.ndarray, depth: np.ndarray | None, least: float, rng: np.random.Generator
) -> np.ndarray:
    """
    Return a transmission for each pixel of ``picture`` (float32 H x W x 3, 0..1), float32 H x W.

    The transmission falls with ``depth`` (any unit). If that is None, a guessed depth takes its
    place. At the mean depth the transmission is ``least`` to 0.93.
    """
    if depth is None:
        depth = guess_depth(picture, rng)
    elif rng.random() < 0.3:  # uneven fog
        depth = depth * (1 + 0.3 * smooth(4, SIZE, rng)).clip(0.2)
    depth = depth.clip(0.02) / depth.mean()
    thickness = -np.log(rng.uniform(least, 0.93))
    return np.exp(-thickness * depth).clip(0.05, 1)


def guess_depth(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a plausible depth for ``picture``: nearly even, random, or by rows and parts."""
    kind = rng.random()
    rows = np.linspace(0, 1, SIZE[0], dtype=np.float32)[:, None] + np.zeros(SIZE, np.float32)
    if kind < 0.3:  # like a film over everything, thicker above or below
        return 1 + rng.uniform(-0.6, 0.6) * (1 - 2 * rows) + 0.1 * smooth(3, SIZE, rng)
    if kind < 0.4:
        return np.exp(0.7 * smooth(5, SIZE, rng))
    horizon = rng.uniform(0.25, 0.6)
    below = (rows - horizon) / (1 - horizon)
    depth = np.where(below > 0, 1 / (1 + rng.uniform(2, 12) * below.clip(0)), 1)
    if kind < 0.7:  # a road, objects beside it, and the sky
        stands = np.exp(0.5 * smooth(6, SIZE, rng)).clip(0.2, 1.5)
        depth = depth * stands
    parts = cv2.GaussianBlur(picture, (0, 0), 2)
    index = (parts @ rng.dirichlet((1, 1, 1)).astype(np.float32) * rng.uniform(4, 9)).astype(int)
    depth = depth * np.exp(rng.uniform(0.1, 0.6) * rng.standard_normal(12))[index.clip(0, 11)]
    bright = cv2.GaussianBlur(darkest(picture), (0, 0), 3)
    sky = (bright > rng.uniform(0.5, 0.75)) & (rows < horizon)
    depth = np.where(sky, depth.max() * rng.uniform(1, 3), depth)
    return cv2.GaussianBlur(depth.astype(np.float32), (0, 0), rng.uniform(0.5, 4))


def draw_light(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an airlight: white to grey, in half of the cases tinted, darker by night."""
    level = rng.uniform(0.45, 0.98)
    if picture.mean() < 0.2:
        level *= rng.uniform(0.3, 1)
    tint: np.ndarray = np.zeros(3)
    if rng.random() < 0.5:
        tint = rng.uniform(-0.02, 0.05) * COLOURS + 0.01 * rng.standard_normal(3)
    return (level + tint).clip(0.08, 1).astype(np.float32)


def read_with_depth(path: Path) -> np.ndarray:
    """Return a picture and its depth file, uint8 H x W x 4. Raises ``DataError``."""
    image = read_image(path)
    file = path.parents[1] / 'depth' / f'{path.stem}.png'
    depth = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    if depth is None or depth.shape != image.shape[:2]:
        raise DataError(f'{file}: not the depths of {path}')
    return _small(np.dstack([image, depth]))


def _mix(picture: np.ndarray, through: np.ndarray, light: np.ndarray) -> np.ndarray:
    return picture * through[..., None] + light * (1 - through[..., None])


def _of_its_own(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """
    Return ``picture`` (uint8) as float32, 0..1: unchanged, or in another exposure or light.
    """
    kind, level = rng.random(), np.linspace(0, 1, 256)
    if 0.35 < kind < 0.7:  # over- or underexposed
        level = level ** rng.uniform(0.6, 1.8) * rng.uniform(0.6, 1.4)
    elif 0.7 < kind < 0.8:  # night, tunnels
        level = level ** rng.uniform(1.2, 2.5) * rng.uniform(0.1, 0.6)
    elif 0.8 < kind < 0.88:  # snow, glare: bright nearly everywhere, but with black
        level = 1 - (1 - level) ** rng.uniform(1.5, 3)
    elif 0.88 < kind < 0.94:  # no black, little contrast
        black = rng.uniform(0.05, 0.3)
        level = black + level * rng.uniform(0.4, 0.95 - black)
    changed = cv2.LUT(picture, level.clip(0, 1).astype(np.float32))
    if kind > 0.94:  # little colour
        grey = cv2.merge([cv2.cvtColor(changed, cv2.COLOR_RGB2GRAY)] * 3)
        return cv2.addWeighted(changed, colour := rng.uniform(0, 0.5), grey, 1 - colour, 0)
    return changed


def read_small(still: Still) -> np.ndarray:
    """Return ``still``, uint8 H x W x 3, ``KEPT_SIDE`` pixels at most. Raises ``DataError``."""
    return _small(still.read())


def _small(image: np.ndarray) -> np.ndarray:
    scale = KEPT_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
