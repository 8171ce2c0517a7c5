"""
What a gyroscope is worth, and what its faults cost: driving footage, shaken as on a bad road.

    python benchmarks/gyroscope.py CLIPS --blur 3.5 9 --detector yolox_nano.onnx

Each clip is shaken by a fixed seed and restored frame by frame: as it came, each frame alone, with
the frame before, with a gyroscope of --rate Hz too; and with gyroscopes that are wrong. "Recorded"
means that the frames are looked at before they are restored, as restore_bag does. Footage is taken
to stand still during an exposure: its own motion is in the sharp frames, too.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from common import machine, new_table
from rich.console import Console

from iov_restore_ros.evaluation.detection import Judge, figures, open_judge
from iov_restore_ros.evaluation.metrics import features_kept, psnr
from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.model import load_weights, shipped_weights
from iov_restore_ros.pictures.degradations.blur import GAMMA
from iov_restore_ros.pictures.footage import list_footage
from iov_restore_ros.pictures.shaking import SAMPLES, STILL_BEFORE, Shake, ShakenCamera
from iov_restore_ros.video.camera_path import Camera, Gyroscope
from iov_restore_ros.video.inertial import Inertial
from iov_restore_ros.video.rehearsal import rehearse

WIDTH, HEIGHT = 640, 360
FOCAL = 520.0  # pixels
RATE = 20.0  # frames a second
NOISE = 1.0  # grey levels of the frames
SCORE = 0.5
JUDGED = 2  # every second frame is shown to the detector and the feature matcher


class Drive(NamedTuple):
    """A shaken clip: ``received`` and ``sharp``, uint8 T x H x W x 3, its camera, and its rates."""

    received: np.ndarray
    sharp: np.ndarray
    camera: ShakenCamera
    rates: np.ndarray


class Fault(NamedTuple):
    """What is wrong with a gyroscope: noise and bias in rad/s, its clock in s, and its readings."""

    noise: float = 0.008
    bias: float = 0.004
    late: float = 0.0
    wrong: Callable[[np.ndarray], np.ndarray] = np.asarray


FAULTS = {
    'with a gyroscope': Fault(),
    'noise of 0.03 rad/s': Fault(noise=0.03),
    'bias of 0.05 rad/s': Fault(bias=0.05),
    'its clock 4 ms late': Fault(late=0.004),
    'its clock 30 ms late': Fault(late=0.03),
    'in degrees': Fault(wrong=np.rad2deg),
    'wrong sign': Fault(wrong=np.negative),
    'axes swapped': Fault(wrong=lambda rates: rates[:, [1, 0, 2]]),
}


def shake(frames: np.ndarray, blur: float, share: float, readout: float, seed: int) -> Drive:
    """Shake ``frames`` so that they are blurred by ``blur`` pixels on the mean."""
    rng = np.random.default_rng(seed)
    times = [float(number) for number in range(len(frames))]
    middle = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    camera = ShakenCamera(Shake.draw(rng, (len(frames) + 1) / RATE), FOCAL, middle, 1 / RATE)
    extent = float(np.mean([camera.extent(time, share) for time in times]))
    camera = replace(camera, shake=camera.shake.scaled(blur / extent))
    sharp = np.stack([camera.see(frame, time) for frame, time in zip(frames, times, strict=True)])
    blurred = np.stack([
        camera.expose(frame, time, share, GAMMA, readout)
        for frame, time in zip(frames, times, strict=True)
    ])
    received = (blurred + NOISE * rng.normal(size=blurred.shape)).clip(0, 255).round()
    if readout:  # what is to be seen is skewed as well
        sharp = np.stack([
            camera.expose(frame, time, 1e-6, 1.0, readout).clip(0, 255).round().astype(np.uint8)
            for frame, time in zip(frames, times, strict=True)
        ])
    return Drive(received.astype(np.uint8), sharp, camera, camera.rates(len(frames)))


def restore(
    restorer: Restorer, drive: Drive, share: float, readout: float = 0.0,
    fault: Fault | None = None, rate: float = 200.0, recorded: bool = False,
) -> list[np.ndarray]:
    """Restore a drive, live or ``recorded``; with ``fault`` beside a gyroscope that has it."""
    history = History(shutter=share)
    period = drive.camera.period
    if fault is not None:
        rng = np.random.default_rng(1)
        gyroscope = Gyroscope()
        measured = drive.rates + fault.noise * rng.normal(size=drive.rates.shape) + fault.bias
        every = max(1, round(SAMPLES / period / rate))
        for number, sample in enumerate(fault.wrong(measured)):
            if number % every == 0:
                gyroscope.add(
                    (number / SAMPLES - STILL_BEFORE) * period + fault.late, *sample.tolist()
                )
        x, y = drive.camera.middle
        matrix = np.array([[FOCAL, 0, x], [0, FOCAL, y], [0, 0, 1]])
        history.inertial = Inertial(gyroscope, Camera(matrix, np.eye(3), readout=readout * period))
    frames = [(number * period, frame) for number, frame in enumerate(drive.received)]
    if recorded:
        rehearse(history, frames, 'deblur')
    return [restore_next(restorer, history, frame, stamp, 'deblur') for stamp, frame in frames]


def row(
    name: str, restored: list[list[np.ndarray]], drives: list[Drive], judge: Judge | None
) -> list[str]:
    """Return what a way of restoring comes to, over all frames."""
    pairs = [
        pair for frames, drive in zip(restored, drives, strict=True)
        for pair in zip(frames, drive.sharp, strict=True)
    ]
    some = pairs[::JUDGED]
    cells = [name, f'{np.mean([psnr(*pair) for pair in pairs]):.2f}']
    cells.append(f'{100 * np.mean([features_kept(*pair) for pair in some]):.1f}')
    if judge is not None:
        found = [judge.find(frame, judge.truth('', sharp)) for frame, sharp in some]
        result = figures(found, judge.score)
        cells += [f'{100 * result.recall:.1f}', f'{result.ap:.3f}']
    return cells


def main() -> None:
    """Print a table for each strength of blur."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('clips', type=Path, help='a folder of videos and of folders of frames')
    parser.add_argument('--blur', type=float, nargs='+', default=[3.5, 9.0], help='pixels')
    parser.add_argument('--shutter', type=float, default=0.5, help='share of the frame time')
    parser.add_argument('--readout', type=float, default=0.0, help='rolling shutter, the same')
    parser.add_argument('--frames', type=int, default=12, help='of each clip')
    parser.add_argument('--rate', type=float, default=200.0, help='of the gyroscope, Hz')
    parser.add_argument('--weights', type=Path, help='default: the shipped')
    parser.add_argument('--detector', type=Path, metavar='ONNX')
    options = parser.parse_args()
    judge = open_judge(options.detector, None, SCORE, None) if options.detector else None
    generator, _ = load_weights(options.weights or shipped_weights('fast', 'deblur'), 'deblur')
    restorer = Restorer.of({'deblur': generator})
    clips = []
    for footage in list_footage(options.clips):
        frames = footage.read((footage.length - options.frames) // 2, options.frames)
        clips.append(np.stack([
            cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for frame in frames
        ]))
    console = Console(width=None if Console().is_terminal else 140)
    console.print(machine(torch.device('cpu')))
    for blur in options.blur:
        drives = [
            shake(frames, blur, options.shutter, options.readout, seed)
            for seed, frames in enumerate(clips)
        ]
        with_past = partial(restore, restorer, share=options.shutter)
        ways: dict[str, Callable[[Drive], list[np.ndarray]]] = {
            'as it came': lambda drive: list(drive.received),
            'each frame alone': lambda drive: restorer.restore(list(drive.received), 'deblur'),
            'with the frame before': with_past,
        }
        for name, fault in FAULTS.items():
            told = partial(with_past, readout=options.readout, fault=fault, rate=options.rate)
            ways[name], ways[f'{name}, recorded'] = told, partial(told, recorded=True)
        headings = ['PSNR dB', 'features %', *(['recall %', 'AP'] if judge else [])]
        table = new_table(f'{len(clips)} clips, blur of {blur:g} pixels', '', *headings)
        for name, way in ways.items():
            table.add_row(*row(name, list(map(way, drives)), drives, judge))
        console.print(table)


if __name__ == '__main__':
    main()
