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
from iov_restore_ros.pictures.degradations import DEGRADATIONS
from iov_restore_ros.pictures.degradations.blur import GAMMA
from iov_restore_ros.pictures.degradations.draw import sensor_noise
from iov_restore_ros.pictures.files import DataError, to_pictures, to_tensor
from iov_restore_ros.pictures.footage import CROP_MARGIN, Footage, expose, list_footage
from iov_restore_ros.pictures.readings import Pair
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.video.flow import SMALLEST

SHORTEST = 4  # frames: two with a full history, so that flicker can be measured
SHUTTERS = 0.3, 1.0  # range of random shutters for blur
CLIP_STARTS = 1 / 2, 1 / 4, 3 / 4  # of a video, where clips are taken


def open_clips(
    text: str, task: str | None, synthetic: int | None, limit: int, shutter: float,
    kinds: Sequence[str] = (),
) -> Root:
    """
    Find the clips of ``[TASK:][LAYOUT=]ROOT``, of ``SHORTEST`` frames to ``limit``.

    ``task`` is for roots that name none. With ``synthetic``, footage is degraded with that seed and
    its name: blurred for the share ``shutter`` (0..1) of the frame time, where 0 means random; or
    as the task's training pictures are; or in the weather ``kinds`` of `weather.KINDS`. Raises
    ``DataError`` for an unusable root, and ``ValueError`` for an unusable argument.
    """
    path, name, layout, task = locate(text, task, synthetic)
    asked = TASKS[task]
    if kinds and not asked.clears:
        clearing = ', '.join(one.name for one in TASKS.values() if one.clears)
        raise ValueError(f'{text}: --kind is for {clearing}, not for {task}: leave it out')
    if kinds and layout in LAYOUTS:
        raise ValueError(
            f'{text}: pairs are degraded already, --kind is for sharp footage: leave it out'
        )
    if layout in LAYOUTS:
        if not LAYOUTS[layout].in_order:
            in_order = ', '.join(name for name, one in LAYOUTS.items() if one.in_order)
            raise ValueError(
                f'{text}: {layout} are single pictures, --video takes {in_order}'
            )
        return _pair_clips(path, name, layout, task, limit)
    if synthetic is None:
        raise ValueError(
            f'{text}: sharp frames alone show nothing: give --synthetic SEED, '
            'or a folder with input/ and gt/'
        )
    if asked.blur:
        degrade = partial(_blurred, shutter=shutter)
    elif kinds:
        degrade = partial(_in_weather, kinds=kinds)
    else:
        degrade = partial(_degraded, degradation=asked.degradation)
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


def _degraded(
    footage: Footage, limit: int, seed: int, degradation: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return frames from the middle of ``footage``, degraded as in training, and as they are."""
    sharp = _read_middle(footage, limit)
    degrade = DEGRADATIONS[degradation].frames
    assert degrade is not None
    rng = torch.Generator().manual_seed(seed)
    return to_pictures(degrade(to_tensor(sharp).float() / 255, 1.0, rng)), sharp


def _in_weather(
    footage: Footage, limit: int, seed: int, kinds: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return frames from the middle of ``footage``, degraded by ``kinds``, and sharp."""
    sharp = _read_middle(footage, limit)
    return put_on(sharp, kinds, seed), sharp


def _read_middle(footage: Footage, limit: int) -> np.ndarray:
    middle = _middle(footage, limit)
    return footage.read(middle.start, len(middle))


def _blurred(
    footage: Footage, limit: int, seed: int, shutter: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return frames of ``footage``, blurred by their exposure and cropped, and sharp."""
    rng = np.random.default_rng(seed)
    share = shutter or rng.uniform(*SHUTTERS)
    gamma = GAMMA if rng.random() < 0.5 else 1.0
    count = min(limit + 2, footage.length)  # an exposure also covers neighbouring frames
    for place in CLIP_STARTS:
        frames = footage.read(int(place * (footage.length - count)), count)
        if min(frames.shape[1:3]) < 2 * CROP_MARGIN + SMALLEST:
            raise DataError(
                f'{footage.path}: {frames.shape[2]}x{frames.shape[1]} pixels are too few, '
                f'blurring removes {CROP_MARGIN} on every side'
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
