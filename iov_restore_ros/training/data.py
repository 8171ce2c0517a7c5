"""Sharp crops to train on and image pairs to measure on."""

import logging
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

IMAGE_SUFFIXES = {'.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp'}

log = logging.getLogger(__name__)


class DataError(ValueError):
    """A data folder that cannot be used; the message says what was looked for and found."""


def list_images(folder: Path) -> list[Path]:
    """Return every image below ``folder``, sorted. Raises ``DataError`` when there is none."""
    if not folder.is_dir():
        raise DataError(f'{folder}: not a folder (looked for images in it)')
    found = sorted(p for p in folder.rglob('*') if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f'{folder}: no image found (looked for {" ".join(sorted(IMAGE_SUFFIXES))})')
    return found


def read_image(path: Path) -> np.ndarray:
    """Read ``path`` as uint8 H x W x 3, RGB. Raises ``DataError`` when it is not an image."""
    image = cv2.imread(str(path))
    if image is None:
        raise DataError(f'{path}: not a readable image')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class SharpCrops(Dataset):
    """
    Crop number i, cut at random from the sharp images below a folder, flipped at random.

    With ``detailed`` an image is drawn by the size of its file, and of two places in it the one
    with the stronger edges is taken: a blurred sky teaches nothing.

    An item is a function of (seed, i) alone, so a training run that goes on at sample i sees what
    it would have seen. Items are uint8 3 x size x size, RGB.
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
        self.paths = list_images(root)
        self.size, self.count, self.seed = size, count, seed
        sizes = np.array([path.stat().st_size if detailed else 1 for path in self.paths], float)
        self.probabilities = sizes / sizes.sum()
        self.places = 2 if detailed else 1
        self.cache: dict[Path, np.ndarray] = {}
        self.cache_left = cache_gb * 1e9

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng((self.seed, index))
        image = self._read(int(rng.choice(len(self.paths), p=self.probabilities)))
        # Large pictures are often soft: half of the time they are shrunk, which sharpens them.
        room = min(image.shape[:2]) / self.size
        scale = rng.uniform(1, min(2, room)) if room > 1.5 and rng.random() < 0.5 else 1.0
        side = round(self.size * scale)
        image = _at_least(image, side)
        ends = image.shape[0] - side + 1, image.shape[1] - side + 1
        places = rng.integers(ends, size=(self.places, 2))
        crops = [image[top : top + side, left : left + side] for top, left in places]
        crop = max(crops, key=_detail)
        if side != self.size:
            crop = cv2.resize(crop, (self.size, self.size), interpolation=cv2.INTER_AREA)
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if rng.random() < 0.25:
            crop = crop[::-1]
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))

    def _read(self, index: int) -> np.ndarray:
        """Read image ``index``, or the next one that can be read."""
        for offset in range(len(self.paths)):
            path = self.paths[(index + offset) % len(self.paths)]
            if path in self.cache:
                return self.cache[path]
            try:
                image = read_image(path)
            except DataError as error:
                log.warning('%s, skipped', error)
                continue
            if image.nbytes <= self.cache_left:
                self.cache[path] = image
                self.cache_left -= image.nbytes
            return image
        raise DataError(f'none of the {len(self.paths)} images can be read, first {self.paths[0]}')


def _detail(image: np.ndarray) -> float:
    """Return how strong the edges in ``image`` are, on the mean."""
    return float(cv2.Laplacian(image[::2, ::2, 1], cv2.CV_32F).std())


def _at_least(image: np.ndarray, side: int) -> np.ndarray:
    """Mirror ``image`` at its lower and right border until no side is shorter than ``side``."""
    bottom, right = (max(0, side - length) for length in image.shape[:2])
    if not bottom and not right:
        return image
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), mode='symmetric')


def list_pairs(root: Path) -> list[tuple[Path, Path]]:
    """
    Return (degraded, sharp) paths of ``root/input`` and ``root/gt``, matched by stem.

    Raises ``DataError`` when a folder is missing or a stem has no partner.
    """
    degraded, sharp = (
        {path.stem: path for path in list_images(root / name)} for name in ('input', 'gt')
    )
    alone = sorted(degraded.keys() ^ sharp.keys())
    if alone:
        raise DataError(f'{root}: input/ and gt/ do not match, without partner: {alone[:5]}')
    return [(degraded[stem], sharp[stem]) for stem in sorted(degraded)]
