"""
Time of a frame on cores that others use too: python benchmarks/busy_cores.py

Every line has that many other processes that compute all the time, and the restorer with PyTorch's
threads spinning as the OpenMP library has it and as the node sets it (GOMP_SPINCOUNT). Each is a
process of its own, as the library reads its settings once; they run in turn in every round. Not a
test: nothing fails here.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

import torch
from common import as_size, make_restorer, new_table, random_frame, show, timed

SETTINGS = {'as it comes': None, 'as the node sets it': '10000'}
FRAMES = 15
WARMING_UP = 5


@contextlib.contextmanager
def others(count: int) -> Iterator[None]:
    """Keep ``count`` cores busy."""
    command = [sys.executable, '-c', 'while True: pass']
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measured(size: str, spin: str | None) -> float:
    """Return the median of a few frames, ms, in a process with that GOMP_SPINCOUNT."""
    environment = {name: value for name, value in os.environ.items() if name != 'GOMP_SPINCOUNT'}
    if spin is not None:
        environment['GOMP_SPINCOUNT'] = spin
    command = [sys.executable, __file__, '--one', size]
    return float(subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout)


def one(size: str) -> float:
    """Return the median of a few frames, ms, in this process."""
    restorer = make_restorer('fast', 'cpu')
    frame = random_frame(as_size(size))
    times = [timed(restorer.device, lambda: restorer.restore([frame], 'deblur'))
             for _ in range(FRAMES)]
    return 1000 * statistics.median(times[WARMING_UP:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description='Time of a frame on busy cores.')
    parser.add_argument('--size', default='640x360')
    parser.add_argument('--others', type=int, nargs='+', default=(0, 1, 2, 3))
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--one', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(one(options.one))
        return
    table = new_table(
        f'fast at {options.size}, {torch.get_num_threads()} threads, ms per frame',
        'other processes', *SETTINGS, 'ratio')
    for count in options.others:
        with others(count):
            rounds = [
                [measured(options.size, spin) for spin in SETTINGS.values()]
                for _ in range(options.rounds)
            ]
        columns = zip(*rounds, strict=True)
        table.add_row(
            str(count), *(f'{statistics.median(values):.0f}' for values in columns),
            f'{statistics.median(a / b for a, b in rounds):.2f}')
    show(torch.device('cpu'), table)


if __name__ == '__main__':
    main()
