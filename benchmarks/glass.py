"""
What cleaning the glass is worth, part by part, and what it costs.

    python benchmarks/glass.py CLIPS [--frames 24] [--detector yolox_nano.onnx]

Clips (640x360) through drops that stay, with a wiper that passes, and as they are. Both are drawn
here, by another renderer than those trained on: caps that turn the scene over, dark at their rims,
out of focus. Ways: as it came; derained with the glass left; cleaned; and cleaned without the
memory (each frame alone), with the flow left as it was found, and without what was seen before. All
frames count, but the detector looks at every fourth.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from common import machine
from rich.console import Console
from rich.table import Table
from skimage import data as photographs
from veil import MOST, SIZE, Frames, as_it_is, clips

from iov_restore_ros.evaluation.detection import Judge, open_judge
from iov_restore_ros.evaluation.detection_report import detection_cells
from iov_restore_ros.evaluation.metrics import features_kept, psnr
from iov_restore_ros.inference import Restorer, restore_sequence
from iov_restore_ros.model import load_glass
from iov_restore_ros.pictures.warp import places
from iov_restore_ros.video.clear import Clearer
from iov_restore_ros.video.flow import Flow
from iov_restore_ros.video.glass import Cleaner, Found, Memory

LOOKED_AT = 4  # of so many frames one
Make = Callable[[Frames, np.random.Generator], Frames]


class Alone(Cleaner):
    """One without a memory."""

    def find(self, frame: np.ndarray, before: np.ndarray | None, memory: Memory | None) -> Found:
        return super().find(frame, None, None)


class FlowLeft(Cleaner):
    """One that believes the flow under a drop."""

    def find(self, frame: np.ndarray, before: np.ndarray | None, memory: Memory | None) -> Found:
        return _AsItWas(*super().find(frame, before, memory))


class _AsItWas(Found):
    def flow(self, flow: Flow) -> Flow:
        return flow


class NothingSeen(Cleaner):
    """One that fills from around only."""

    def fill(
        self, frame: np.ndarray, before: np.ndarray | None, flow: Flow | None, found: Found
    ) -> tuple[np.ndarray, Memory]:
        return super().fill(frame, before, flow, found._replace(before=None))


def disc(radius: float) -> np.ndarray:
    """Return what a point out of focus becomes, float32."""
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (radius + 0.5 - np.hypot(x, y)).clip(0, 1).astype(np.float32)
    return kernel / kernel.sum()


def drops(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return ``frames`` through 6 to 40 drops."""
    height, width = frames[0].shape[:2]
    cover = np.zeros((height, width), np.float32)
    there = places(height, width).copy()
    bright = np.ones_like(cover)
    x, y = places(height, width).transpose(2, 0, 1)
    for _ in range(rng.integers(6, 40)):
        radius, middle = rng.uniform(3, 27), rng.uniform((0, 0), (width, height))
        tilt, long = rng.uniform(0, np.pi), rng.uniform(0.75, 1.2)
        off_x, off_y = x - middle[0], y - middle[1]
        along = (off_x * np.cos(tilt) + off_y * np.sin(tilt)) / long
        across = (off_y * np.cos(tilt) - off_x * np.sin(tilt)) * long
        waves = 0.12 * rng.random() * np.sin(3 * np.arctan2(across, along) + rng.uniform(0, 6))
        away = np.hypot(along, across) / radius + waves
        inside = away < 1
        view = rng.uniform(0.2, 0.55) * width * np.sin(away.clip(0, 1) * np.pi / 2)
        view = view / np.hypot(off_x, off_y).clip(0.05 * radius)
        seen = np.dstack([middle[0] - off_x * view, middle[1] - 0.6 * off_y * view])
        there[inside] = seen[inside]
        bright[inside] = (1 - 0.5 * ((away - 0.7) / 0.3).clip(0, 1))[inside]
        cover[inside] = 1
    kernel = disc(rng.uniform(1, 7))
    cover = rng.uniform(0.7, 1) * cv2.filter2D(cover, -1, kernel)[..., None]
    result = []
    for frame in frames:
        drop = cv2.remap(
            frame, there.astype(np.float32), None, cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        ) * bright[..., None]
        drop = cv2.filter2D(drop, -1, kernel)
        result.append((frame + cover * (drop - frame)).clip(0, 255).round().astype(np.uint8))
    return result


def wiper(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return ``frames`` before which a wiper passes twice, in five frames each."""
    height, width = frames[0].shape[:2]
    x, y = places(height, width).transpose(2, 0, 1)
    angle = np.arctan2(1.2 * height - y, x - width * rng.uniform(0.2, 0.8))
    result = [frame.copy() for frame in frames]
    for first in (4, 14):
        for step, frame in enumerate(result[first : first + 5]):
            at = 0.4 + (step + rng.uniform(0, 0.5)) * 0.5
            blade = cv2.GaussianBlur((np.abs(angle - at) < 0.035).astype(np.float32), (0, 0), 3)
            frame[:] = frame + 0.95 * blade[..., None] * (25.0 - frame)
    return result


def measure(
    ways: dict[str, Restorer], made: Frames, sharp: Frames, judge: Judge | None,
    found: dict[str, list],
) -> dict[str, tuple[float, float]]:
    """Return PSNR and features of each way; adds to ``found`` what ``judge`` finds."""
    values = {}
    shown = {'as it came': made}
    shown |= {way: restore_sequence(restorer, made, 'derain') for way, restorer in ways.items()}
    for way, frames in shown.items():
        pairs = list(zip(frames, sharp, strict=True))
        values[way] = (
            float(np.mean([min(MOST, psnr(*pair)) for pair in pairs])),
            float(np.mean([features_kept(*pair) for pair in pairs[::LOOKED_AT]])),
        )
        if judge is not None:
            found[way] += [
                judge.find(frame, judge.truth('', good)) for frame, good in pairs[::LOOKED_AT]
            ]
    return values


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('clips', type=Path, help='videos, or folders of frames')
    parser.add_argument('--frames', type=int, default=24, help='of a clip')
    parser.add_argument('--detector', type=Path, metavar='ONNX', help='as `evaluate` takes it')
    parser.add_argument('--glass-weights', type=Path, help='default: the shipped')
    options = parser.parse_args()
    judge = open_judge(options.detector) if options.detector else None
    glass = load_glass(options.glass_weights)
    cleaners: dict[str, Cleaner | None] = {
        'the glass left': None, '**cleaned**': Cleaner(glass), 'without the memory': Alone(glass),
        'with the flow as found': FlowLeft(glass), 'without what was seen': NothingSeen(glass),
    }
    ways = {}
    for way, cleaner in cleaners.items():
        ways[way] = Restorer(device='cpu', precision='float32', tasks=['derain'], find=())
        ways[way].clearer = Clearer(None, cleaner)
    makes: dict[str, Make] = {'drops': drops, 'a wiper': wiper, 'as they are': as_it_is}
    sequences = list(clips(options.clips, options.frames))
    table = Table(title=f'{machine(torch.device("cpu"))}; {len(sequences)} clips')
    for heading in ('clips', 'way', 'PSNR dB', 'features kept %', 'recall %', 'AP'):
        table.add_column(heading)
    for what, make in makes.items():
        values: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        found: dict[str, list] = defaultdict(list)
        for number, sharp in enumerate(sequences):
            made = make(sharp, np.random.default_rng(number))
            for way, value in measure(ways, made, sharp, judge, found).items():
                values[way].append(value)
        for way, pairs in values.items():
            decibels, kept = np.mean(pairs, 0)
            cells = [''] * 4
            if judge is not None:
                cells = detection_cells({way: found[way]}, judge.score)
            table.add_row(
                what, way, f'{decibels:.2f}', f'{100 * kept:.1f}', cells[1], cells[3]
            )
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    console.print(times(Cleaner(glass)))


def times(cleaner: Cleaner) -> Table:
    """Return how long one core takes to find what lies there, and to fill it; the median of 20."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    table = Table('size', 'to find ms', 'and to fill ms')
    for width, height in (SIZE, (1280, 720), (1920, 1080)):
        frame = cv2.resize(photographs.coffee(), (width, height))
        rows = np.zeros((-(-height // 4), -(-width // 4), 2), np.float32)
        flow = Flow(rows, np.ones((*rows.shape[:2], 3), np.float32))
        memory, took = None, []
        for _ in range(20):
            started = time.process_time()
            found = cleaner.find(frame, frame, memory)
            looked = time.process_time()
            cover = np.zeros_like(found.memory.cover)
            cover[::8, ::8] = 1
            found = found._replace(memory=found.memory._replace(cover=cover))
            _, memory = cleaner.fill(frame, frame, found.flow(flow), found)
            took.append((looked - started, time.process_time() - looked))
        table.add_row(f'{width}x{height}', *(f'{1000 * t:.1f}' for t in np.median(took, 0)))
    return table


if __name__ == '__main__':
    main()
