"""
What the frame before and a gyroscope cost: python benchmarks/past.py [--size 640x360 ...]

Milliseconds per frame of a photograph that moves, from uint8 to uint8, medians. The blocks alone
are the network without its fusion, from before it saw the past. A gyroscope of 200 Hz only serves
to deblur. Aligning is what is left for the
CPU where the rest runs on CUDA: its cameras are how many of 30 frames a second one core aligns.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import cv2
import numpy as np
import torch
from common import as_size, machine
from rich.console import Console
from rich.table import Table
from skimage import data as photographs
from torch import nn

from iov_restore_ros.compute.cpu import compute
from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.model import shipped_tasks
from iov_restore_ros.model.generators import ResidualBlock
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.video.camera_path import Camera, Gyroscope
from iov_restore_ros.video.inertial import Inertial

SHIPPED = shipped_tasks('fast')
RATE = 30.0
SAMPLES = 200  # of the gyroscope in a second
FRAMES = 4  # that are repeated, forward and backward


def blocks_alone() -> nn.Module:
    """Return the network without its fusion, of random weights."""
    return nn.Sequential(
        nn.PixelUnshuffle(4), nn.Conv2d(48, 64, 3, padding=1),
        *[ResidualBlock(64, dropout=0.0) for _ in range(10)],
        nn.Conv2d(64, 48, 3, padding=1), nn.PixelShuffle(4),
    ).eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def run_blocks(network: nn.Module, frame: np.ndarray) -> np.ndarray:
    """Restore ``frame`` as `fast` did."""
    image = torch.from_numpy(frame).permute(2, 0, 1)[None].to(torch.float32).div_(255)
    image = image.contiguous(memory_format=torch.channels_last)
    restored = (image + network(image - 0.5)).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return restored[0].permute(1, 2, 0).contiguous().numpy()


def frames_of(size: tuple[int, int]) -> list[np.ndarray]:
    """Return a photograph that moves by (6, 2) pixels a frame."""
    width, height = size
    photo = cv2.resize(photographs.coffee(), (width + 6 * FRAMES, height + 2 * FRAMES))
    return [
        np.ascontiguousarray(photo[2 * n : 2 * n + height, 6 * n : 6 * n + width])
        for n in range(FRAMES)
    ]


def measure(size: tuple[int, int], task: str, rounds: int) -> dict[str, float]:
    """Return ms per frame, medians of ``rounds`` frames each, taken in turn."""
    frames = frames_of(size)
    network = compute(blocks_alone)
    restorer = Restorer(device='cpu', precision='float32', tasks=[task])
    history, shaken = History(shutter=0.5), History(shutter=0.5)
    width, height = size
    matrix = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]])
    gyroscope = Gyroscope()
    shaken.inertial = Inertial(gyroscope, Camera(matrix, np.eye(3)))
    for sample in range(int((rounds + 4) * SAMPLES / RATE)):  # from a frame's time before the first
        # The pictures move by (6, 2) pixels a frame.
        gyroscope.add(sample / SAMPLES - 1 / RATE, -2 / width * RATE, 6 / width * RATE, 0.0)
    seconds: dict[str, list[float]] = defaultdict(list)

    def timed(way: str, work: Callable, *arguments: object) -> None:
        started = time.perf_counter()
        work(*arguments)
        seconds[way].append(time.perf_counter() - started)

    for number in range(rounds + 1):
        frame, when = frames[number % FRAMES], number / RATE
        timed('blocks alone', compute, run_blocks, network, frame)
        timed('frame alone', restorer.restore, [frame], task)
        timed('with the frame before', restore_next, restorer, history, frame, when, task)
        if TASKS[task].blur:
            timed('with a gyroscope', restore_next, restorer, shaken, frame, when, task)
        cv2.setNumThreads(1)
        timed('aligning', history.look_back, frames[(number + 1) % FRAMES], when + 0.01, task)
        cv2.setNumThreads(-1)
    return {way: 1000 * statistics.median(times[1:]) for way, times in seconds.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description='What the frame before costs on the CPU.')
    parser.add_argument('--size', type=as_size, nargs='+', default=[(640, 360), (1280, 720)])
    parser.add_argument('--rounds', type=int, default=9)
    options = parser.parse_args()
    table = Table(title=f'{machine(torch.device("cpu"))}, float32')
    for heading in (
        'size', 'task', 'blocks alone ms', 'frame alone ms', 'with the frame before ms',
        'to the blocks', 'with a gyroscope ms', 'aligning ms', 'cameras',
    ):
        table.add_column(heading, justify='right')
    for size in options.size:
        for task in SHIPPED:
            ms = measure(size, task, options.rounds)
            ratio = ms['with the frame before'] / ms['blocks alone']
            table.add_row(
                f'{size[0]}x{size[1]}', task, *(f'{ms[way]:.1f}' for way in list(ms)[:3]),
                f'{ratio:.2f}', f'{ms["with a gyroscope"]:.1f}' if TASKS[task].blur else '',
                f'{ms["aligning"]:.1f}', f'{1000 / RATE / ms["aligning"]:.1f}',
            )
    Console(width=140).print(table)


if __name__ == '__main__':
    main()
