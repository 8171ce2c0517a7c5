"""
How often the blur gauge is right, and what it costs: python benchmarks/blur_gauge.py DATA_ROOT

DATA_ROOT holds val/gopro/{input,gt}, val/sharp/*/ and clips/*.mp4. Frames of the last two are
taken as sharp and blurred by fixed seeds. Blurred means less than 34 dB from the sharp frame. A
camera is new (the gauge has seen nothing), known (two minutes of its frames at 30 fps, one in
five blurred) or has then seen two minutes of nothing but blur. Not a test: nothing fails here.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from iov_restore_ros.evaluation.metrics import psnr
from iov_restore_ros.inference.blur_gauge import BlurGauge, sharpness
from iov_restore_ros.pictures.degradations import motion_blur
from iov_restore_ros.pictures.degradations.blur import BLUR_MARGIN
from iov_restore_ros.pictures.files import list_images, read_image
from iov_restore_ros.pictures.movies import Movie

BLURRED = 34.0  # dB
STRENGTHS = (1.0, 0.5)
EVERY = 2, 10  # frames of a clip that are looked at, and that are blurred
TWO_MINUTES = 3600  # frames
ROUNDS = 100

Sequence = list[tuple[float, list[tuple[float, float]]]]  # sharpness, [(dB, sharpness) blurred]


def blur(frame: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Return ``frame`` as a moving camera sees it."""
    wide = cv2.copyMakeBorder(frame, *[BLUR_MARGIN] * 4, cv2.BORDER_REFLECT_101)
    image = torch.from_numpy(wide).permute(2, 0, 1)[None] / 255
    rng = torch.Generator().manual_seed(seed)
    blurred, _ = motion_blur(image, torch.tensor([strength]), rng)
    return blurred[0].mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()


def look(frame: np.ndarray, blurred: list[np.ndarray]) -> tuple[float, list[tuple[float, float]]]:
    """Gauge a frame and its blurred versions."""
    return sharpness(frame), [(psnr(other, frame), sharpness(other)) for other in blurred]


def sequences(root: Path) -> Iterator[tuple[str, Sequence]]:
    """Read, blur and gauge all frames; each sequence counts as one camera."""
    yield 'gopro', [
        look(read_image(path), [read_image(root / 'val/gopro/input' / path.name)])
        for path in list_images(root / 'val/gopro/gt')
    ]
    for folder in sorted((root / 'val/sharp').iterdir()):
        frames = map(read_image, list_images(folder))
        yield folder.name, [
            look(frame, [blur(frame, strength, number) for strength in STRENGTHS])
            for number, frame in enumerate(frames)
        ]
    for clip in sorted((root / 'clips').glob('*.mp4')):
        sequence = []
        with Movie(clip) as movie:
            for number, decoded in enumerate(movie.frames()):
                if number % EVERY[0] == 0:
                    frame = movie.rgb(decoded)
                    strengths = STRENGTHS if number % EVERY[1] == 0 else ()
                    sequence.append(look(frame, [blur(frame, s, number) for s in strengths]))
        yield clip.stem, sequence


def gauges(sequence: Sequence) -> Iterator[BlurGauge]:
    """Return the gauge of a new camera, of a known one, and of one that saw only blur of late."""
    gauge = BlurGauge()
    yield copy(gauge)
    sharp = itertools.cycle(value for value, _ in sequence)
    blurred = itertools.cycle(value for _, others in sequence for _, value in others)
    for number in range(TWO_MINUTES):
        gauge.judge(next(blurred if number % 5 == 4 else sharp))
    yield copy(gauge)
    for _ in range(TWO_MINUTES):
        gauge.judge(next(blurred))
    yield gauge


def share(gauge: BlurGauge, values: list[float]) -> tuple[int, int]:
    """Return how many of the values are called sharp, each as the next frame, and of how many."""
    return sum(copy(gauge).judge(value) for value in values), len(values)


def cost() -> tuple[float, float]:
    """Return the milliseconds per frame of 1280x720 on one thread: median and 95 %."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    frame = cv2.GaussianBlur(rng.integers(0, 256, (720, 1280, 3), np.uint8), (0, 0), 1.5)
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        sharpness(frame)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times), float(np.percentile(times, 95))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description='How often the blur gauge is right.')
    parser.add_argument('root', type=Path)
    root = parser.parse_args().root
    torch.set_num_threads(1)
    table = Table('frames', 'sharp: median', 'blurred: median')
    for state in ('new', 'known', 'after blur'):
        table.add_column(f'{state}: restored of sharp, passed of blurred, of lightly blurred')
    total = np.zeros((3, 3, 2), int)
    for name, sequence in sequences(root):
        pairs = [pair for _, others in sequence for pair in others]
        groups = (
            [value for value, _ in sequence],
            [value for decibel, value in pairs if decibel < BLURRED],
            [value for decibel, value in pairs if decibel >= BLURRED],
        )
        counts = np.array([[share(gauge, group) for group in groups] for gauge in gauges(sequence)])
        total += counts
        medians = [f'{statistics.median(group):.2f}' for group in groups[:2]]
        table.add_row(name, *medians, *map(show, counts))
    table.add_row('all', '', '', *map(show, total))
    Console(width=160).print(table)
    print('cost at 1280x720: {:.2f} ms (median), {:.2f} ms (95 %)'.format(*cost()))


def show(counts: np.ndarray) -> str:
    """Return errors as text; counts are (called sharp, all) of the three groups."""
    (sharp, all_sharp), *blurred = counts
    return ', '.join([
        f'{all_sharp - sharp}/{all_sharp}', *(f'{passed}/{count}' for passed, count in blurred)
    ])


if __name__ == '__main__':
    main()
