"""
What one thread for all computing and kept memory save: python benchmarks/compute_thread.py

Every line is a process of its own, in turn in every round: as the restorer does it; with a second
thread that has computed before, as a node's executor would; and with the C library's own ways to
give memory back. Medians; page faults of a frame. Not a test: nothing fails here.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys

import torch
from common import as_size, make_restorer, new_table, random_frame, show, timed

from iov_restore_ros.model import cpu

FRAMES = 30
WAYS = ('as it is', 'a second thread has computed', 'memory is given back')


def one(way: str, size: str, precision: str) -> dict[str, float]:
    """Return the ms and the page faults of a frame in this process."""
    if way == WAYS[2]:
        cpu._keep_memory = lambda: None  # what it is worth is the question
    restorer = make_restorer('fast', 'cpu', precision)
    if way == WAYS[1]:
        torch.rand(1000, 1000).sum()
    frame = random_frame(as_size(size))
    restorer.restore([frame] * 5, 'deblur')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    times = [timed(restorer.device, lambda: restorer.restore([frame], 'deblur'))
             for _ in range(FRAMES)]
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {'ms': 1000 * statistics.median(times), 'faults': faults / FRAMES}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description='One thread that computes, and kept memory.')
    parser.add_argument('--sizes', nargs='+', default=('640x360', '1280x720'))
    parser.add_argument('--precision', default='auto')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--one', nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one, options.precision)))
        return
    tables = []
    for size in options.sizes:
        rounds = [{way: measured(way, size, options.precision) for way in WAYS}
                  for _ in range(options.rounds)]
        table = new_table(f'fast, {options.precision}, {size}', '', 'ms', 'ratio', 'page faults')
        for way in WAYS:
            ratio = statistics.median(r[way]['ms'] / r[WAYS[0]]['ms'] for r in rounds)
            ms = statistics.median(r[way]['ms'] for r in rounds)
            faults = statistics.median(r[way]['faults'] for r in rounds)
            table.add_row(way, f'{ms:.1f}', f'{ratio:.2f}', f'{faults:.0f}')
        tables.append(table)
    show(torch.device('cpu'), *tables)


def measured(way: str, size: str, precision: str) -> dict[str, float]:
    """Return what ``one`` returns in a new process."""
    command = [sys.executable, __file__, '--one', way, size, '--precision', precision]
    return json.loads(subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True).stdout)


if __name__ == '__main__':
    main()
