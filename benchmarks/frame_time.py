"""
Time per frame of the restorer on this machine: python benchmarks/frame_time.py [--device cpu]

Medians over several rounds; in each round all variants run in turn, so that they see the same
machine. Not a test: nothing fails here.
"""

import argparse
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from iov_restore_ros.inference import Restorer
from iov_restore_ros.model import Generator

SIZES = ((640, 360), (1280, 720))
BATCHES = (1, 4)


def machine(device: torch.device) -> str:
    """Return the name of the processor that counts, and PyTorch's version."""
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        cpus = [line for line in lines if line.startswith('model name')]
        name = f'{os.cpu_count()} x {cpus[0].partition(":")[2].strip() if cpus else "CPU"}'
    return f'{name}, PyTorch {torch.__version__}, Python {platform.python_version()}'


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description='Time per frame of the restorer.')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--rounds', type=int, default=9)
    options = parser.parse_args()
    variants = {}
    for precision in ('float32', 'bfloat16'):
        restorer = Restorer(device=options.device, precision=precision, tasks=['deblur'])
        for batch in BATCHES:
            variants[f'fast {precision}, batch {batch}'] = restorer, batch
    # Time does not depend on the values of the weights.
    large = Restorer(device=options.device, precision='float32', tasks=['deblur'])
    generator = Generator('wei2021').eval().to(large.device)
    large._generators['deblur'] = generator.to(memory_format=torch.channels_last)
    variants['wei2021 float32, batch 1'] = large, 1

    table = Table(title=machine(large.device))
    table.add_column('variant')
    for width, height in SIZES:
        table.add_column(f'{width}x{height} ms', justify='right')
        table.add_column('ratio', justify='right')
    rows = {name: [name] for name in variants}
    for width, height in SIZES:
        frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        times = {name: [] for name in variants}
        for number in range(options.rounds + 1):  # the first one warms up
            for name, (restorer, batch) in variants.items():
                restorer.batch = batch
                started = time.perf_counter()
                restorer.restore([frame] * batch, 'deblur')
                if number:
                    times[name].append((time.perf_counter() - started) / batch * 1000)
        first = times[next(iter(variants))]
        for name, values in times.items():
            ratio = statistics.median(a / b for a, b in zip(values, first, strict=True))
            rows[name] += [f'{statistics.median(values):.1f}', f'{ratio:.2f}']
    for row in rows.values():
        table.add_row(*row)
    Console().print(table)


if __name__ == '__main__':
    main()
