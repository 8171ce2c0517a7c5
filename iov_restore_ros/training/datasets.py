"""Public sets of (degraded, sharp) pairs, found in the layouts that people have on disk."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from iov_restore_ros.training.data import (
    IMAGE_SUFFIXES,
    DataError,
    Pictures,
    cut_at_random,
    flip_at_random,
    list_images,
    read_image,
    to_tensor,
)

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
    """One way to lay out a set; ``str()`` says what it looks for."""

    def pairs(self, root: Path, split: str) -> list[Pair]:
        """Return the pairs at ``root``, none if it isn't laid out like this."""


@dataclass(frozen=True)
class Folders:
    """
    A folder of degraded pictures and one of sharp pictures, the first of each that exists.

    The folder '.' is the root. Names are matched by what their patterns capture, which is the whole
    path without suffix if not given; several degraded pictures may share one sharp picture.
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
                raise DataError(f'{sequence}: looked for {self}, found {_listing(sequence)}')
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
            for path in sorted(root.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES
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


@dataclass(frozen=True)
class Layout:
    """How a set may lie on disk: the first reading that finds pairs is taken."""

    about: str  # one line for help texts
    readings: tuple[Reading, ...]
    train: tuple[str, ...] = ('train', 'training')  # folders below the root, the first that exists
    test: tuple[str, ...] = ('test', 'testing')


INPUT_TARGET = Folders(('input',), ('target', 'gt'))  # the sets as they are passed on today
RAIN = r'(?:no)?rain-(\d+)(?:x2)?'
NO_RAIN = r'norain-(\d+)'


def _rain100(which: str, letter: str) -> Layout:
    return Layout(
        f'Rain100{letter}: rain-001.png and norain-001.png, in one folder or in rain and norain',
        (
            INPUT_TARGET,
            Folders(('rain/X2', 'rain', 'rainy'), ('norain',), RAIN, NO_RAIN),
            Folders(('rainy', 'rain'), ('.',), RAIN, NO_RAIN),
            Folders(('.',), ('.',), r'rain-(\d+)', NO_RAIN),
        ),
        (f'rain_data_train_{which}', f'train/RainTrain{letter}', f'RainTrain{letter}', 'train'),
        (f'rain_data_test_{which}', f'test/Rain100{letter}', 'test'),
    )


def _rain800(sharp: str, rainy: str) -> Layout:
    return Layout(
        f'Rain800: side by side in one file, sharp {sharp}, rainy {rainy}',
        (INPUT_TARGET, Halves(sharp)),
        ('training', 'train', 'rain/training'),
        ('test_syn', 'test', 'rain/test_syn'),
    )


LAYOUTS = {
    'gopro': Layout(
        'GOPRO: SEQUENCE/{blur,sharp}, or flat {input,target}',
        (INPUT_TARGET, Folders(('blur',), ('sharp',), sequences=True)),
    ),
    'gopro_gamma': Layout(
        'GOPRO averaged in linear light: SEQUENCE/{blur_gamma,sharp}',
        (Folders(('blur_gamma',), ('sharp',), sequences=True),),
    ),
    'realblur_j': Layout(
        'RealBlur-J: the folder of RealBlur_J_{train,test}_list.txt, or {input,target}',
        (Lists('RealBlur_J_{}_list.txt'), INPUT_TARGET),
    ),
    'realblur_r': Layout(
        'RealBlur-R: the folder of RealBlur_R_{train,test}_list.txt, or {input,target}',
        (Lists('RealBlur_R_{}_list.txt'), INPUT_TARGET),
    ),
    'rain800': _rain800('left', 'right'),
    'rain800_clean_right': _rain800('right', 'left'),
    'rain100l': _rain100('Light', 'L'),
    'rain100h': _rain100('Heavy', 'H'),
    'rain1400': Layout(
        'Rain1400: rainy_image/901_1.jpg to 901_14.jpg and ground_truth/901.jpg',
        (
            Folders(
                ('rainy_image', 'rainy image'), ('ground_truth', 'ground truth'),
                r'(\d+)_\d+', r'(\d+)',
            ),
            INPUT_TARGET,
        ),
    ),
    'raindrop': Layout(
        'RainDrop: data/0_rain.png and gt/0_clean.png; split test is test_a, give test_b as root',
        (Folders(('data',), ('gt',), r'(\d+)_rain', r'(\d+)_clean'), INPUT_TARGET),
        test=('test_a', 'test'),
    ),
    'folders': Layout(
        'two folders of equal names, such as input and gt; folders:A+B for A degraded and B sharp',
        (Folders(
            ('input', 'degraded', 'blur', 'blurred', 'blurry', 'rain', 'rainy', 'data', 'lq'),
            ('gt', 'target', 'sharp', 'clean', 'norain', 'clear', 'ground_truth', 'hq'),
        ),),
    ),
}


def find_pairs(root: Path, layout: str, split: str = 'train') -> list[Pair]:
    """
    Return the pairs of a set, sorted.

    ``layout`` is a name of ``LAYOUTS``. ``split`` is 'train' or 'test'; a root without folders (or
    lists) for the splits is one of them and is read as it is. Raises ``DataError`` when nothing is
    found, or a picture has no partner.
    """
    name, _, folders = layout.partition(':')
    if name not in LAYOUTS or bool(folders) > (name == 'folders'):
        raise DataError(f'{layout}: no such layout, choose one of {", ".join(LAYOUTS)}')
    if split not in SPLITS:
        raise DataError(f'{split}: no such split, choose one of {", ".join(SPLITS)}')
    if not root.is_dir():
        raise DataError(f'{root}: not a folder (looked for {layout} in it)')
    known = LAYOUTS[name]
    if folders:
        degraded, _, sharp = folders.partition('+')
        known = replace(known, readings=(Folders((degraded,), (sharp,)),))
    folder = _split_folder(root, known, split)
    for reading in known.readings:
        pairs = reading.pairs(folder, split)
        if pairs:
            _check_names(pairs)
            return pairs
    wanted = ' or '.join(f'[{reading}]' for reading in known.readings)
    raise DataError(f'{folder}: no pairs of {layout}: looked for {wanted}; {_listing(folder)}')


class PairCrops(Dataset):
    """
    Crop number i, cut at random from the same place of both pictures of a pair.

    Flipped at random left to right and upside down (Sec. 4.1). An item is a function of (seed, i)
    alone: (degraded, sharp), both uint8 3 x size x size, RGB.
    """

    def __init__(
        self, pairs: list[Pair], size: int, count: int, seed: int, cache_gb: float = 4.0
    ) -> None:
        """Serve ``count`` crops of ``size``; keep up to ``cache_gb`` GB of decoded pairs."""
        self.pictures = Pictures(pairs, _read_both, cache_gb)
        self.size, self.count, self.seed = size, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        both = self.pictures[int(rng.integers(len(self.pictures.sources)))]
        crops = to_tensor(flip_at_random(cut_at_random(both, self.size, rng), rng))
        return crops[0], crops[1]


def _read_both(pair: Pair) -> np.ndarray:
    """Return the pair as uint8 2 x H x W x 3."""
    return np.stack(pair.read())


def _check_names(pairs: list[Pair]) -> None:
    first: dict[str, Path] = {}
    for pair in pairs:
        if first.setdefault(pair.name, pair.degraded) != pair.degraded:
            raise DataError(f'{pair.degraded}: the same picture as {first[pair.name]}, keep one')


def _split_folder(root: Path, layout: Layout, split: str) -> Path:
    """Return the folder of the split, the root itself when it isn't split."""
    found = {
        kind: next((root / name for name in names if (root / name).is_dir()), None)
        for kind, names in zip(SPLITS, (layout.train, layout.test), strict=True)
    }
    folder = found[split]
    if folder is None and any(found.values()):
        names = ', '.join(getattr(layout, split))
        raise DataError(f'{root}: no {split} split: looked for {names}; {_listing(root)}')
    return folder or root


def _keys(root: Path, folder: str, pattern: str) -> Iterable[tuple[Path, str]]:
    """Yield the pictures of a folder and what ``pattern`` captures of their names, sorted."""
    if folder == '.':  # other things lie here as well
        paths = sorted(path for path in root.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    else:
        paths = list_images(root / folder)
    for path in paths:
        name = re.fullmatch(pattern, _stem(path, root / folder))
        if name:
            yield path, name[1]
        elif folder != '.':
            raise DataError(f'{path}: looked for names like {pattern}')


def _stem(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix('').as_posix()


def _sub_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def _listing(folder: Path) -> str:
    """Say what is in a folder."""
    names = sorted(path.name + '/' * path.is_dir() for path in folder.iterdir())
    return 'found ' + (', '.join(names[:6]) + ', ...' * (len(names) > 6) or 'nothing')
