"""
Draw a dozen samples of each degradation: python -m iov_restore_ros.tools.degradation_samples DIR

It writes motion_blur.jpg, rain.jpg and lens.jpg (water on the lens without rain in the air, the
wettest of eight draws), made from photographs of scikit-image.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from skimage import data as photographs
from torch import Tensor

from iov_restore_ros.pictures.degradations import motion_blur, rain
from iov_restore_ros.pictures.degradations.blur import BLUR_MARGIN
from iov_restore_ros.pictures.degradations.lens import drops, smears
from iov_restore_ros.pictures.picture import Picture
from iov_restore_ros.pictures.write import write_picture

SIDE = 240  # pixels
COLUMNS, ROWS = 4, 3
SEED = 2


def photograph_crops(size: int) -> Tensor:
    """Return COLUMNS * ROWS crops of four photographs, float N x 3 x size x size, RGB, 0..1."""
    scenes = [
        photographs.stereo_motorcycle()[0], photographs.coffee(), photographs.chelsea(),
        photographs.rocket(),
    ]
    crops = []
    for number in range(COLUMNS * ROWS):
        scene = scenes[number % len(scenes)]
        height, width = scene.shape[:2]
        left = (width - size) * (number // len(scenes)) // (ROWS - 1)
        top = (height - size) // 2
        crops.append(scene[top : top + size, left : left + size])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255


def sheets() -> dict[str, Tensor]:
    """Return the samples of each degradation by name, N x 3 x SIDE x SIDE."""
    strength = torch.ones(COLUMNS * ROWS)
    rng = torch.Generator().manual_seed(SEED)
    sharp = photograph_crops(SIDE)
    with_margin = photograph_crops(SIDE + 2 * BLUR_MARGIN)
    return {
        'motion_blur': motion_blur(with_margin, strength, rng)[0],
        'rain': rain(sharp, strength, rng)[0],
        'lens': wettest(sharp, rng),
    }


def wettest(sharp: Tensor, rng: torch.Generator) -> Tensor:
    """Return ``sharp`` behind drops and smears, each sample the most changed of eight draws."""
    strength = torch.ones(len(sharp))
    draws = torch.stack([smears(drops(sharp, strength, rng), strength, rng) for _ in range(8)])
    changed = (draws - sharp).abs().mean((2, 3, 4)).argmax(0)
    return draws[changed, torch.arange(len(sharp))]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description='Draw a dozen samples of each degradation.')
    parser.add_argument('folder', type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, pictures in sheets().items():
        path = folder / f'{name}.jpg'
        tiles = pictures.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
        rows = tiles.reshape(ROWS, COLUMNS, SIDE, SIDE, 3)
        page = np.concatenate([np.concatenate(row, axis=1) for row in rows])
        try:
            write_picture(path, Picture(page))
        except OSError as error:
            parser.error(str(error))
        print(path)


if __name__ == '__main__':
    main()
