"""
Measure restored pictures against sharp ones.

    python -m iov_restore_ros.tools.evaluate FOLDER... --task deblur

A FOLDER holds input/ and gt/ (pairs by file name), or just sharp pictures: then it is measured how
much a picture that needs nothing is changed.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from iov_restore_ros.inference import Restorer
from iov_restore_ros.model import PRESETS, TASKS, WeightsError
from iov_restore_ros.training.data import DataError, list_images, list_pairs, read_image
from iov_restore_ros.training.metrics import features_kept, luma, psnr, ssim

MEASURES = {
    'PSNR dB': psnr,
    'PSNR-Y dB': lambda picture, truth: psnr(luma(picture), luma(truth)),
    'SSIM': ssim,
    'features kept %': lambda picture, truth: 100 * features_kept(picture, truth),
}
DIGITS = {'SSIM': 4}


def measure(folder: Path, restorer: Restorer, task: str) -> dict[str, tuple[float, float]]:
    """Return the mean of every measure, before and after restoring, over ``folder``'s pictures."""
    paired = (folder / 'input').is_dir()
    pairs = list_pairs(folder) if paired else [(path, path) for path in list_images(folder)]
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in MEASURES}
    for degraded_path, sharp_path in track(
        pairs, folder.name, console=Console(stderr=True)
    ):
        degraded, sharp = read_image(degraded_path), read_image(sharp_path)
        if degraded.shape != sharp.shape:
            raise DataError(f'{degraded_path} is {degraded.shape}, {sharp_path} {sharp.shape}')
        [restored] = restorer.restore([degraded], task)
        for name, score in MEASURES.items():
            scores[name].append((score(degraded, sharp), score(restored, sharp)))
    return {name: tuple(np.mean(values, axis=0)) for name, values in scores.items()}


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description='Measure restored pictures against sharp ones.')
    parser.add_argument('folder', nargs='+', type=Path, help='with input/ and gt/, or of pictures')
    parser.add_argument('--task', choices=TASKS, required=True)
    parser.add_argument('--model', choices=PRESETS, default='fast')
    parser.add_argument('--weights', type=Path, help='a .safetensors file (default: the shipped)')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    options = parser.parse_args()
    table = Table(title=f'{options.task} with {options.weights or options.model}')
    table.add_column('pictures')
    for name in MEASURES:
        table.add_column(name, justify='right')
    try:
        weights = {options.task: options.weights} if options.weights else None
        restorer = Restorer(options.model, weights, options.device, tasks=[options.task])
        for folder in options.folder:
            row = measure(folder, restorer, options.task)
            table.add_row(str(folder), *(
                f'{before:.{DIGITS.get(name, 2)}f} -> {after:.{DIGITS.get(name, 2)}f}'
                for name, (before, after) in row.items()
            ))
    except (WeightsError, DataError, ValueError) as error:
        parser.error(str(error))
    console = Console()
    console.width = max(console.width, 120)  # the table's, also where there is no terminal
    console.print(table)
    return 0


if __name__ == '__main__':
    sys.exit(main())
