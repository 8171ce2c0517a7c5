"""
Whether feeding the last restored frame back runs away: 1,000 frames of the worst that comes.

    python benchmarks/drift.py [--frames 1000]

A still scene, noise, a cut every ten frames. How far a frame is from itself restored alone (mean
absolute difference, grey levels of 255), over every fifth of the run.
"""

import argparse

import numpy as np
import torch
from common import new_table, show
from rich.console import Console
from rich.progress import track
from skimage import data as photographs

from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.model import shipped_tasks

SHIPPED = shipped_tasks('fast')
FIFTHS = 5
RATE = 30.0  # Hz
EVERY = 7  # frames, of which one is compared: no divisor of the ten between cuts


def run(restorer: Restorer, task: str, what: str, count: int) -> list[float]:
    """Return the distances by fifths."""
    scene = np.ascontiguousarray(photographs.coffee()[100:228, 100:292])
    other = np.ascontiguousarray(photographs.astronaut()[100:228, 100:292])
    noise = np.random.default_rng(0).integers(0, 256, (EVERY, *scene.shape), np.uint8)
    history, distances = History(), []
    for number in track(range(count), f'{task}, {what}', console=Console(stderr=True)):
        frame = {
            'still': scene, 'noise': noise[number % len(noise)],
            'cuts': (scene, other)[number // 10 % 2],
        }[what]
        restored = restore_next(restorer, history, frame, number / RATE, task)
        if number % EVERY == 0:
            [alone] = restorer.restore([frame], task)
            distances.append(float(np.abs(restored.astype(float) - alone).mean()))
    return [float(np.mean(part)) for part in np.array_split(distances, FIFTHS)]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--frames', type=int, default=1000)
    options = parser.parse_args()
    restorer = Restorer(device='cpu', precision='float32')
    part = options.frames // FIFTHS
    table = new_table(
        'Distance from the frame alone, grey levels', '',
        *(f'{n * part}-{(n + 1) * part}' for n in range(FIFTHS)),
    )
    for task in SHIPPED:
        for what in ('still', 'noise', 'cuts'):
            distances = run(restorer, task, what, options.frames)
            table.add_row(f'{task}, {what}', *(f'{distance:.2f}' for distance in distances))
    show(torch.device('cpu'), table)


if __name__ == '__main__':
    main()
