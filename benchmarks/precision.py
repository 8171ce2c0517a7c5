"""
What int8 changes in the pictures: python benchmarks/precision.py --task derain FOLDER...

Every folder holds pictures, or pairs as input/ and gt/. All are restored in float32 and in the
other precision; PSNR where there is a gt, and how far the two results are apart, in grey levels of
all samples. Not a test: nothing fails here.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from common import new_table, show
from PIL import Image

from iov_restore_ros.compute.precisions import PRECISIONS
from iov_restore_ros.evaluation.metrics import psnr
from iov_restore_ros.inference import Restorer
from iov_restore_ros.tasks import TASKS


def read(path: Path) -> np.ndarray:
    """Read a picture as uint8 RGB."""
    return np.array(Image.open(path).convert('RGB'))


def pictures(folder: Path) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Read the pictures of a folder and, where there are, their sharp ones, in order of names."""
    if (folder / 'gt').is_dir():
        inputs, targets = (sorted((folder / name).iterdir()) for name in ('input', 'gt'))
        return [(read(a), read(b)) for a, b in zip(inputs, targets, strict=True)]
    return [(read(path), None) for path in sorted(folder.iterdir())]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description='What a precision changes in the pictures.')
    parser.add_argument('folders', nargs='+', type=Path)
    parser.add_argument('--task', choices=TASKS, required=True)
    parser.add_argument('--precision', choices=PRECISIONS, default='int8')
    parser.add_argument('--weights', type=Path, help='the shipped ones if not given')
    options = parser.parse_args()
    weights = {options.task: options.weights} if options.weights else None
    exact, other = (
        Restorer(weights=weights, device='cpu', precision=precision, tasks=[options.task])
        for precision in ('float32', options.precision)
    )
    table = new_table(
        f'fast, {options.task}', 'pictures', 'count', 'PSNR float32', f'PSNR {options.precision}',
        'mean apart', 'within 1', 'within 2', 'most')
    for folder in options.folders:
        scores, apart = [], []
        for degraded, sharp in pictures(folder):
            [a], [b] = (r.restore([degraded], options.task) for r in (exact, other))
            apart.append(np.abs(a.astype(np.int16) - b).ravel())
            if sharp is not None:
                scores.append((psnr(a, sharp), psnr(b, sharp)))
        levels = np.concatenate(apart)
        decibels = [f'{mean:.2f} dB' for mean in np.mean(scores, 0)] if scores else ['', '']
        table.add_row(
            str(folder), str(len(apart)), *decibels, f'{levels.mean():.2f}',
            *(f'{100 * (levels <= n).mean():.2f} %' for n in (1, 2)), str(levels.max()))
    show(torch.device('cpu'), table)


if __name__ == '__main__':
    main()
