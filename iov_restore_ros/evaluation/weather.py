"""Weather put on sharp frames to measure by: a veil, rain, and what lies on the glass."""

import math
from collections.abc import Collection

import numpy as np
import torch

from iov_restore_ros.pictures.degradations import shower
from iov_restore_ros.pictures.files import to_pictures, to_tensor
from iov_restore_ros.pictures.soiled import KINDS as ON_GLASS
from iov_restore_ros.pictures.soiled import soil
from iov_restore_ros.pictures.veils import draw_light

KINDS = 'veil', 'rain', *ON_GLASS  # in the order in which they are put on
HORIZONS = 0.3, 0.55  # of the height
THROUGH = 0.2, 0.6  # of the light from the horizon
TIMES_NEARER = 2.0, 12.0  # that the lowest row is nearer than the horizon, less one
FITS = 1.1  # times a share of drops that may be covered instead


def put_on(frames: np.ndarray, kinds: Collection[str], seed: int) -> np.ndarray:
    """
    Return ``frames`` (uint8 T x H x W x 3, RGB, T > 1) with ``kinds`` of ``KINDS`` put on.

    A kind is drawn by ``seed`` and its name, whatever else is put on.
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
    Return ``frames`` (uint8 T x H x W x 3, RGB) in a veil of one colour ``light`` (3, 0..1).

    ``through`` is how much of the light comes through, 0..1, for all or for each row (H x 1 x 1).
    """
    seen = frames * np.float32(through) + 255 * light * np.float32(1 - through)
    return seen.round().clip(0, 255).astype(np.uint8)


def behind_drops(frames: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """
    Return ``frames`` (uint8 T x H x W x 3, RGB, T > 1) behind drops that cover ``share``, 0..1.

    That is of the last frame, and up to ``FITS`` times as much. Drops are added until they do, so
    that with the same ``rng`` a larger share begins as a smaller one does.
    """
    cover = np.zeros(frames.shape[1:3], np.float32)
    while cover.mean() < share:
        more = soil(frames, rng, ['drops'])
        total = np.maximum(cover, more.cover[-1])
        if total.mean() <= FITS * share:
            frames, cover = more.received, total
    return frames


def _veil(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return ``frames`` in a veil that grows up to a horizon, the same in all of them."""
    horizon = rng.uniform(*HORIZONS)
    rows = np.linspace(0, 1, frames.shape[1], dtype=np.float32)[:, None, None]
    below = (rows - horizon).clip(0) / (1 - horizon)
    distance = 1 / (1 + rng.uniform(*TIMES_NEARER) * below)
    through = np.exp(math.log(rng.uniform(*THROUGH)) * distance)
    return veiled(frames, through, draw_light(frames[0] / 255, rng))
