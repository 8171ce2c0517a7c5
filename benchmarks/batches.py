"""
What batches are worth: python benchmarks/batches.py [--device cuda]

Every camera has a frame at the same moment, and the restorer gets all of them, at most as many at
a time as the batch allows. `fps` counts the frames of all cameras; `all` is the time until the
last frame is there, `first` until those of the first batch are, `mean` the mean over the frames:
what a frame waits for the others. All variants run in turn in every round; the speed-up is the
median of the rounds'. Not a test: nothing fails here.
"""

import argparse
import statistics
import time

import numpy as np
from common import as_size, make_restorer, new_table, random_frame, show

from iov_restore_ros.inference import Restorer

CAMERAS = (1, 2, 4, 6, 8)
BATCHES = (1, 2, 3, 4, 6, 8)


def arrivals(restorer: Restorer, frames: list[np.ndarray], batch: int) -> list[float]:
    """Restore ``frames``, ``batch`` at a time; return when (s) each of them was there."""
    there: list[float] = []
    started = time.perf_counter()
    for first in range(0, len(frames), batch):
        part = frames[first : first + batch]
        restorer.restore(part, 'deblur')
        there += [time.perf_counter() - started] * len(part)
    return there


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description='Throughput and latency of batches.')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--precision', default='auto')
    parser.add_argument('--model', default='fast')
    parser.add_argument('--size', default='640x360')
    parser.add_argument('--cameras', type=int, nargs='+', default=CAMERAS)
    parser.add_argument('--batches', type=int, nargs='+', default=BATCHES)
    parser.add_argument('--rounds', type=int, default=9)
    options = parser.parse_args()
    restorer = make_restorer(options.model, options.device, options.precision)
    frames = [random_frame(as_size(options.size), seed) for seed in range(max(options.cameras))]
    variants = [(c, b) for c in options.cameras for b in sorted({1, *options.batches}) if b <= c]
    took: dict[tuple[int, int], list[list[float]]] = {variant: [] for variant in variants}
    for number in range(options.rounds + 1):
        for cameras, batch in variants:
            restorer.batch = batch
            there = arrivals(restorer, frames[:cameras], batch)
            if number:  # the first round warms up
                took[cameras, batch].append(there)

    table = new_table(
        f'{options.model} {restorer.precision} at {options.size}, ms', 'cameras', 'batch', 'fps',
        'per frame', 'first', 'mean', 'all', 'speed-up over batch 1')
    for cameras, batch in variants:
        rounds = took[cameras, batch]
        last = statistics.median(there[-1] for there in rounds)
        speed_up = statistics.median(
            single[-1] / there[-1]
            for single, there in zip(took[cameras, 1], rounds, strict=True))
        table.add_row(
            str(cameras), str(batch), f'{cameras / last:.1f}',
            *(f'{1000 * value:.1f}' for value in (
                last / cameras, statistics.median(there[0] for there in rounds),
                statistics.median(statistics.mean(there) for there in rounds), last)),
            f'{speed_up:.2f}')
    show(restorer.device, table)


if __name__ == '__main__':
    main()
