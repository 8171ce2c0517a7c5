"""
Crops per second and memory of training: python benchmarks/training_speed.py [--vgg FILE]

Each variant runs in a process of its own, so that its memory can be told. Between the steps the
machine's matrix products are timed, so that the share of their rate that training reaches is a
ratio of one run. Medians. Not a test: nothing fails here.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from common import machine
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from iov_restore_ros.training.config import read_config
from iov_restore_ros.training.processes import join
from iov_restore_ros.training.trainer import Trainer

FAST = ['losses={charbonnier: 1.0}']
GAN = ['data.crop=256', 'adversarial.weight=0.003']
VARIANTS = {
    'fast, Charbonnier, 32 x 64x64': [*FAST, 'batch=32', 'data.crop=64'],
    'fast, + discriminator, 2 x 256x256': [*FAST, *GAN, 'batch=2'],
    'wei2021, Charbonnier, 1 x 256x256': [
        *FAST, 'preset=wei2021', 'batch=1', 'data.crop=256'],
}
PAPER = {
    'wei2021, perceptual + discriminator, 1 x 256x256': [
        'losses={perceptual: 1.0}', *GAN, 'preset=wei2021', 'batch=1'],
}
SIDE = 2048  # of the matrices


def measure(settings: list[str], steps: int) -> tuple[float, float, float]:
    """Return crops per second, peak memory in GB, and the share of the matrix rate."""
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
        cv2.imwrite(f'{folder}/noise.png', noise)
        config = read_config([
            'task=deblur', f'data.root={folder}', f'output={folder}/run',
            f'stages=[{{steps: {steps + 2}}}]', 'data.clean=0', 'data.light=0', *settings,
        ])
        trainer = Trainer(config, join(config.device))
        reader = trainer.read()
        with FlopCounterMode(display=False) as counter:
            trainer.take_step(next(reader))
        operations = counter.get_total_flops()
        matrix = torch.rand(SIDE, SIDE, device=trainer.device, dtype=trainer.dtype)
        trainer.take_step(next(reader))
        seconds, shares = [], []
        for _ in range(steps):
            rate = 2 * SIDE**3 / timed(trainer, lambda: matrix @ matrix)
            seconds.append(timed(trainer, lambda: trainer.take_step(next(reader))))
            shares.append(operations / seconds[-1] / rate)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if trainer.device.type == 'cuda':
            memory = torch.cuda.max_memory_allocated()
        return config.batch / statistics.median(seconds), memory / 1e9, statistics.median(shares)


def timed(trainer: Trainer, work) -> float:
    """Return how many seconds ``work`` takes."""
    started = time.perf_counter()
    work()
    if trainer.device.type == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description='Crops per second and memory of training.')
    parser.add_argument('--steps', type=int, default=10)
    parser.add_argument('--vgg', type=Path, help='VGG19 weights, to measure the perceptual loss')
    options = parser.parse_args()
    variants = dict(VARIANTS)
    if options.vgg:
        variants |= {name: [*s, f'vgg={options.vgg}'] for name, s in PAPER.items()}
    table = Table(title=machine(join('auto').device))
    table.add_column('variant')
    for heading in ('crops/s', 'memory GB', 'of the matrix rate'):
        table.add_column(heading, justify='right')
    apart = multiprocessing.get_context('spawn')
    for name, settings in variants.items():
        with apart.Pool(1) as pool:
            speed, memory, share = pool.apply(measure, (settings, options.steps))
        table.add_row(name, f'{speed:.2f}', f'{memory:.2f}', f'{100 * share:.0f} %')
    Console(width=max(100, int(os.environ.get('COLUMNS', '0')))).print(table)


if __name__ == '__main__':
    main()
