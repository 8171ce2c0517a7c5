"""
What the machine could do, and how near the restorer comes: python benchmarks/floor.py

The floor of a frame is the larger of operations / rate of matrix products in the restorer's
precision, and bytes / bandwidth of copies. Operations: those of the network as the paper draws it
(a multiplication and an addition are two). Bytes: every convolution reads its input and its
weights once and writes its output once; activations, skips and upsampling cost nothing, and
nothing stays in a cache. Convolutions that save multiplications, or caches, can go below it.

Rates and frames are measured in turn in every round; the ratio is the median of the rounds'. Not
a test: nothing fails here.
"""

import argparse
import statistics
from typing import NamedTuple

import torch
from common import as_size, make_restorer, new_table, random_frame, show, timed
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from iov_restore_ros.compute.cpu import compute
from iov_restore_ros.compute.device import pick_device
from iov_restore_ros.model import PRESETS, Generator
from iov_restore_ros.model.generators import ResidualBlock

SIZES = ('640x360', '1280x720', '1920x1080')
DTYPES = {
    'cpu': (torch.float32, torch.bfloat16, torch.int8),
    'cuda': (torch.float32, torch.bfloat16, torch.float16),
}
SIDE = {'cpu': 2048, 'cuda': 8192}  # of the matrices
COPIED = 2**29  # bytes: more than caches hold
SENT = 2**26  # bytes that cross the bus
BEST_OF = 3


class Work(NamedTuple):
    """What one frame takes at least."""

    operations: dict[str, int]  # by precision
    moved: int  # bytes

    def seconds(self, rates: dict[str, float], place: str) -> tuple[float, float]:
        """Return the seconds of the operations and those of the bytes on a machine."""
        products = (count / rates[f'{name} products'] for name, count in self.operations.items())
        return sum(products), self.moved / rates[f'{place} copies']


def least_work(model: str, size: tuple[int, int], precision: str) -> Work:
    """Return operations and bytes of one frame of (width, height)."""
    outside = 'float32' if precision == 'int8' else precision
    sample = getattr(torch, outside).itemsize
    moved = 0
    with torch.device('meta'):
        generator = Generator(model).eval()
    blocks = [f'Generator.body.{number}' for number, layer in enumerate(generator.body)
              if precision == 'int8' and isinstance(layer, ResidualBlock)]

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal moved
        if isinstance(module, nn.Upsample):  # what follows can read the small map
            moved += sample * (inputs[0].numel() - output.numel())
            return
        read = inputs[0].numel() + sum(parameter.numel() for parameter in module.parameters())
        of_block = any(parent in blocks for parent in counter.mod_tracker.parents)
        moved += read * (1 if of_block else sample) + output.numel() * sample

    for module in generator.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Upsample):
            module.register_forward_hook(count)
    width, height = size
    with torch.device('meta'), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        generator(torch.empty(1, 3, height, width))
    by_module = counter.get_flop_counts()
    within = sum(sum(by_module[block].values()) for block in blocks)
    operations = {outside: counter.get_total_flops() - within}
    return Work(operations | ({'int8': within} if within else {}), moved)


class Machine:
    """Measures rates, anew at each call: operations or bytes per second, the best of a few."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        side = SIDE[device.type]
        self._matrices = {
            dtype: torch.rand(side, side, device=device).mul_(2).to(dtype)
            for dtype in DTYPES[device.type]
        }
        self._memory = {
            place: torch.zeros(2, COPIED, dtype=torch.uint8, device=place)
            for place in {'cpu', device.type}
        }
        if device.type == 'cuda':
            self._host = torch.empty(SENT, dtype=torch.uint8, pin_memory=True)
            self._there = torch.empty(SENT, dtype=torch.uint8, device=device)

    def _rate(self, amount: float, work) -> float:
        return amount / min(timed(self._device, work) for _ in range(BEST_OF))

    def products(self, dtype: torch.dtype) -> float:
        """Operations per second of matrix products."""
        matrix = self._matrices[dtype]
        product = torch._int_mm if dtype == torch.int8 else torch.mm
        return self._rate(2 * len(matrix) ** 3, lambda: product(matrix, matrix))

    def copies(self, place: str) -> float:
        """Bytes per second that are read and written in the memory of cpu or cuda."""
        target, source = self._memory[place]
        return self._rate(2 * COPIED, lambda: target.copy_(source))

    def all(self) -> dict[str, float]:
        """Return all rates by name; those of products are operations, the others bytes."""
        rates = {f'{dtype} products'.removeprefix('torch.'): self.products(dtype)
                 for dtype in self._matrices}
        rates |= {f'{place} copies': self.copies(place) for place in self._memory}
        if self._device.type == 'cuda':
            there, host = self._there, self._host
            rates['host to device'] = self._rate(
                SENT, lambda: there.copy_(host, non_blocking=True))
            rates['device to host'] = self._rate(
                SENT, lambda: host.copy_(there, non_blocking=True))
        return rates


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description='The floor of a frame, and how near it is.')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--precision', default='auto')
    parser.add_argument('--models', nargs='+', default=list(PRESETS))
    parser.add_argument('--sizes', nargs='+', default=SIZES)
    parser.add_argument('--batch', type=int, default=1, help='frames that are given at once')
    parser.add_argument('--rounds', type=int, default=5)
    options = parser.parse_args()
    device = pick_device(options.device)
    measured = Machine(device)
    restorers = {m: make_restorer(m, options.device, options.precision) for m in options.models}

    rates: list[dict[str, float]] = []
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(options.rounds + 1):
        now = measured.all()
        for model, restorer in restorers.items():
            for size in options.sizes:
                frames = [random_frame(as_size(size))] * options.batch
                took = timed(device, lambda: restorer.restore(frames, 'deblur')) / options.batch  # noqa: B023  called at once
                if number:  # the first round warms up
                    seconds.setdefault((model, size), []).append(took)
        if number:
            rates.append(now)

    rate_table = new_table('rates', 'what', 'median', 'lowest', 'highest')
    for name in rates[0]:
        scale, unit = (1e9, 'GFLOP/s') if 'products' in name else (1e9, 'GB/s')
        values = [one[name] / scale for one in rates]
        rate_table.add_row(name, *(
            f'{f(values):.0f} {unit}' for f in (statistics.median, min, max)))
    table = new_table(
        f'ms per frame, {options.batch} at a time', 'model', 'size', 'precision', 'GFLOP', 'MB',
        'for the GFLOP', 'for the MB', 'measured', 'to the floor', 'range')
    for (model, size), took in seconds.items():
        precision = restorers[model].precision
        work = least_work(model, as_size(size), precision)
        floors = [work.seconds(one, device.type) for one in rates]
        ratios = [s / max(floor) for s, floor in zip(took, floors, strict=True)]
        median = [1000 * statistics.median(v) for v in (*zip(*floors, strict=True), took)]
        table.add_row(
            model, size, precision, f'{sum(work.operations.values()) / 1e9:.1f}',
            f'{work.moved / 1e6:.0f}',
            *(f'{value:.2f}' for value in median),
            f'{statistics.median(ratios):.2f}', f'{min(ratios):.2f}..{max(ratios):.2f}')
    show(device, rate_table, table)


if __name__ == '__main__':
    compute(main)
