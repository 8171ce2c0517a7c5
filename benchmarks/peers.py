"""
Time, size and quality beside other networks: python benchmarks/peers.py --nafnet CHECKOUT ...

Each peer is imported from a checkout of its authors' repository, which runs their code. All
networks run in one process on the CPU in float32, on the same frames, in turn in every round, each
in the memory layout that is faster for it; `fast` once more as the node runs it where it can, its
residual blocks in int8. Without `--weights NAME=FILE` weights are random: time
does not depend on their values. With `--data DIR` (input/ and gt/) those that have weights are
measured in PSNR, with `--video ROOT` (as `evaluate` takes it) on consecutive frames, `fast` also
with its past; with `--detector ONNX` also by what that finds. docs/peers.md and docs/detection.md
have tables. Not a test: nothing fails here.
"""

import argparse
import ctypes
import importlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock, patch

import cv2
import numpy as np
import torch
from common import machine
from rich.console import Console
from rich.table import Table
from skimage import data as photographs
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from iov_restore_ros.compute.cpu import compute
from iov_restore_ros.compute.int8 import int8_is_exact, to_int8
from iov_restore_ros.evaluation.clips import open_clips
from iov_restore_ros.evaluation.detection import Judge, open_judge
from iov_restore_ros.evaluation.detection_report import HEADINGS, detection_cells
from iov_restore_ros.evaluation.metrics import psnr, restore_image
from iov_restore_ros.evaluation.video import DIGITS, FULL_PAST, ClipScore, score_frames
from iov_restore_ros.inference import Restorer, restore_sequence
from iov_restore_ros.model import PRESETS, Generator, load_weights, read_info
from iov_restore_ros.pictures.files import list_images, read_image
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.video.clear import load_clearer

INT8 = ' in int8'  # behind the name of a network
FRAMES = 8  # of a clip
instance_norm = partial(nn.InstanceNorm2d, affine=False, track_running_stats=True)


@dataclass(frozen=True)
class Peer:
    """How a network of others is built and called, as their own test scripts do it."""

    module: str
    build: Callable[[ModuleType], nn.Module]
    output: int | None = None  # which of several
    signed: bool = False  # pictures are -1..1, not 0..1
    multiple: int = 1  # of height and width
    packages: tuple[str, ...] = ()  # whose __init__ is not run, because it wants the whole project
    unused: tuple[str, ...] = ()  # imported, but not needed by the network


PEERS = {
    'deblurgan': Peer(
        'models.networks',
        lambda m: m.define_G(3, 3, 64, 'resnet_9blocks', 'instance', True, learn_residual=True),
        signed=True, multiple=4,
    ),
    'deblurganv2': Peer(
        'models.fpn_mobilenet', lambda m: m.FPNMobileNet(instance_norm, pretrained=False),
        signed=True, multiple=32, packages=('models',),
    ),
    'mimo_unet': Peer(
        'models.MIMOUNet', lambda m: m.build_net('MIMO-UNet'), output=-1, multiple=8,
    ),
    'nafnet': Peer(
        'basicsr.models.archs.NAFNet_arch',
        lambda m: m.NAFNet(
            width=32, enc_blk_nums=[1, 1, 1, 28], middle_blk_num=1, dec_blk_nums=[1, 1, 1, 1]
        ),
        packages=('basicsr.models', 'basicsr.models.archs'), unused=('basicsr.utils',),
    ),
    'prenet': Peer(
        'networks', lambda m: m.PReNet(6, use_GPU=False), output=0, unused=('torchvision',),
    ),
}


class Adapted(nn.Module):
    """A peer as a function from images in 0..1 of any size to restored ones."""

    def __init__(self, network: nn.Module, peer: Peer) -> None:
        """Wrap ``network``."""
        super().__init__()
        self.network = network
        self.peer = peer

    def forward(self, image: Tensor) -> Tensor:
        """Map N x 3 x H x W, RGB, 0..1, to the same."""
        height, width = image.shape[-2:]
        pads = (0, -width % self.peer.multiple, 0, -height % self.peer.multiple)
        padded = functional.pad(image, pads, mode='replicate') if any(pads) else image
        restored = self.network(padded * 2 - 1 if self.peer.signed else padded)
        if self.peer.output is not None:
            restored = restored[self.peer.output]
        restored = restored[..., :height, :width]
        return (restored + 1) / 2 if self.peer.signed else restored


@contextmanager
def checkout(path: Path, peer: Peer) -> Iterator[None]:
    """Make the modules of a checkout importable, and forget them afterwards: names clash."""
    modules: dict[str, ModuleType] = {name: MagicMock() for name in peer.unused}
    for name in peer.packages:
        modules[name] = ModuleType(name)
        modules[name].__path__ = [str(path.joinpath(*name.split('.')))]
    with patch.dict(sys.modules, modules), patch.object(sys, 'path', [str(path), *sys.path]):
        yield


def build(name: str, path: Path | None, weights: Path | None) -> nn.Module:
    """Build one of our networks, or from ``path`` a peer's, with weights where given."""
    if path is None:
        if weights is not None:
            return load_weights(weights, preset=name)[0]
        network = Generator(name)
        network.initialise()
        return network
    peer = PEERS[name]
    with checkout(path, peer):
        network = peer.build(importlib.import_module(peer.module))
    if weights is not None:
        state = torch.load(weights, map_location='cpu', weights_only=True)
        for key in ('model', 'params'):
            state = state.get(key, state)
        network.load_state_dict({k.removeprefix('module.'): v for k, v in state.items()})
    return Adapted(network, peer)


def timed(network: nn.Module, image: Tensor) -> float:
    """Return the ms of one frame."""
    started = time.perf_counter()
    network(image)
    return (time.perf_counter() - started) * 1000


def faster_layout(network: nn.Module, image: Tensor) -> torch.memory_format:
    """Try both memory layouts and leave ``network`` in the faster one."""
    times = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        network.to(memory_format=layout)
        laid = image.to(memory_format=layout)
        times[layout] = min(timed(network, laid) for _ in range(2))
    layout = min(times, key=lambda layout: times[layout])
    network.to(memory_format=layout)
    return layout


def peak_memory(network: nn.Module, image: Tensor) -> int:
    """Return the bytes of memory that one frame takes on top of what the process holds."""
    ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed, and it would not be counted
    Path('/proc/self/clear_refs').write_text('5')  # Linux: the peak starts from now
    before = status_bytes('VmRSS')
    network(image)
    return status_bytes('VmHWM') - before


def status_bytes(name: str) -> int:
    """Return a value of /proc/self/status."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ':')) * 1024


def quality(network: nn.Module, folder: Path, judge: Judge | None) -> list[str]:
    """Return the mean PSNR in dB over the pairs of ``folder``, and what ``judge`` finds there."""
    values, found = [], []
    for path in list_images(folder / 'input'):
        restored = restore_image(network, read_image(path), 'cpu')
        sharp = read_image(folder / 'gt' / path.name)
        values.append(psnr(restored, sharp))
        if judge is not None:
            found.append(judge.find(restored, judge.truth(path.name, sharp)))
    cells = detection_cells({'': found}, judge.score) if judge else []
    return [f'{statistics.mean(values):.2f}', *cells]


def video_table(
    networks: dict[str, nn.Module], text: str, task: str, seed: int | None, judge: Judge | None
) -> Table:
    """
    Measure on the clips of ``text``, from the frame on of which the past is full.

    ``networks`` that are of ours also with their past.
    """
    clips = [read() for _, read in open_clips(text, task, seed, FRAMES, 0.0).pictures]
    ways: dict[str, Callable[[np.ndarray], list[np.ndarray]]] = {'as it came': list}
    for name, network in networks.items():
        ways[name] = lambda frames, network=network: [
            restore_image(network, frame, 'cpu') for frame in frames
        ]
    fast = networks['fast']
    assert isinstance(fast, Generator)
    for name, precision in (('fast', 'float32'), (f'fast{INT8}', 'int8')):
        if name in networks:
            clearer = load_clearer() if TASKS[task].clears else None
            restorer = Restorer.of({task: fast}, precision, clearer)
            ways[f'{name}, with its past'] = lambda frames, restorer=restorer: restore_sequence(
                restorer, frames, task
            )
    table = Table(title=f'{text}: {len(clips)} clips of {FRAMES} frames')
    for heading in ('', *DIGITS, *(HEADINGS if judge else ())):
        table.add_column(heading, justify='right' if heading else 'left')
    truths = [list(map(partial(judge.truth, ''), sharp)) if judge else [] for _, sharp in clips]
    for name, restore in ways.items():
        scores, found = [], []
        for (frames, sharp), truth in zip(clips, truths, strict=True):
            restored = restore(frames)
            scores.append(ClipScore('', {name: score_frames(restored, sharp)}))
            if judge is not None:
                found += list(map(judge.find, restored, truth))[FULL_PAST:]
        table.add_row(
            name, *(
                f'{statistics.mean(s.mean(name, what, FULL_PAST) for s in scores):.{digits}f}'
                for what, digits in DIGITS.items()
            ),
            *(detection_cells({'': found}, judge.score) if judge else ()),
        )
    return table


def size_table(networks: dict[str, nn.Module], width: int, height: int, rounds: int) -> Table:
    """Measure all networks at one size."""
    photo = cv2.resize(photographs.coffee(), (width, height), interpolation=cv2.INTER_AREA)
    frame = torch.from_numpy(photo).permute(2, 0, 1)[None].contiguous() / 255
    images = {
        name: frame.to(memory_format=faster_layout(network, frame))
        for name, network in networks.items()
    }
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds):
        for name, network in networks.items():
            times[name].append(timed(network, images[name]))
    threads = f'{torch.get_num_threads()} threads'
    table = Table(title=f'{width}x{height}, {machine(torch.device("cpu"))}, {threads}')
    for heading in ('', 'ms', 'quartiles', 'x fast', 'GMAC', 'parameters', 'MB'):
        table.add_column(heading, justify='right' if heading else 'left')
    for name, network in networks.items():
        low, middle, high = statistics.quantiles(times[name], n=4, method='inclusive')
        ratio = statistics.median(
            own / fast for own, fast in zip(times[name], times['fast'], strict=True)
        )
        counted = networks[name.removesuffix(INT8)]
        with FlopCounterMode(display=False) as counter:
            counted(images[name])
        table.add_row(
            name, f'{middle:.0f}', f'{low:.0f}..{high:.0f}', f'{ratio:.1f}',
            f'{counter.get_total_flops() / 2e9:.1f}',
            f'{sum(p.numel() for p in counted.parameters()):,}',
            f'{peak_memory(network, images[name]) / 1e6:.0f}',
        )
    return table


@torch.inference_mode()
def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description='Time, size and quality beside other networks.')
    for name in PEERS:
        parser.add_argument('--' + name.replace('_', '-'), type=Path, help='a checkout')
    parser.add_argument('--sizes', nargs='*', default=['256x256', '640x360'])
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--data', type=Path, help='folder with input/ and gt/')
    parser.add_argument('--video', help='clips, as `evaluate --video` takes them')
    parser.add_argument('--synthetic', type=int, metavar='SEED', help='degrade the clips')
    parser.add_argument('--detector', type=Path, metavar='ONNX', help='as `evaluate` takes it')
    parser.add_argument('--weights', nargs='+', default=[], metavar='NAME=FILE')
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = {
        name: Path(file) for name, _, file in (given.partition('=') for given in options.weights)
    }
    if unknown := set(weights) - {*PRESETS, *PEERS}:
        parser.error(f'--weights {", ".join(unknown)}: known are {", ".join((*PRESETS, *PEERS))}')
    if options.video and 'fast' not in weights:
        parser.error('--video needs --weights fast=FILE')
    judge = open_judge(options.detector) if options.detector else None
    warnings.simplefilter('ignore')  # of what others' code calls
    console = Console(width=None if Console().is_terminal else 140)
    paths: dict[str, Path | None] = {
        **dict.fromkeys(('fast', *PRESETS)),
        **{name: path for name in PEERS if (path := getattr(options, name))},
    }
    networks = {}
    for name, path in paths.items():
        try:
            network = build(name, path, weights.get(name)).eval()
            network(torch.zeros(1, 3, 64, 64))
            networks[name] = network
        except Exception as error:  # noqa: BLE001  what others' code may raise is anybody's guess
            console.print(f'{name}: left out, {type(error).__name__}: {error}', markup=False)
    if int8_is_exact():
        networks[f'fast{INT8}'] = build('fast', None, weights.get('fast')).eval()
        networks[f'fast{INT8}'].body = to_int8(networks[f'fast{INT8}'].body)
    known = {
        name: network for name, network in networks.items()
        if name.removesuffix(INT8) in weights
    }
    if options.data is not None:
        table = Table(title=options.data.name)
        table.add_column('')
        for heading in ('PSNR dB', *(HEADINGS if judge else ())):
            table.add_column(heading, justify='right')
        table.add_row('as it came', *quality(nn.Identity(), options.data, judge))
        for name, network in known.items():
            table.add_row(name, *quality(network, options.data, judge))
        console.print(table)
    if options.video:
        task = read_info(weights['fast']).task
        console.print(video_table(known, options.video, task, options.synthetic, judge))
    for size in options.sizes:
        width, height = map(int, size.split('x'))
        console.print(size_table(networks, width, height, options.rounds))


if __name__ == '__main__':
    compute(main)
