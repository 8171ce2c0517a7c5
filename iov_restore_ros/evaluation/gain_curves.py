"""
Draw the gain of restoring against blur length, rain, drops on the glass, and an even veil.

    python -m iov_restore_ros.evaluation.gain_curves SHARP_DIR --output DIR

A camera moves straight, at a constant speed, over sharp pictures. The third of three frames is
measured; behind drops the last of twelve, because the memory of the glass needs some. It writes
gain_curves.png and gain_curves.md, and prints the tables. It needs matplotlib.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from iov_restore_ros.compute.device import pick_device
from iov_restore_ros.evaluation.metrics import psnr, restore_image
from iov_restore_ros.evaluation.report import markdown_table
from iov_restore_ros.evaluation.report_page import Table
from iov_restore_ros.evaluation.weather import behind_drops, veiled
from iov_restore_ros.inference import RestoreError, Restorer, restore_sequence
from iov_restore_ros.model import (
    Generator,
    WeightsError,
    load_weights,
    shipped_weights,
)
from iov_restore_ros.outputs import OutputError, keep_apart
from iov_restore_ros.pictures.degradations import shower
from iov_restore_ros.pictures.degradations.draw import sensor_noise
from iov_restore_ros.pictures.files import (
    DataError,
    list_images,
    read_image,
    to_pictures,
    to_tensor,
)
from iov_restore_ros.pictures.moving import CameraPath, MovingScene
from iov_restore_ros.pictures.veils import draw_light
from iov_restore_ros.tasks import DEBLUR, DERAIN, Task
from iov_restore_ros.video.clear import load_clearer
from iov_restore_ros.whole import whole, write_whole

LENGTHS = 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0  # pixels
STRENGTHS = 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0  # of a shower, as in training
COVERED = 0.01, 0.02, 0.05, 0.1, 0.2  # shares of the picture, by drops
THROUGH = 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3  # transmission of a veil
TIMES = -1.0, 0.0, 1.0  # of the frames; symmetric about the middle of the picture
LONG = tuple(np.arange(12) - 5.5)  # times of the frames behind drops
PACE = 8.0  # pixels per frame, except for blur
WAYS: dict[str, float | None] = {'frame alone': None, 'with past': 0.0}  # except for blur
SIDE = 256  # pixels of what the camera sees
SHORT_SIDE = 720  # larger pictures are shrunk, because they are often soft
TILT = 0.15  # sigma, radians: most motion in a vehicle's pictures is horizontal


class Curves(NamedTuple):
    """The results in dB: the PSNR of the input and the gain of each way, means for each ``x``."""

    title: str
    x_name: str
    x: tuple[float, ...]
    input: list[float]
    gains: dict[str, list[float]]


def blur_curves(
    pictures: list[np.ndarray], generator: Generator, shutter: float, seed: int
) -> Curves:
    """
    Measure the gain for each blur length, on ``pictures`` (uint8 H x W x 3, RGB).

    ``shutter`` is the share of the frame time that it is open: a blur of L pixels is a motion of
    L / ``shutter`` from frame to frame. Every other picture is averaged in linear light.
    """
    def see(picture: np.ndarray, number: int, length: float) -> tuple[np.ndarray, np.ndarray]:
        scene = scene_of(picture, length / shutter, (seed, number))
        blurred = np.stack([scene.exposure(time, shutter, bool(number % 2)) for time in TIMES])
        rng = torch.Generator().manual_seed(seed + number)
        noisy = sensor_noise(to_tensor(blurred).float() / 255, torch.ones(len(TIMES)), rng)
        return to_pictures(noisy), to_pictures(to_tensor(scene.frame(TIMES[-1])[None]) / 255)[0]

    ways = {
        'frame alone': None, 'with past, shutter unknown': 0.0, 'with past, shutter known': shutter,
    }
    return measure_gain(
        f'Gain against blur length (shutter open for {shutter:g} of the frame time)',
        'blur length, pixels', LENGTHS, ways, see, pictures, generator, DEBLUR,
    )


def rain_curves(pictures: list[np.ndarray], generator: Generator, seed: int) -> Curves:
    """
    Measure the gain for each strength of rain, on ``pictures`` (uint8 H x W x 3, RGB).

    Each picture has one shower of increasing strength: see ``pictures.degradations.shower``.
    """
    def see(picture: np.ndarray, number: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
        sharp = ride(picture, TIMES, (seed, number))
        rng = torch.Generator().manual_seed(seed + number)
        return to_pictures(shower(to_tensor(sharp).float() / 255, strength, rng)), sharp[-1]

    return measure_gain(
        f'Gain against rain (the picture moves {PACE:g} pixels a frame)', 'strength of the shower',
        STRENGTHS, WAYS, see, pictures, generator, DERAIN,
    )


def drop_curves(pictures: list[np.ndarray], generator: Generator, seed: int) -> Curves:
    """
    Measure the gain for each share that drops cover, on ``pictures`` (uint8 H x W x 3, RGB).

    Each picture has one glass with more and more drops: see ``weather.behind_drops``.
    """
    def see(picture: np.ndarray, number: int, share: float) -> tuple[np.ndarray, np.ndarray]:
        sharp = ride(picture, LONG, (seed, number))
        return behind_drops(sharp, share, np.random.default_rng((seed, number))), sharp[-1]

    return measure_gain(
        f'Gain against drops on the glass (frame {len(LONG)})', 'share of the picture covered',
        COVERED, WAYS, see, pictures, generator, DERAIN,
    )


def veil_curves(pictures: list[np.ndarray], generator: Generator, seed: int) -> Curves:
    """
    Measure the gain for each transmission of an even veil, on ``pictures`` (uint8 H x W x 3, RGB).

    Each picture has a veil of one airlight that becomes thicker.
    """
    def see(picture: np.ndarray, number: int, through: float) -> tuple[np.ndarray, np.ndarray]:
        sharp = ride(picture, TIMES, (seed, number))
        light = draw_light(sharp[0] / 255, np.random.default_rng((seed, number)))
        return veiled(sharp, through, light), sharp[-1]

    return measure_gain(
        'Gain against an even veil', 'transmission of the veil', THROUGH, WAYS, see, pictures,
        generator, DERAIN,
    )


def measure_gain(
    title: str, x_name: str, xs: tuple[float, ...], ways: dict[str, float | None],
    see: Callable[[np.ndarray, int, float], tuple[np.ndarray, np.ndarray]],
    pictures: list[np.ndarray], generator: Generator, task: Task,
) -> Curves:
    """
    Restore the frames that ``see`` returns for each picture, its number and each x.

    ``see`` also returns the last sharp frame. ``ways`` has the shutters that the network is told
    (0: unknown); None means the frame alone.
    """
    device = next(generator.parameters()).device
    clearer = load_clearer() if task.clears else None
    restorer = Restorer.of({task.name: generator}, clearer=clearer)
    curves = Curves(title, x_name, xs, [], {way: [] for way in ways})
    for x in track(xs, task.name, console=Console(stderr=True)):
        before: list[float] = []
        gains: dict[str, list[float]] = {way: [] for way in ways}
        for number, picture in enumerate(pictures):
            frames, sharp = see(picture, number, x)
            before.append(psnr(frames[-1], sharp))
            for way, shutter in ways.items():
                if shutter is None:
                    restored = restore_image(generator, frames[-1], device, clearer)
                else:
                    restored = restore_sequence(restorer, frames, task.name, shutter)[-1]
                gains[way].append(psnr(restored, sharp) - before[-1])
        curves.input.append(float(np.mean(before)))
        for way, values in gains.items():
            curves.gains[way].append(float(np.mean(values)))
    return curves


def ride(picture: np.ndarray, times: tuple[float, ...], seed: tuple[int, int]) -> np.ndarray:
    """Return the camera's view of ``picture`` at ``times``, uint8 T x SIDE x SIDE x 3, RGB."""
    scene = scene_of(picture, PACE, seed)
    return to_pictures(to_tensor(np.stack([scene.frame(time) for time in times])) / 255)


def scene_of(picture: np.ndarray, pace: float, seed: tuple[int, int]) -> MovingScene:
    """Return a scene of the middle of ``picture``; the camera moves ``pace`` pixels per frame."""
    angle = TILT * np.random.default_rng(seed).normal()
    still = np.zeros((2, 2))
    velocity = pace * np.array([np.cos(angle), np.sin(angle)])
    path = CameraPath(velocity, np.zeros(2), still, still, np.zeros(2))
    height, width = picture.shape[:2]
    return MovingScene(picture, SIDE, path, (width / 2, height / 2))


def read_pictures(folder: Path, limit: int, shutter: float, seed: int) -> list[np.ndarray]:
    """
    Return up to ``limit`` random pictures below ``folder``: uint8 H x W x 3, RGB.

    It leaves out pictures whose border would be visible. Raises ``DataError`` if none is left.
    """
    way = int(max(LENGTHS) * (2 * TIMES[-1] / shutter + 1))
    files = list_images(folder)
    pictures: list[np.ndarray] = []
    for number in np.random.default_rng(seed).permutation(len(files)):
        picture = read_image(files[number])
        scale = SHORT_SIDE / min(picture.shape[:2])
        if scale < 1:
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        height, width = picture.shape[:2]
        if height >= SIDE and width >= SIDE + way:
            pictures.append(picture)
        if len(pictures) == limit:
            break
    if not pictures:
        raise DataError(
            f'{folder}: none of the pictures has {SIDE + way}x{SIDE} pixels: give larger ones, '
            'or a --shutter nearer to 1'
        )
    return pictures


def table(curves: Curves, count: int) -> Table:
    """Return ``curves`` as a table, of ``count`` pictures."""
    rows = [
        (f'{x:g}', f'{before:.2f}', *(f'{gain:+.2f}' for gain in gains))
        for x, before, *gains in zip(
            curves.x, curves.input, *curves.gains.values(), strict=True
        )
    ]
    return Table(
        curves.title, (curves.x_name, 'input, dB', *curves.gains), rows,
        f'PSNR of the last frame, RGB, in dB over the input; means of {count} pictures.',
    )


def draw(all_curves: list[Curves], path: Path) -> None:
    """Draw them, two in a row, and write a PNG file."""
    from matplotlib.figure import Figure

    rows = len(all_curves) // 2
    figure = Figure((11, 4.2 * rows), layout='constrained')
    for axes, curves in zip(figure.subplots(rows, 2).flat, all_curves, strict=True):
        for way, gains in curves.gains.items():
            axes.plot(curves.x, gains, marker='o', label=way)
        axes.axhline(0, color='black', linewidth=0.8)
        axes.set(xlabel=curves.x_name, ylabel='gain over the input, dB')
        axes.set_title(curves.title, fontsize='medium')
        axes.legend()
        axes.grid(alpha=0.3)
    with whole(path) as part:
        figure.savefig(part, dpi=120)


def load(path: Path | None, task: Task, device: torch.device) -> Generator:
    """Return the generator of ``path``, or the shipped one."""
    path = path or shipped_weights('fast', task.name)
    return load_weights(path, task.name, 'fast')[0].to(device)


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        'gain_curves', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('sharp', type=Path, metavar='SHARP_DIR', help='a folder of sharp pictures')
    parser.add_argument('--output', type=Path, required=True, help='folder for the results')
    parser.add_argument('--limit', type=int, default=8, help='pictures (default: 8)')
    parser.add_argument('--seed', type=int, default=0, help='seed of all random numbers')
    parser.add_argument(
        '--shutter', type=float, default=0.5,
        help='share of the frame time that the shutter is open (default: 0.5; assumed is 0.7)',
    )
    for task in (DEBLUR, DERAIN):
        parser.add_argument(
            f'--{task.name}-weights', type=Path, metavar='FILE', help='default: the shipped'
        )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    options = parser.parse_args()
    if options.limit < 1:
        parser.error('--limit must be at least 1')
    if not 0 < options.shutter <= 1:
        parser.error('--shutter must be a share, above 0, up to 1')
    try:
        import matplotlib  # noqa: F401  before anything is measured
    except ImportError as error:
        parser.error(f"{error}: pip install matplotlib, or the extra: pip install '.[plots]'")
    names = [options.output / f'gain_curves.{kind}' for kind in ('md', 'png')]
    try:
        keep_apart(names, [options.sharp])  # the next run would take the plot for a picture
        options.output.mkdir(parents=True, exist_ok=True)
        pictures = read_pictures(options.sharp, options.limit, options.shutter, options.seed)
        device = pick_device(options.device)
        deblur = load(options.deblur_weights, DEBLUR, device)
        derain = load(options.derain_weights, DERAIN, device)
        measured = [
            blur_curves(pictures, deblur, options.shutter, options.seed),
            rain_curves(pictures, derain, options.seed),
            drop_curves(pictures, derain, options.seed),
            veil_curves(pictures, derain, options.seed),
        ]
    except (OutputError, WeightsError, RestoreError, ValueError, OSError) as error:
        parser.error(str(error))
    text = '\n'.join(markdown_table(table(curves, len(pictures))) for curves in measured)
    print(text)
    write_whole(names[0], text)
    draw(measured, names[1])
    return 0


if __name__ == '__main__':
    sys.exit(main())
