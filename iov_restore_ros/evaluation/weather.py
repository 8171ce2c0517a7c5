"""Synthetic weather for measurements on sharp frames: veil, rain, dirt and drops on the glass."""

import math
from collections.abc import Collection

import numpy as np
import torch

from iov_restore_ros.pictures.degradations import shower
from iov_restore_ros.pictures.files import to_pictures, to_tensor
from iov_restore_ros.pictures.soiled import KINDS as ON_GLASS
from iov_restore_ros.pictures.soiled import soil
from iov_restore_ros.pictures.veils import draw_light

KINDS = 'veil', 'rain', *ON_GLASS  # in the order in which they are drawn
HORIZONS = 0.3, 0.55  # of the height
THROUGH = 0.2, 0.6  # transmission at the horizon
TIMES_NEARER = 2.0, 12.0  # distance of the horizon / distance of the lowest row, minus one
FITS = 1.1  # largest factor on the requested share of drops


def put_on(frames: np.ndarray, kinds: Collection[str], seed: int) -> np.ndarray:
    """
    Return ``frames`` (uint8 T x H x W x 3, RGB, T > 1) degraded by ``kinds`` of ``KINDS``.

    A kind is drawn with ``seed`` and its name, independent of the other kinds.
    """
    for number, kind in enumerate(KINDS):
        if kind not in kinds:
            continue
        rng = np.random.default_rng((seed, number))
        if kind == 'veil':
            frames = _veil(frames, rng)
        elif kind == 'rain':
            torch_rng = torch.Generator().manual_seed(seed)
            frames = to_pictures(shower(to_tensor(frames).float() / 255, 1.0, torch_rng))
        else:
            frames = soil(frames, rng, [kind]).received
    return frames


def veiled(frames: np.ndarray, through: np.ndarray | float, light: np.ndarray) -> np.ndarray:
    """
    Return ``frames`` (uint8 T x H x W x 3, RGB) in a veil of the airlight ``light`` (3, 0..1).

    ``through`` is the transmission, 0..1, for all or for each row (H x 1 x 1).
    """
    seen = frames * np.float32(through) + 255 * light * np.float32(1 - through)
    return seen.round().clip(0, 255).astype(np.uint8)


def behind_drops(frames: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """
    Return ``frames`` (uint8 T x H x W x 3, RGB, T > 1) behind drops that cover ``share``, 0..1.

    The drops cover ``share`` of the last frame, up to ``FITS`` times as much. Drops are added one
    by one, so with the same ``rng`` a larger share contains the drops of a smaller one.
    """
    cover = np.zeros(frames.shape[1:3], np.float32)
    while cover.mean() < share:
        more = soil(frames, rng, ['drops'])
        total = np.maximum(cover, more.cover[-1])
        if total.mean() <= FITS * share:
            frames, cover = more.received, total
    return frames


def _veil(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return ``frames`` in a veil that grows up to a horizon and is the same in all frames."""
    horizon = rng.uniform(*HORIZONS)
    rows = np.linspace(0, 1, frames.shape[1], dtype=np.float32)[:, None, None]
    below = (rows - horizon).clip(0) / (1 - horizon)
    distance = 1 / (1 + rng.uniform(*TIMES_NEARER) * below)
    through = np.exp(math.log(rng.uniform(*THROUGH)) * distance)
    return veiled(frames, through, draw_light(frames[0] / 255, rng))
