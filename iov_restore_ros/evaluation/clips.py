"""The clips of `evaluate --video`: pairs in order, and sharp footage that is degraded here."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from iov_restore_ros.evaluation.sources import Root, locate, seed_of
from iov_restore_ros.evaluation.weather import put_on
from iov_restore_ros.pictures.clips import pair_sequences, read_pairs
from iov_restore_ros.pictures.datasets import LAYOUTS, find_pairs
from iov_restore_ros.pictures.degradations.blur import GAMMA
from iov_restore_ros.pictures.degradations.draw import sensor_noise
from iov_restore_ros.pictures.files import DataError, to_pictures, to_tensor
from iov_restore_ros.pictures.footage import MARGIN, Footage, expose, list_footage
from iov_restore_ros.pictures.readings import Pair
from iov_restore_ros.video.flow import SMALLEST

IN_ORDER = ('folders', 'gopro', 'gopro_gamma')  # layouts with consecutive pictures
SHORTEST = 4  # frames: two with a full history, so that flicker can be measured
SHUTTERS = 0.3, 1.0  # range of random shutters for blur
PLACES = 1 / 2, 1 / 4, 3 / 4  # of a video, where clips are taken


def open_clips(
    text: str, task: str | None, synthetic: int | None, limit: int, shutter: float,
    kinds: Sequence[str] = (),
) -> Root:
    """
    Find the clips of ``[TASK:][LAYOUT=]ROOT``, of ``SHORTEST`` frames to ``limit``.

    ``task`` is for roots that name none. With ``synthetic``, footage is degraded with that seed and
    its name: blurred for the share ``shutter`` (0..1) of the frame time, where 0 means random; or
    in the weather ``kinds`` of `weather.KINDS`, by default rain. Raises ``DataError`` for an
    unusable root, and ``ValueError`` for an unusable argument.
    """
    path, name, layout, task = locate(text, task, synthetic)
    if kinds and task != 'derain':
        raise ValueError(f'{text}: --kind is for derain, not for {task}: leave it out')
    if kinds and layout in LAYOUTS:
        raise ValueError(
            f'{text}: pairs are degraded already, --kind is for sharp footage: leave it out'
        )
    if layout in LAYOUTS:
        if layout not in IN_ORDER:
            raise ValueError(
                f'{text}: {layout} are single pictures, --video takes {", ".join(IN_ORDER)}'
            )
        return _pair_clips(path, name, layout, task, limit)
    if synthetic is None:
        raise ValueError(
            f'{text}: sharp frames alone show nothing: give --synthetic SEED, '
            'or a folder with input/ and gt/'
        )
    degrade = partial(_blurred, shutter=shutter)
    if task == 'derain':
        degrade = partial(_in_weather, kinds=kinds or ('rain',))
    return _footage_clips(path, layout, task, synthetic, limit, degrade)


def _pair_clips(path: Path, name: str, layout: str, task: str, limit: int) -> Root:
    sequences = [
        sequence[:limit] for sequence in pair_sequences(find_pairs(path, name, 'test'))
        if len(sequence) >= SHORTEST
    ]
    if not sequences:
        raise DataError(f'{path}: no folder of {SHORTEST} consecutive pairs and more')
    clips = {
        sequence[0].degraded.parent.relative_to(path).as_posix(): sequence
        for sequence in sequences
    }
    return Root(
        path, layout, task, [(clip, partial(_pairs, pairs)) for clip, pairs in clips.items()],
        {clip: [pair.name for pair in pairs] for clip, pairs in clips.items()},
    )


def _footage_clips(
    path: Path, layout: str, task: str, synthetic: int, limit: int,
    degrade: Callable[[Footage, int, int], tuple[np.ndarray, np.ndarray]],
) -> Root:
    names = {
        footage.path.relative_to(path).as_posix() if footage.path != path else path.name: footage
        for footage in list_footage(path)
    }
    return Root(
        path, layout, task, [
            (name, partial(degrade, footage, limit, seed_of(synthetic, name)))
            for name, footage in names.items()
        ],
        {name: _frame_names(name, footage, limit) for name, footage in names.items()},
    )


def _frame_names(name: str, footage: Footage, limit: int) -> list[str]:
    """Return the names of the frames of a clip from the middle; for a video their numbers."""
    return [
        f'{name}/{footage.files[number].name if footage.files else number}'
        for number in _middle(footage, limit)
    ]


def _middle(footage: Footage, limit: int) -> range:
    """Return the numbers of the ``limit`` frames in the middle."""
    count = min(limit, footage.length)
    first = (footage.length - count) // 2
    return range(first, first + count)


def _pairs(sequence: list[Pair]) -> tuple[np.ndarray, np.ndarray]:
    degraded, sharp = read_pairs(sequence)
    return degraded, sharp


def _in_weather(
    footage: Footage, limit: int, seed: int, kinds: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return frames from the middle of ``footage``, degraded by ``kinds``, and sharp."""
    middle = _middle(footage, limit)
    sharp = footage.read(middle.start, len(middle))
    return put_on(sharp, kinds, seed), sharp


def _blurred(
    footage: Footage, limit: int, seed: int, shutter: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return frames of ``footage``, blurred by their exposure and cropped, and sharp."""
    rng = np.random.default_rng(seed)
    share = shutter or rng.uniform(*SHUTTERS)
    gamma = GAMMA if rng.random() < 0.5 else 1.0
    count = min(limit + 2, footage.length)  # an exposure also covers neighbouring frames
    for place in PLACES:
        frames = footage.read(int(place * (footage.length - count)), count)
        if min(frames.shape[1:3]) < 2 * MARGIN + SMALLEST:
            raise DataError(
                f'{footage.path}: {frames.shape[2]}x{frames.shape[1]} pixels are too few, '
                f'blurring removes {MARGIN} on every side'
            )
        moments = [
            expose(frames[middle - 1 : middle + 2], share, math.inf, gamma)
            for middle in range(1, count - 1)
        ]
        both = [moment for moment in moments if moment is not None]
        if len(both) == len(moments):
            blurred, sharp = np.stack(both, 1)
            noise = torch.Generator().manual_seed(seed)
            noisy = sensor_noise(to_tensor(blurred).float() / 255, torch.ones(len(both)), noise)
            return to_pictures(noisy), sharp
    raise DataError(
        f'{footage.path}: the motion cannot be followed (cuts, no detail or too fast): '
        'remove it, or give a smaller --limit'
    )
