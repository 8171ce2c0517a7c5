"""The pictures to measure: public sets, folders of pairs, sharp pictures."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from iov_restore_ros.evaluation.protocols import PROTOCOLS
from iov_restore_ros.pictures.datasets import LAYOUTS, find_pairs
from iov_restore_ros.pictures.degradations import DEGRADATIONS
from iov_restore_ros.pictures.files import DataError, list_images, read_image, to_pictures
from iov_restore_ros.tasks import TASKS

Image = np.ndarray  # uint8 H x W x 3, RGB
Read = Callable[[], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Root:
    """
    The items to measure: (name, read) for each picture or clip; read returns (degraded, sharp).

    Both are ``Image``, or uint8 T x H x W x 3 for clips.
    """

    path: Path
    layout: str
    task: str
    pictures: list[tuple[str, Read]]
    frames: dict[str, list[str]] = field(default_factory=dict)  # names of the frames of a clip


def open_root(text: str, task: str | None, synthetic: int | None = None) -> Root:
    """
    Find the pictures of ``[TASK:][LAYOUT=]ROOT``. ``task`` is for roots that name none.

    With ``synthetic``, sharp pictures are degraded with that seed and their name. Raises
    ``DataError`` for an unusable root, and ``ValueError`` for an unusable argument.
    """
    path, name, layout, task = locate(text, task, synthetic)
    if layout in LAYOUTS:
        pairs = find_pairs(path, name, 'test')
        return Root(path, layout, task, [(pair.name, pair.read) for pair in pairs])

    def reader(image: Path, name: str) -> Read:
        if synthetic is None:
            return lambda: (read_image(image),) * 2
        seed = seed_of(synthetic, name)
        return lambda: degrade(image, task, seed)
    names = {image: image.relative_to(path).as_posix() for image in list_images(path)}
    return Root(path, layout, task, [(name, reader(image, name)) for image, name in names.items()])


def locate(text: str, task: str | None, synthetic: int | None) -> tuple[Path, str, str, str]:
    """Parse ``[TASK:][LAYOUT=]ROOT``: path, layout as written, layout, and task."""
    told, _, without = text.partition(':')
    if told in TASKS:
        text, task = without, told
    else:
        told = ''
    name, equals, rest = text.partition('=')
    layout = name.partition(':')[0] if equals else ''  # folders:A+B names two folders
    if equals and layout not in LAYOUTS:
        raise ValueError(f'{text}: unknown layout {name!r}, choose one of {", ".join(LAYOUTS)}')
    path = Path(rest if equals else text)
    if not layout:
        name = 'folders'
        paired = (path / 'input').is_dir() and any((path / n).is_dir() for n in ('gt', 'target'))
        layout = name if paired else 'clean' if synthetic is None else 'synthetic'
    task = PROTOCOLS[layout].task or task
    if told not in ('', task):
        raise ValueError(f'{text}: {layout} is for {task}, not for {told}')
    if not task:
        raise ValueError(f'{text}: give --task, {layout} pictures may be for {" or ".join(TASKS)}')
    return path, name, layout, task


def seed_of(synthetic: int, name: str) -> int:
    """Return the seed for degrading one picture or clip, independent of the others."""
    return zlib.crc32(f'{synthetic} {name}'.encode())


def degrade(path: Path, task: str, seed: int) -> tuple[Image, Image]:
    """Return (degraded, target) of a sharp picture; it loses ``Task.margin`` pixels a side."""
    sharp = read_image(path)
    margin, degradation = TASKS[task].margin, DEGRADATIONS[TASKS[task].degradation]
    if min(sharp.shape[:2]) <= 2 * margin:
        raise DataError(
            f'{path}: {sharp.shape} is too small, {task} removes {margin} on every side'
        )
    picture = torch.from_numpy(sharp).permute(2, 0, 1)[None] / 255
    rng = torch.Generator().manual_seed(seed)
    both = degradation.pictures(picture, torch.ones(1), rng)
    [degraded], [target] = map(to_pictures, both)
    return degraded, target
