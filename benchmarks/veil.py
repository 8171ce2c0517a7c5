"""
What taking the veil off is worth, and what it costs.

    python benchmarks/veil.py --clips CLIPS --sharp FOLDER... [--detector yolox_nano.onnx]

The veils are drawn here, by another renderer than those trained on: a flat road, and
what stands behind it. Rows: clips in a veil that grows with the distance, in one that is even, and
as they are; sharp pictures in a veil, in a veil and streaks, in streaks alone, as they are, and
with no black of their own (which must be left alone). PSNR and features: as it came -> derained
with the veil left -> derained with the veil taken off. Of clips the last four frames count.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from common import machine
from rich.console import Console
from rich.table import Table
from skimage import data as photographs

from iov_restore_ros.evaluation.detection import open_judge
from iov_restore_ros.evaluation.detection_report import detection_cells
from iov_restore_ros.evaluation.metrics import features_kept, psnr
from iov_restore_ros.inference import Restorer, restore_sequence
from iov_restore_ros.model import load_veil
from iov_restore_ros.pictures.degradations.rain import streaks
from iov_restore_ros.pictures.files import list_images, read_image
from iov_restore_ros.pictures.footage import list_footage
from iov_restore_ros.video.veil import Unveiler

SIZE = 640, 360
MOST = 60.0  # dB that a picture counts which did not change
Frames = list[np.ndarray]
Make = Callable[[Frames, np.random.Generator], Frames]


def distance(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """
    Return how far each pixel of a frame (uint8 H x W x 3) may be, float32 H x W, 15 at most.

    A road that is flat up to a horizon, and what stands behind: nearer where it has edges.
    """
    height = frame.shape[0]
    rows = np.arange(height, dtype=np.float32)[:, None]
    horizon = height * rng.uniform(0.42, 0.55)
    road = (0.45 * height / (rows - horizon).clip(1e-3)).clip(0, 15)
    edges = cv2.GaussianBlur(np.abs(cv2.Laplacian(frame.mean(-1), cv2.CV_64F)), (0, 0), 12)
    stands = 15 / (1 + rng.uniform(0.05, 0.3) * edges)
    return np.where(rows > horizon, np.minimum(road, stands), stands).astype(np.float32)


def veil(frames: Frames, far: np.ndarray, most: float, rng: np.random.Generator) -> Frames:
    """Veil ``frames`` alike, by distances ``far``; a unit of it dims by 0.02 to ``most``."""
    through = np.exp(-rng.uniform(0.02, most) * far)[..., None]
    light = rng.uniform(0.55, 0.95) + rng.uniform(-1, 1.5) * np.array([-0.02, 0, 0.02])
    return [to_bytes(frame / 255 * through + light * (1 - through)) for frame in frames]


def to_bytes(picture: np.ndarray) -> np.ndarray:
    """Turn 0..1 into uint8."""
    return (255 * picture.clip(0, 1)).round().astype(np.uint8)


def as_it_is(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return ``frames``."""
    return frames


def growing(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return ``frames`` in a veil that grows with the distance."""
    return veil(frames, distance(frames[0], rng), 0.15, rng)


def even(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return ``frames`` in a veil that is the same everywhere."""
    return veil(frames, np.full(frames[0].shape[:2], 5, np.float32), 0.25, rng)


def rainy(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return ``frames`` in streaks."""
    height, width = frames[0].shape[:2]
    seed = torch.Generator().manual_seed(int(rng.integers(1 << 30)))
    fall = streaks(torch.zeros(1, 3, height, width), torch.ones(1), seed, len(frames))[0].numpy()
    return [to_bytes(f / 255 + w[..., None]) for f, w in zip(frames, fall, strict=True)]


def rain_in_fog(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return ``frames`` in a veil that grows with the distance, and in streaks."""
    return rainy(growing(frames, rng), rng)


def without_black(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return ``frames`` as scenes have them that have no black: mist, glare, bad exposure."""
    black = rng.uniform(0.08, 0.25)
    return [to_bytes(black + frame / 255 * (0.85 - black)) for frame in frames]


def clips(root: Path, count: int) -> Iterator[Frames]:
    """Yield ``count`` consecutive frames of the middle of each clip, at ``SIZE``."""
    for footage in list_footage(root):
        read = footage.read(footage.length // 2 - count // 2, count)
        yield [cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA) for frame in read]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--clips', type=Path, help='videos, or folders of frames')
    parser.add_argument('--sharp', type=Path, nargs='*', default=[], help='folders of pictures')
    parser.add_argument('--frames', type=int, default=6, help='of a clip')
    parser.add_argument('--detector', type=Path, metavar='ONNX', help='as `evaluate` takes it')
    parser.add_argument('--veil-weights', type=Path, help='default: the shipped')
    options = parser.parse_args()
    judge = open_judge(options.detector) if options.detector else None
    restorers = [
        Restorer(
            device='cpu', precision='float32', tasks=['derain'], find=find,
            weights={'veil': options.veil_weights or ''},
        ) for find in ((), ('veil',))
    ]
    sources: list[tuple[str, list[Frames], dict[str, Make]]] = []
    if options.clips:
        sources.append((options.clips.name, list(clips(options.clips, options.frames)), {
            'a veil that grows': growing, 'an even veil': even, 'as they are': as_it_is,
        }))
    for folder in options.sharp:
        pictures = [[read_image(path)] for path in list_images(folder)]
        sources.append((folder.name, pictures, {
            'a veil that grows': growing, 'a veil and streaks': rain_in_fog, 'streaks': rainy,
            'as they are': as_it_is, 'without black': without_black,
        }))
    table = Table(title=machine(torch.device('cpu')))
    for heading in ('pictures', 'n', 'PSNR dB', 'features kept %', 'recall %', 'AP', 'left alone'):
        table.add_column(heading)
    for name, sequences, makes in sources:
        for what, make in makes.items():
            values: list[list[tuple[float, float]]] = [[], [], []]
            found, left = {str(way): [] for way in range(3)}, 0
            for number, sharp in enumerate(sequences):
                rng = np.random.default_rng(number)
                degraded = make(sharp, rng)
                truth = degraded if make is without_black else sharp
                ways = [degraded, *(restore_sequence(r, degraded, 'derain') for r in restorers)]
                left += all(map(np.array_equal, *ways[1:]))
                for way, frames in enumerate(ways):
                    shown = list(zip(frames, truth, strict=True))[-4:]
                    values[way].append((
                        float(np.mean([min(MOST, psnr(*pair)) for pair in shown])),
                        float(np.mean([features_kept(*pair) for pair in shown])),
                    ))
                    if judge is not None:
                        found[str(way)] += [
                            judge.find(frame, judge.truth('', good)) for frame, good in shown
                        ]
            means = np.mean(values, 1)
            cells = detection_cells(found, judge.score) if judge else [''] * 4
            table.add_row(
                f'{name}: {what}', str(len(sequences)),
                ' -> '.join(f'{decibels:.2f}' for decibels in means[:, 0]),
                ' -> '.join(f'{100 * kept:.1f}' for kept in means[:, 1]), cells[1], cells[3],
                f'{left} of {len(sequences)}',
            )
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    console.print(times(Unveiler(load_veil(options.veil_weights))))


def times(unveiler: Unveiler) -> Table:
    """Return how long one core takes to look for a veil, and to take one off; the least of 30."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    table = Table('size', 'to look ms', 'and to take it off ms')
    for width, height in ((640, 360), (1280, 720), (1920, 1080)):
        clear = cv2.resize(photographs.coffee(), (width, height))
        took = []
        for frame in (clear, to_bytes(0.5 * clear / 255 + 0.4)):
            rounds = []
            for _ in range(30):
                started = time.process_time()
                unveiler.clear(frame)
                rounds.append(time.process_time() - started)
            took.append(f'{1000 * min(rounds):.1f}')
        table.add_row(f'{width}x{height}', *took)
    return table


if __name__ == '__main__':
    main()
