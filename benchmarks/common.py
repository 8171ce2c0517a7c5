"""What the benchmarks share: restorers of every model, frames, and clocks."""

import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from iov_restore_ros.compute.cpu import compute
from iov_restore_ros.inference import Restorer
from iov_restore_ros.model import Generator, WeightsInfo, save_weights


def machine(device: torch.device) -> str:
    """Return the name of the processor that counts, and PyTorch's version."""
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        cpus = [line for line in lines if line.startswith('model name')]
        name = f'{os.cpu_count()} x {cpus[0].partition(":")[2].strip() if cpus else "CPU"}'
    return f'{name}, PyTorch {torch.__version__}, Python {platform.python_version()}'


def make_restorer(model: str, device: str, precision: str = 'auto') -> Restorer:
    """Return a restorer of ``model`` that deblurs; its weights do not matter for its speed."""
    generator = Generator(model)
    compute(generator.initialise)  # not here, where it would leave a second team of threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'random.safetensors'
        save_weights(path, generator, WeightsInfo(model, 'deblur'))
        return Restorer(model, {'deblur': path}, device, precision, tasks=['deblur'])


def random_frame(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return noise of (width, height) as a frame: uint8 height x width x 3."""
    width, height = size
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def as_size(text: str) -> tuple[int, int]:
    """Turn 1280x720 into (1280, 720)."""
    width, _, height = text.partition('x')
    return int(width), int(height)


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Return how many seconds ``work`` takes until the device has done it."""
    started = time.perf_counter()
    work()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def new_table(title: str, first: str, *headings: str) -> Table:
    """Return a table whose columns after the first are numbers."""
    table = Table(title=title)
    table.add_column(first)
    for heading in headings:
        table.add_column(heading, justify='right')
    return table


def show(device: torch.device, *tables: Table) -> None:
    """Print the machine's name and the tables, as wide as they are also into a file."""
    console = Console(width=None if Console().is_terminal else 140)
    console.print(machine(device))
    for table in tables:
        console.print(table)
