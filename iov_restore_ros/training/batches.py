"""Batches by number: the content of a batch depends only on the seed and its number."""

import itertools
import sys
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from iov_restore_ros.pictures.cache import FORK
from iov_restore_ros.pictures.clips import Clips, footage_stretches, pair_stretches
from iov_restore_ros.pictures.datasets import PairCrops, find_pairs
from iov_restore_ros.pictures.degradations import DEGRADATIONS, draw_strength
from iov_restore_ros.pictures.degradations.draw import normal, per_sample, uniform
from iov_restore_ros.pictures.degradations.layers import StreakLayers
from iov_restore_ros.pictures.files import SharpCrops, Stills, to_tensor
from iov_restore_ros.pictures.footage import STRETCH, FootageCrops
from iov_restore_ros.pictures.sequences import Sequences, Sources
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.training.config import FOOTAGE, SHARP, DataConfig, TrainConfig
from iov_restore_ros.training.learned_blur import load_blur
from iov_restore_ros.training.unroll import FLOW_MARGIN, Unroll

ENDLESS = sys.maxsize  # crops; the plan ends a run
SHRUNK = 1.5  # factor of the smaller copies of large pictures; shrinking sharpens them


class Batches:
    """
    The training input of a run, batch by batch.

    A batch is ``config.batch`` crops, or sequences of crops. Batch i is the same for every process
    and at any time. So a run sees the same batches after a restart or over more processes.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        data = config.data
        self.crops: Dataset
        self.on_device: DeviceCrops | None = None
        self.blur = load_blur(data.learned_blur).to(device) if data.learned_blur else None
        if data.frames > 1:
            sources = find_sources(data)
            self.crops, self.pictures = Sequences(
                config.task, sources, data.frames, data.crop + 2 * FLOW_MARGIN, ENDLESS,
                config.seed, data.clean, data.light, data.shaken,
            ), count_pictures(sources)
        elif data.layout == SHARP:
            size = data.crop + 2 * TASKS[config.task].margin
            sharp = SharpCrops(
                data.root, size, ENDLESS, config.seed, data.cache_gb, data.detailed
            )
            self.crops, self.pictures = sharp, len(sharp.stills)
            if data.on_device:
                self.on_device = DeviceCrops(sharp.stills, size, config.seed, device)
        elif data.layout == FOOTAGE:
            footage = FootageCrops(data.root, data.crop, ENDLESS, config.seed)
            self.crops, self.pictures = footage, sum(f.length for f in footage.footage)
        else:
            pairs = find_pairs(data.root, data.layout, 'train')
            self.crops, self.pictures = PairCrops(
                pairs, data.crop, ENDLESS, config.seed, data.cache_gb
            ), len(pairs)

    def read(self, numbers: Iterable[int]) -> Iterable[Any]:
        """Return the batches of ``numbers``, in that order, as read from disk."""
        size = self.config.batch
        if self.on_device:
            return map(self.on_device.batch, numbers, itertools.repeat(size))
        places = (list(range(number * size, (number + 1) * size)) for number in numbers)
        workers = self.config.data.workers
        return DataLoader(
            self.crops, batch_sampler=places, num_workers=workers,
            multiprocessing_context=FORK if workers else None,
            pin_memory=self.device.type == 'cuda',
        )

    def degrade(
        self, batch: Tensor | list[Tensor], number: int, strength: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """
        Return (degraded, target) of batch ``number``: float32 N x 3 x H x W, RGB, 0..1.

        ``strength`` (0..1) scales the degradation of sharp crops; pairs only get noise.
        """
        # The generator's dropout draws from PyTorch's default generator. All else draws from rng.
        seed = self._seed(number)
        torch.manual_seed(seed)
        rng = torch.Generator(self.device).manual_seed(seed)
        if isinstance(batch, Tensor):
            data = self.config.data
            drawn = strength * draw_strength(len(batch), data.clean, data.light, rng)
            images = self._to_device(batch)
            task = TASKS[self.config.task]
            degraded, target = DEGRADATIONS[task.degradation].pictures(images, drawn, rng)
            if self.blur:
                chosen = (uniform(len(batch), rng) < data.learned_share) & (drawn > 0)
                margin = task.margin
                blurred = self._blurred(images, len(images), rng)
                blurred = blurred[..., margin:-margin, margin:-margin]
                degraded = torch.where(per_sample(chosen), blurred, degraded)
            return degraded, target
        degraded, target = (self._to_device(images) for images in batch)
        sigma = per_sample(self.config.data.noise * uniform(len(degraded), rng))
        return degraded + sigma * normal(tuple(degraded.shape), rng), target

    def unroll(self, batch: list[Tensor], number: int) -> Unroll:
        """Return the sequences of batch ``number``, ready to be restored frame by frame."""
        if self.blur:
            batch = self._blur_sequences(batch, self._seed(number))
        seed, burn_in = self._seed(number), self.config.data.burn_in
        return Unroll(tuple(batch), self.config.task, self.device, seed, burn_in)

    @torch.no_grad()
    def _blurred(self, images: Tensor, noises: int, rng: torch.Generator) -> Tensor:
        """Return ``images``, float32 N x 3 x H x W, 0..1, with N learned blurs or one for all."""
        assert self.blur
        noise = normal((noises, 1, *images.shape[2:]), rng).expand(len(images), -1, -1, -1)
        return self.blur(images, noise).clamp(0, 1)

    def _blur_sequences(self, batch: list[Tensor], seed: int) -> list[Tensor]:
        """
        Apply the learned blur to a share of the sequences, except to clean ones.

        The exposure of these sequences is unknown, and they have no gyroscope.
        """
        degraded, sharp, shutter, rates, cameras = (part.clone() for part in batch)
        rng = torch.Generator(self.device).manual_seed(seed)
        draws = uniform(len(sharp), rng).tolist()
        for index, draw in enumerate(draws):
            if draw >= self.config.data.learned_share or degraded[index].equal(sharp[index]):
                continue
            frames = self._blurred(self._to_device(sharp[index]), 1, rng)
            degraded[index] = frames.mul(255).round().byte().to(degraded.device)
            shutter[index] = torch.nan
            rates[index] = cameras[index] = 0
        return [degraded, sharp, shutter, rates, cameras]

    def _seed(self, number: int) -> int:
        return self.config.seed * 1_000_003 + number

    def _to_device(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True).float() / 255


class DeviceCrops:
    """
    Crops of sharp pictures that all lie on the device; one CPU core cannot cut enough for a GPU.

    Batch i is a function of (seed, i) alone. It differs from that of ``SharpCrops``: large pictures
    are kept twice, in full size and shrunk, and only one place is tried for each crop.
    """

    def __init__(self, stills: Stills, size: int, seed: int, device: torch.device) -> None:
        self.size, self.seed = size, seed
        self.pictures: list[Tensor] = []  # uint8 3 x H x W
        shares = []
        for number, share in enumerate(stills.probabilities):
            picture = stills.pictures[number]
            height, width = picture.shape[:2]
            scale = max(1.0, size / min(height, width))
            if min(height, width) / size > SHRUNK:
                scale = 1 / SHRUNK
                self.pictures.append(to_tensor(picture).to(device))
                shares += [share / 2]
                share = share / 2
            sides = max(size, round(width * scale)), max(size, round(height * scale))
            if sides != (width, height):
                picture = cv2.resize(picture, sides, interpolation=cv2.INTER_AREA)
            self.pictures.append(to_tensor(picture).to(device))
            shares.append(share)
        self.shares = np.array(shares) / sum(shares)

    def batch(self, number: int, count: int) -> Tensor:
        """Return ``count`` crops, uint8 N x 3 x size x size, RGB, on the device."""
        rng = np.random.default_rng((self.seed, number))
        chosen = rng.choice(len(self.pictures), count, p=self.shares)
        places = rng.random((count, 2))
        crops = []
        for index, place in zip(chosen, places, strict=True):
            picture = self.pictures[index]
            room = np.array(picture.shape[1:]) - self.size + 1
            top, left = (place * room).astype(int).tolist()
            crops.append(picture[:, top : top + self.size, left : left + self.size])
        batch = torch.stack(crops)
        flipped = torch.from_numpy(rng.random(count) < 0.5).to(batch.device)
        return torch.where(flipped.view(-1, 1, 1, 1), batch.flip(-1), batch)


def find_sources(data: DataConfig) -> Sources:
    """Return the sources of sequences. Raises ``DataError`` for a folder without any."""
    moving = data.layout == FOOTAGE
    footage = [data.root, *data.footage] if moving else data.footage
    return Sources(
        stills=None if moving else Stills(data.root, data.cache_gb, data.detailed),
        footage=Clips(footage_stretches(footage), data.cache_gb) if footage else None,
        footage_share=data.footage_share,
        pairs=Clips(pair_stretches(data.pairs), data.cache_gb) if data.pairs else None,
        pairs_share=data.pairs_share,
        pairs_shutter=data.pairs_shutter,
        layers=StreakLayers(data.streaks, data.cache_gb) if data.streaks else None,
    )


def count_pictures(sources: Sources) -> int:
    """Return the number of pictures, which is the length of an epoch."""
    clips = [clips for clips in (sources.footage, sources.pairs) if clips]
    stills = len(sources.stills) if sources.stills else 0
    return stills + STRETCH * sum(len(c.pictures.sources) for c in clips)
