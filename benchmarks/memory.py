"""
Memory and time of one picture with restore_files: python benchmarks/memory.py [--model fast]

Every picture in a process of its own. Bytes per pixel are what came on top of a 64x64 picture.
Weights are random: neither depends on their values. Not a test: nothing fails here.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from common import machine
from rich.console import Console
from rich.table import Table

from iov_restore_ros.inference.tiling import Tiling, plan_tiles
from iov_restore_ros.model import PRESETS, Generator, WeightsInfo, save_weights

SIZES = ((64, 64), (1280, 720), (1920, 1080), (3840, 2160), (7680, 4320))


def measure(model: str, weights: Path, picture: Path) -> tuple[int, float]:
    """Restore ``picture``; return the process's peak memory in bytes and the seconds it took."""
    started = time.perf_counter()
    command = [
        sys.executable, '-m', 'iov_restore_ros.tools.restore_files', str(picture),
        '--output', str(picture.parent / 'out'), '--task', 'deblur', '--device', 'cpu',
        '--model', model, '--weights', str(weights), '--format', 'bmp', '--overwrite',
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    # Not RUSAGE_CHILDREN, which remembers the largest child so far.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f'{" ".join(command)} ended with status {process.returncode}')
    return usage.ru_maxrss * 1024, time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description='Memory and time of one picture.')
    parser.add_argument('--model', nargs='+', choices=PRESETS, default=list(PRESETS))
    options = parser.parse_args()
    table = Table(title=machine(torch.device('cpu')))
    for heading in ('model', 'picture', 'tiles', 'computed', 'peak GB', 'bytes per pixel', 's'):
        table.add_column(heading, justify='left' if heading == 'model' else 'right')
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in options.model:
            save_weights(folder / 'w.safetensors', Generator(model), WeightsInfo(model, 'deblur'))
            tiling = Tiling(model, torch.device('cpu'))
            first = None
            for width, height in SIZES:
                picture = folder / 'picture.bmp'
                noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
                cv2.imwrite(str(picture), noise)
                peak, seconds = measure(model, folder / 'w.safetensors', picture)
                first = first or peak
                tiles = plan_tiles(height, width, tiling.pixels, tiling.halo)
                computed = sum(
                    (rows.stop - rows.start) * (columns.stop - columns.start)
                    for (rows, columns), _, _ in tiles
                )
                table.add_row(
                    model, f'{width}x{height}', str(len(tiles)),
                    f'{computed / (width * height):.2f}', f'{peak / 1e9:.2f}',
                    f'{(peak - first) / (width * height):.0f}', f'{seconds:.1f}',
                )
    Console().print(table)


if __name__ == '__main__':
    main()
