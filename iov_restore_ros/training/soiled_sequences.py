"""
Training data of the network that finds drops and dirt: soiled sequences of small frames.

The frames come from footage, or from a photograph along a camera's path. A few moments of each
sequence are kept. A moment is the output of `video.glass.observe` after all earlier frames.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from iov_restore_ros.pictures.degradations.rain import draw_fall
from iov_restore_ros.pictures.files import DataError, Pictures
from iov_restore_ros.pictures.footage import Footage, list_footage
from iov_restore_ros.pictures.soiled import Soiled, soil
from iov_restore_ros.pictures.warp import move
from iov_restore_ros.tasks import DERAIN
from iov_restore_ros.video.aligner import Previous, align
from iov_restore_ros.video.glass import CELL, Memory, filled, observe

SIZE = 176, 320  # rows and columns of the small frames
LENGTH = 5, 17  # frames of a sequence
MOMENTS = 4  # kept moments of each sequence
POOL = 1500  # moments kept for reuse, which saves the time to make new sequences
FIRST = 20  # sequences before the first step
KEPT_WIDTH = 480  # pixels, width of footage in memory
BLOCK = 16  # frames that are read at once
STANDING = 0.15  # share of the sequences in which the vehicle stops
EXPOSED = 0.3  # share of the sequences that are darker or brighter
IN_RAIN = 0.5
FALLS = 30  # drawn pictures of streaks
# Drops that are found are removed from the previous frame and are then easier to see. Drops that
# are not found stay in it. When the previous frame was always clean in training, the network found
# drops in training that it never found on a camera.
NEVER_FOUND = 0.5  # share of the sequences; in the others drops are found from some frame on
LEFT_OVER = 0.3  # greatest share of a found drop that stays in the previous frame


class Moment(NamedTuple):
    """
    The network's input for a frame, ``planes`` from `video.glass.observe`, and the truth.

    The truth is float32 rows x columns each: ``cover``, 0..1; ``kept``, the error of the received
    frame; ``made``, the error of a filling from the surroundings. Both errors are 0..1, averaged
    over the colours.
    """

    planes: np.ndarray
    cover: np.ndarray
    kept: np.ndarray
    made: np.ndarray


class SoiledSequences(IterableDataset):
    """Batches of ``Moment``, float32 tensors, which depend on ``seed`` and the pictures alone."""

    def __init__(
        self, stills: Pictures, videos: Sequence[np.ndarray], footage_share: float, batch: int,
        seed: int,
    ) -> None:
        """Draw the share ``footage_share`` from ``videos``, each uint8 T x H x W x 3, RGB."""
        self.stills, self.videos, self.batch, self.seed = stills, videos, batch, seed
        self.footage_share = footage_share if videos else 0.0
        self.falls: dict[int, np.ndarray] = {}

    def __iter__(self) -> Iterator[list[Tensor]]:
        pool: list[Moment] = []
        rng = np.random.default_rng(self.seed)
        number = 0
        while True:
            for moment in self.sequence(number):
                if len(pool) < POOL:
                    pool.append(moment)
                else:
                    pool[int(rng.integers(POOL))] = moment
            number += 1
            if number <= FIRST:
                continue
            drawn = [pool[i] for i in rng.integers(len(pool), size=self.batch)]
            batch = [torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True)]
            yield [part.flip(-1) for part in batch] if rng.random() < 0.5 else batch

    def sequence(self, number: int) -> list[Moment]:
        """Return moments of sequence ``number``, a function of (seed, number) alone."""
        rng = np.random.default_rng((self.seed, number))
        frames = self._ride(rng, int(rng.integers(*LENGTH)))
        soiled = soil(frames, rng)
        received = self._in_rain(soiled.received, rng)
        left = np.full((len(frames), 1, 1, 1), LEFT_OVER * rng.random(), np.float32)
        left[: len(frames) if rng.random() < NEVER_FOUND else rng.integers(len(frames))] = 1
        restored = soiled.clean + left * (soiled.received.astype(np.float32) - soiled.clean)
        restored = restored.clip(0, 255).astype(np.uint8)
        wanted = rng.integers(rng.random() < 0.8, len(frames), MOMENTS)  # frame 0 is a still
        memory: Memory | None = None
        way: np.ndarray | None = None
        previous: Previous | None = None
        moments = []
        for time, frame in enumerate(received):
            expected = None if time == 0 else restored[time - 1]
            if expected is not None and way is not None:
                expected = move(expected, way)
            planes, memory = observe(frame, expected, memory)
            if time in wanted:
                moments.append(Moment(planes, *_truth(soiled, time)))
            flow = align(frame, previous, DERAIN.name).flow
            way = None
            if flow is not None:
                known = 1 - cv2.resize(soiled.cover[time], flow.displacement.shape[1::-1])
                way = cv2.resize(filled(flow.displacement, known * flow.trust[..., 1]), SIZE[::-1])
            previous = Previous(restored[time], 1.0, None)
        return moments

    def _ride(self, rng: np.random.Generator, length: int) -> np.ndarray:
        """Return consecutive frames, uint8 ``length`` x SIZE x 3."""
        if rng.random() < self.footage_share:
            frames = self._footage(rng, length)
        else:
            frames = _over(self.stills[int(rng.integers(len(self.stills.sources)))], rng, length)
        if rng.random() < STANDING:
            stop = int(rng.integers(length))
            frames[stop:] = frames[stop]
        if rng.random() < EXPOSED:
            level = np.linspace(0, 1, 256) ** rng.uniform(0.6, 2.2) * rng.uniform(0.3, 1.2)
            table = (255 * level.clip(0, 1)).astype(np.uint8)
            frames = table[frames]
        return frames

    def _footage(self, rng: np.random.Generator, length: int) -> np.ndarray:
        video = self.videos[int(rng.integers(len(self.videos)))]
        every = int(rng.integers(1, 1 + max(1, min(3, (len(video) - 1) // length))))
        first = int(rng.integers(max(1, len(video) - every * length)))
        frames = video[first : first + every * length : every]
        frames = np.concatenate([frames, frames[::-1]])[:length]  # a short one also runs back
        height, width = frames.shape[1:3]
        across = min(int(height * SIZE[1] / SIZE[0]), int(width * rng.uniform(0.6, 1)))
        down = int(across * SIZE[0] / SIZE[1])
        top, left = rng.integers((height - down + 1, width - across + 1))
        part = frames[:, top : top + down, left : left + across]
        return np.stack([
            cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA) for frame in part
        ])

    def _in_rain(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return frames with sensor noise, in half of the cases with streaks."""
        strength = rng.uniform(30, 300) * (rng.random() < IN_RAIN)
        noise = rng.uniform(0, 3)
        result: np.ndarray = frames.astype(np.float32)
        for frame in result:
            if strength:
                number = int(rng.integers(FALLS))
                if number not in self.falls:
                    self.falls[number] = draw_fall(SIZE, 2, number)
                fall = self.falls[number][:, :: int(rng.choice([-1, 1]))]
                frame += np.float32(strength) * fall[..., None]
            frame += np.float32(noise) * rng.standard_normal(frame.shape, np.float32)
        return result.clip(0, 255).astype(np.uint8)


def read_videos(roots: Sequence[Path]) -> list[np.ndarray]:
    """Return the shrunk footage below ``roots``, uint8 T x H x W x 3, RGB. Raises ``DataError``."""
    return [_read(footage) for root in roots for footage in list_footage(root)]


def _read(footage: Footage) -> np.ndarray:
    frames: list[np.ndarray] = []
    for first in range(0, footage.length - BLOCK + 1, BLOCK):
        try:
            block = footage.read(first, BLOCK)
        except DataError:  # frames after a bad one are not consecutive
            break
        height, width = block.shape[1:3]
        # Only a part of a much wider picture is used, so such a picture is kept larger.
        scale = KEPT_WIDTH / min(width, 2 * height)
        frames += [
            cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            for frame in block
        ]
    return np.stack(frames)


def _over(photograph: np.ndarray, rng: np.random.Generator, length: int) -> np.ndarray:
    """Return the views of a camera that moves over ``photograph``, in most cases ahead."""
    height, width = photograph.shape[:2]
    base = min(width / SIZE[1], height / SIZE[0]) * rng.uniform(0.55, 0.98)
    focus = rng.uniform((0.3, 0.35), (0.7, 0.6)) * SIZE[::-1]
    zoom = rng.choice([-1, 1], p=[0.2, 0.8]) * rng.uniform(0, 0.05) * (rng.random() < 0.7)
    pace = rng.normal(size=2) * rng.exponential(2.0) * (1, 0.3)
    shake = rng.normal(size=(length, 2)) * rng.exponential(0.3)
    middle = np.array([width, height]) / 2 + rng.normal(size=2) * 0.02 * width
    frames = []
    for time in range(length):
        step = time - length / 2
        scale = base * math.exp(-zoom * step)
        matrix = np.diag([scale, scale, 0])[:2]
        matrix[:, 2] = middle - scale * focus + base * (pace * step + shake[time])
        part = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
        frames.append(cv2.warpAffine(
            photograph, matrix, SIZE[::-1], flags=part | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        ))
    return np.stack(frames)


def _truth(soiled: Soiled, time: int) -> list[np.ndarray]:
    """Return the last three fields of ``Moment``."""
    clean = soiled.clean[time].astype(np.float32) / 255
    around = cv2.GaussianBlur(clean, (0, 0), 6)
    kept = cv2.absdiff(soiled.received[time].astype(np.float32) / 255, clean).mean(-1)
    made = cv2.absdiff(around, clean).mean(-1)
    cells = SIZE[1] // CELL, SIZE[0] // CELL
    return [
        cv2.resize(plane, cells, interpolation=cv2.INTER_AREA)
        for plane in (soiled.cover[time], kept, made)
    ]
