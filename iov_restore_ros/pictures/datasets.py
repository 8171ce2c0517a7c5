"""Public sets of (degraded, sharp) pairs, in the layouts that people have on disk."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from iov_restore_ros.pictures.files import (
    DataError,
    Pictures,
    cut_at_random,
    flip_at_random,
    to_tensor,
)
from iov_restore_ros.pictures.readings import (
    SPLITS,
    Folders,
    Halves,
    Lists,
    Pair,
    Reading,
    listing,
)


@dataclass(frozen=True)
class Layout:
    """The possible structures of a set on disk; the first reading that finds pairs is used."""

    about: str  # one line for help texts
    readings: tuple[Reading, ...]
    train: tuple[str, ...] = ('train', 'training')  # folders below the root, the first that exists
    test: tuple[str, ...] = ('test', 'testing')
    in_order: bool = False  # whether the pictures of a folder are consecutive frames


INPUT_TARGET = Folders(('input',), ('target', 'gt'))  # the usual structure of copies today
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
        in_order=True,
    ),
    'gopro_gamma': Layout(
        'GOPRO averaged in linear light: SEQUENCE/{blur_gamma,sharp}',
        (Folders(('blur_gamma',), ('sharp',), sequences=True),),
        in_order=True,
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
        in_order=True,
    ),
}


def find_pairs(root: Path, layout: str, split: str = 'train') -> list[Pair]:
    """
    Return the pairs of a set, sorted.

    ``layout`` is a name of ``LAYOUTS``. ``split`` is 'train' or 'test'. A root without folders (or
    lists) for the splits is read as a whole. Raises ``DataError`` if nothing is found, or if a
    picture has no partner.
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
    raise DataError(f'{folder}: no pairs of {layout}: looked for {wanted}; {listing(folder)}')


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
        raise DataError(f'{root}: no {split} split: looked for {names}; {listing(root)}')
    return folder or root
