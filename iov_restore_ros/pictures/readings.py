"""Ways to store the pairs of a set: in two folders, as halves of one file, by list files."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from iov_restore_ros.pictures.files import DataError, images_in, list_images, read_image

SPLITS = ('train', 'test')


@dataclass(frozen=True)
class Pair:
    """A degraded picture and the sharp one of the same moment."""

    name: str  # unique within its set: 'GOPR0384_11_00/000001'
    degraded: Path
    sharp: Path
    sharp_half: str = ''  # 'left' or 'right': both pictures are halves of one file

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (degraded, sharp), uint8 H x W x 3, RGB. Raises ``DataError`` if sizes differ."""
        degraded = read_image(self.degraded)
        if self.sharp_half:
            if degraded.shape[1] % 2:
                raise DataError(
                    f'{self.degraded}: {degraded.shape[1]} pixels wide, looked for two equal halves'
                )
            left, right = np.split(degraded, 2, axis=1)
            return (right, left) if self.sharp_half == 'left' else (left, right)
        sharp = read_image(self.sharp)
        if degraded.shape != sharp.shape:
            raise DataError(
                f'{self.degraded}: {degraded.shape[1]}x{degraded.shape[0]} pixels, but '
                f'{self.sharp} has {sharp.shape[1]}x{sharp.shape[0]}'
            )
        return degraded, sharp


class Reading(Protocol):
    """One structure of a set; ``str()`` says what it looks for."""

    def pairs(self, root: Path, split: str) -> list[Pair]:
        """Return the pairs at ``root``; none if it has another structure."""


@dataclass(frozen=True)
class Folders:
    """
    A folder of degraded pictures and one of sharp pictures, the first of each that exists.

    The folder '.' is the root. Names are matched by the part that their patterns capture, by
    default the whole path without suffix. Several degraded pictures may share one sharp picture.
    """

    degraded: tuple[str, ...]
    sharp: tuple[str, ...]
    degraded_name: str = '(.+)'
    sharp_name: str = '(.+)'
    sequences: bool = False  # the two folders may also lie in every sub folder of the root

    def __str__(self) -> str:
        where = ' (also in sub folders)' if self.sequences else ''
        return f'{"|".join(self.degraded)} beside {"|".join(self.sharp)}{where}'

    def pairs(self, root: Path, split: str) -> list[Pair]:
        """Return the pairs of the root, or of its sequences."""
        own = self._folders(root)
        if all(own):
            return self._match(root, '', *own)
        found = []
        for sequence in _sub_folders(root) if self.sequences else ():
            folders = self._folders(sequence)
            if all(folders):
                found += self._match(sequence, f'{sequence.name}/', *folders)
            elif any(folders):
                raise DataError(f'{sequence}: looked for {self}, found {listing(sequence)}')
        return found

    def _folders(self, root: Path) -> list[str]:
        """Return the names of the degraded and of the sharp folder, '' for the missing."""
        return [
            next((name for name in names if (root / name).is_dir()), '')
            for names in (self.degraded, self.sharp)
        ]

    def _match(self, root: Path, prefix: str, degraded: str, sharp: str) -> list[Pair]:
        """Return the pairs of two folders below ``root``."""
        partners: dict[str, Path] = {}
        for path, key in _keys(root, sharp, self.sharp_name):
            if key in partners:
                raise DataError(f'{path}: the same picture as {partners[key].name}, keep one')
            partners[key] = path
        pictures = list(_keys(root, degraded, self.degraded_name))
        alone = [path for path, key in pictures if key not in partners]
        if sharp != '.':  # RainTrainH came without 546 of its rainy pictures
            wanted = {key for _, key in pictures}
            alone += [path for key, path in partners.items() if key not in wanted]
        if alone:
            raise DataError(
                f'{root}: {len(alone)} pictures of {degraded} and {sharp} without partner, first '
                f'{", ".join(str(path.relative_to(root)) for path in alone[:5])}'
            )
        return [
            Pair(prefix + _stem(path, root / degraded), path, partners[key])
            for path, key in pictures
        ]


@dataclass(frozen=True)
class Halves:
    """Both pictures side by side in one file."""

    sharp_half: str

    def __str__(self) -> str:
        return f'pictures whose {self.sharp_half} half is sharp'

    def pairs(self, root: Path, split: str) -> list[Pair]:
        """Return one pair for every picture in the root itself."""
        return [
            Pair(path.stem, path, path, self.sharp_half)
            for path in images_in(root)
        ]


@dataclass(frozen=True)
class Lists:
    """RealBlur's list files: a line is 'SHARP BLURRED ', paths from the folder of the list."""

    name: str

    def __str__(self) -> str:
        return ' and '.join(self.name.format(split) for split in SPLITS)

    def pairs(self, root: Path, split: str) -> list[Pair]:
        """Return the pairs of the list, which may lie beside, above or below the root."""
        places = [root, *_sub_folders(root), root.resolve().parent]
        lists = [place / self.name.format(split) for place in places]
        path = next((path for path in lists if path.is_file()), None)
        if path is None:
            return []
        lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
        wrong = next((number for number, line in enumerate(lines, 1) if len(line) != 2), None)
        if wrong or not lines:
            raise DataError(f"{path}: line {wrong or 1}: looked for 'SHARP BLURRED'")
        base = next((place for place in places if (place / lines[0][0]).is_file()), path.parent)
        missing = [name for line in lines for name in line if not (base / name).is_file()]
        if missing:
            raise DataError(
                f'{path}: {len(missing)} of its pictures are not below {base}, '
                f'first {", ".join(missing[:3])}'
            )
        return sorted((
            Pair('/'.join((*Path(blurred).parts[-3:-2], Path(blurred).stem)),
                 base / blurred, base / sharp)
            for sharp, blurred in lines
        ), key=lambda pair: pair.name)


def _keys(root: Path, folder: str, pattern: str) -> Iterable[tuple[Path, str]]:
    """Yield the pictures of a folder and the part that ``pattern`` captures of names, sorted."""
    for path in images_in(root) if folder == '.' else list_images(root / folder):
        name = re.fullmatch(pattern, _stem(path, root / folder))
        if name:
            yield path, name[1]
        elif folder != '.':
            raise DataError(f'{path}: looked for names like {pattern}')


def _stem(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix('').as_posix()


def _sub_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def listing(folder: Path) -> str:
    """Return the content of a folder as text."""
    names = sorted(path.name + '/' * path.is_dir() for path in folder.iterdir())
    return 'found ' + (', '.join(names[:6]) + ', ...' * (len(names) > 6) or 'nothing')
