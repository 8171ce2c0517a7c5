"""Pictures, read from files and video frames: sharp crops to train on, pairs to measure on."""

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import av
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from iov_restore_ros.pictures.cache import Cache
from iov_restore_ros.pictures.movies import VIDEO_SUFFIXES, Movie, MovieError
from iov_restore_ros.pictures.picture import Picture, PictureError
from iov_restore_ros.pictures.read import read_picture
from iov_restore_ros.pictures.write import FORMATS

IMAGE_SUFFIXES = set(FORMATS)

Source = TypeVar('Source')

log = logging.getLogger(__name__)


class DataError(ValueError):
    """A data folder cannot be used; the message says what was looked for and what was found."""


def list_images(folder: Path) -> list[Path]:
    """Return every image of ``files_below``. Raises ``DataError`` when there is none."""
    return _list_files(folder, 'image', IMAGE_SUFFIXES)


def images_in(folder: Path) -> list[Path]:
    """Return the images that lie in a folder itself, by number; hidden ones are left out."""
    images = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    return sorted((path for path in images if path.name[0] != '.'), key=by_number)


def by_number(path: Path) -> list[tuple[int, str]]:
    """Sort key by which frame_2 comes before frame_10."""
    parts = re.split(r'(\d+)', path.name)
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in parts]


def files_below(folder: Path) -> list[Path]:
    """
    Return the files in a folder and all below it, one folder after the other, 2 before 10.

    Hidden files and folders, whose names begin with a point, are left out. Symbolic links are
    followed, also to folders, but not to a folder that contains the link.
    """
    found: list[tuple[list[list[tuple[int, str]]], Path]] = []
    for here, folders, names in os.walk(folder, followlinks=True):
        parent = Path(here)
        above = {path.resolve() for path in (parent, *parent.parents)} | {*parent.resolve().parents}
        folders[:] = [
            name for name in folders
            if name[0] != '.' and (parent / name).resolve() not in above
        ]
        order = [by_number(Path(part)) for part in parent.relative_to(folder).parts]
        found.extend((order, parent / name) for name in names if name[0] != '.')
    return [path for _, path in sorted(found, key=lambda one: (one[0], by_number(one[1])))]


def read_image(path: Path) -> np.ndarray:
    """Read ``path`` as uint8 H x W x 3, RGB. Raises ``DataError`` when it cannot be read."""
    return _read(path).rgb()


def read_grey(path: Path) -> np.ndarray:
    """Read ``path`` as uint8 H x W. Raises ``DataError`` when it cannot be read."""
    return _read(path).grey()


def video_length(path: Path) -> tuple[int, float]:
    """Return (frames, frames per second). Raises ``DataError`` when it is not a video."""
    try:
        with Movie(path) as movie:
            frames, rate = movie.length, float(movie.rate)
    except MovieError as error:
        raise DataError(f'{path}: {error}') from error
    if frames < 1:
        raise DataError(f'{path}: its length is unknown')
    return frames, rate


def read_frames(path: Path, first: int, count: int) -> list[np.ndarray]:
    """Read ``count`` frames of a video from number ``first``, each uint8 H x W x 3, RGB."""
    try:
        with Movie(path) as movie:
            frames = movie.span(first, count)
    except (MovieError, av.FFmpegError) as error:
        raise DataError(f'{path}: {error}') from error
    if len(frames) < count:
        raise DataError(f'{path}: frame {first + len(frames)} cannot be read')
    return frames


@dataclass(frozen=True)
class Still:
    """One picture: an image file, or a frame of a video."""

    path: Path
    frame: int | None = None
    file_share: float = 1.0  # share of the file's bytes that this picture takes

    def read(self) -> np.ndarray:
        """Return uint8 H x W x 3, RGB. Raises ``DataError`` when it cannot be read."""
        if self.frame is None:
            return read_image(self.path)
        return read_frames(self.path, self.frame, 1)[0]


def list_stills(folder: Path) -> list[Still]:
    """
    Return every image below ``folder``, then one frame per second of every video, sorted.

    It warns about a video that cannot be read. Raises ``DataError`` if nothing is left.
    """
    stills = []
    for path in _list_files(folder, 'image', IMAGE_SUFFIXES, VIDEO_SUFFIXES):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            stills.append(Still(path))
            continue
        try:
            frames, rate = video_length(path)
        except DataError as error:
            log.warning('%s, skipped', error)
            continue
        seconds = range(0, frames, max(1, round(rate)))
        stills.extend(Still(path, frame, 1 / len(seconds)) for frame in seconds)
    if not stills:
        raise DataError(f'{folder}: none of the videos in it can be read')
    return stills


class Pictures(Generic[Source]):
    """
    Decoded pictures by number; the first ``cache_gb`` GB of them stay in memory, see ``Cache``.

    It warns about a picture that cannot be read, and returns the next one.
    """

    def __init__(
        self, sources: Sequence[Source], read: Callable[[Source], np.ndarray], cache_gb: float
    ) -> None:
        self.sources, self.read = sources, read
        self.cache = Cache(len(sources), int(cache_gb * 1e9))

    def __getitem__(self, index: int) -> np.ndarray:
        for offset in range(len(self.sources)):
            number = (index + offset) % len(self.sources)
            kept = self.cache.get(number)
            if kept is not None:
                return kept
            try:
                image = self.read(self.sources[number])
            except DataError as error:
                log.warning('%s, skipped', error)
                continue
            self.cache.keep(number, image)
            return image
        raise DataError(
            f'none of the {len(self.sources)} images can be read, first {self.sources[0]}'
        )


class Stills:
    """
    The images below a folder and one frame per second of its videos, to draw from at random.

    With ``detailed`` an image is drawn by the size of its file. Up to ``cache_gb`` GB of decoded
    images are kept.
    """

    def __init__(self, root: Path, cache_gb: float, detailed: bool) -> None:
        stills = list_stills(root)
        self.pictures = Pictures(stills, Still.read, cache_gb)
        sizes = np.array([
            still.path.stat().st_size * still.file_share if detailed else 1 for still in stills
        ], float)
        self.probabilities = sizes / sizes.sum()

    def __len__(self) -> int:
        return len(self.probabilities)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return an image, uint8 H x W x 3, RGB."""
        return self.pictures[int(rng.choice(len(self), p=self.probabilities))]


class SharpCrops(Dataset):
    """
    Crop number i, cut at random from the sharp images and videos below a folder, flipped at random.

    With ``detailed`` an image is drawn by the size of its file, and of two places in it the one
    with the stronger edges is used, because a blurred sky teaches nothing.

    An item is a function of (seed, i) alone, so a run that continues at sample i gets the same
    items. Items are uint8 3 x size x size, RGB.
    """

    def __init__(
        self,
        root: Path,
        size: int,
        count: int,
        seed: int,
        cache_gb: float = 4.0,
        detailed: bool = False,
    ) -> None:
        """Serve ``count`` crops of ``size``; keep up to ``cache_gb`` GB of decoded images."""
        self.stills = Stills(root, cache_gb, detailed)
        self.size, self.count, self.seed = size, count, seed
        self.places = 2 if detailed else 1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng((self.seed, index))
        image = self.stills.draw(rng)
        side = side_to_shrink(image, self.size, rng)
        crops = [cut_at_random(image, side, rng) for _ in range(self.places)]
        crop = max(crops, key=detail)
        if side != self.size:
            crop = cv2.resize(crop, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return to_tensor(flip_at_random(crop, rng, upside_down=0.25))


def side_to_shrink(image: np.ndarray, size: int, rng: np.random.Generator) -> int:
    """
    Return the side, size to 2 size, to cut out of ``image`` (... x H x W x 3) and shrink to size.

    Large pictures are often soft. Half of the time they are shrunk, which sharpens them.
    """
    room = min(image.shape[-3:-1]) / size
    return round(size * rng.uniform(1, min(2, room))) if room > 1.5 and rng.random() < 0.5 else size


def cut_at_random(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Cut side x side out of ``image`` (... x H x W x 3), mirrored where it is too small."""
    image = _at_least(image, side)
    ends = image.shape[-3] - side + 1, image.shape[-2] - side + 1
    top, left = rng.integers(ends)
    return image[..., top : top + side, left : left + side, :]


def detail(image: np.ndarray) -> float:
    """Return the mean strength of the edges in ``image``."""
    return float(cv2.Laplacian(image[::2, ::2, 1], cv2.CV_32F).std())


def flip_at_random(
    image: np.ndarray, rng: np.random.Generator, upside_down: float = 0.5
) -> np.ndarray:
    """Flip ``image`` (... x H x W x 3) left to right half of the time, and upside down."""
    if rng.random() < 0.5:
        image = image[..., ::-1, :]
    if rng.random() < upside_down:
        image = image[..., ::-1, :, :]
    return image


def to_tensor(image: np.ndarray) -> Tensor:
    """Turn ... x H x W x 3 into ... x 3 x H x W."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, -3)))


def to_pictures(images: Tensor) -> np.ndarray:
    """Turn T x 3 x H x W, 0..1, into uint8 T x H x W x 3."""
    return images.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _read(path: Path) -> Picture:
    try:
        return read_picture(path)
    except PictureError as error:
        raise DataError(f'{path}: {error}') from error


def _list_files(folder: Path, kind: str, *suffixes: set[str]) -> list[Path]:
    """Return ``files_below`` by suffix, those of the first set first."""
    if not folder.is_dir():
        raise DataError(f'{folder}: not a folder (looked for {kind}s in it)')
    files = files_below(folder)
    found = [path for some in suffixes for path in files if path.suffix.lower() in some]
    if not found:
        wanted = ' '.join(suffix for some in suffixes for suffix in sorted(some))
        raise DataError(f'{folder}: no {kind} found (looked for {wanted})')
    return found


def _at_least(image: np.ndarray, side: int) -> np.ndarray:
    """Mirror ``image`` at its lower and right border until no side is shorter than ``side``."""
    bottom, right = (max(0, side - length) for length in image.shape[-3:-1])
    if not bottom and not right:
        return image
    kept = [(0, 0)] * (image.ndim - 3)
    return np.pad(image, [*kept, (0, bottom), (0, right), (0, 0)], mode='symmetric')
