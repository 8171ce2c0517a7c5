"""Batches by number: what a step sees depends on the seed and its number, on nothing else."""

import sys
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from iov_restore_ros.pictures.datasets import PairCrops, find_pairs
from iov_restore_ros.pictures.degradations import DEGRADATIONS, MARGINS, draw_strength
from iov_restore_ros.pictures.degradations.draw import normal, per_sample, uniform
from iov_restore_ros.pictures.files import SharpCrops
from iov_restore_ros.pictures.footage import FootageCrops
from iov_restore_ros.training.config import FOOTAGE, SHARP, TrainConfig

ENDLESS = sys.maxsize  # crops; a run ends by its plan


class Batches:
    """
    The training input of a run, batch by batch.

    A batch is ``config.batch`` crops. Batch i is the same whoever asks for it and whenever, so
    that a run that goes on, or one that is spread over more processes, sees what it would have.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        data = config.data
        self.crops: Dataset
        if data.layout == SHARP:
            size = data.crop + 2 * MARGINS[config.task]
            sharp = SharpCrops(
                data.root, size, ENDLESS, config.seed, data.cache_gb, data.detailed
            )
            self.crops, self.pictures = sharp, len(sharp.pictures.sources)
        elif data.layout == FOOTAGE:
            footage = FootageCrops(data.root, data.crop, ENDLESS, config.seed)
            self.crops, self.pictures = footage, sum(f.length for f in footage.footage)
        else:
            pairs = find_pairs(data.root, data.layout, 'train')
            self.crops, self.pictures = PairCrops(
                pairs, data.crop, ENDLESS, config.seed, data.cache_gb
            ), len(pairs)

    def read(self, numbers: Iterable[int]) -> DataLoader:
        """Return the batches of ``numbers``, in that order, as the disk has them."""
        size = self.config.batch
        places = (list(range(number * size, (number + 1) * size)) for number in numbers)
        return DataLoader(
            self.crops, batch_sampler=places, num_workers=self.config.data.workers,
            pin_memory=self.device.type == 'cuda',
        )

    def degrade(
        self, batch: Tensor | list[Tensor], number: int, ramp: float
    ) -> tuple[Tensor, Tensor]:
        """
        Return (degraded, target) of batch ``number``: float32 N x 3 x H x W, RGB, 0..1.

        ``ramp`` (0..1) scales what is degraded here.
        """
        # The generator's dropout draws from PyTorch's own, everything here from this one.
        seed = self.config.seed * 1_000_003 + number
        torch.manual_seed(seed)
        rng = torch.Generator(self.device).manual_seed(seed)
        if isinstance(batch, Tensor):
            data = self.config.data
            strength = ramp * draw_strength(len(batch), data.clean, data.light, rng)
            return DEGRADATIONS[self.config.task](self._to_device(batch), strength, rng)
        degraded, target = (self._to_device(images) for images in batch)
        sigma = per_sample(self.config.data.noise * uniform(len(degraded), rng))
        return degraded + sigma * normal(tuple(degraded.shape), rng), target

    def _to_device(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True).float() / 255
