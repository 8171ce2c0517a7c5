"""Batches by number: what a step sees depends on the seed and its number, on nothing else."""

import sys
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from iov_restore_ros.pictures.cache import FORK
from iov_restore_ros.pictures.clips import Clips, footage_stretches, pair_stretches
from iov_restore_ros.pictures.datasets import PairCrops, find_pairs
from iov_restore_ros.pictures.degradations import DEGRADATIONS, MARGINS, draw_strength
from iov_restore_ros.pictures.degradations.draw import normal, per_sample, uniform
from iov_restore_ros.pictures.degradations.layers import StreakLayers
from iov_restore_ros.pictures.files import SharpCrops, Stills
from iov_restore_ros.pictures.footage import FRAMES, FootageCrops
from iov_restore_ros.pictures.sequences import Sequences, Sources
from iov_restore_ros.training.config import FOOTAGE, SHARP, DataConfig, TrainConfig
from iov_restore_ros.training.unroll import MARGIN, Unroll

ENDLESS = sys.maxsize  # crops; a run ends by its plan


class Batches:
    """
    The training input of a run, batch by batch.

    A batch is ``config.batch`` crops, or sequences of them. Batch i is the same whoever asks for it
    and whenever, so that a run that goes on, or one that is spread over more processes, sees what
    it would have.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        data = config.data
        self.crops: Dataset
        if data.frames > 1:
            sources = find_sources(data)
            self.crops, self.pictures = Sequences(
                config.task, sources, data.frames, data.crop + 2 * MARGIN, ENDLESS, config.seed,
                data.clean, data.light, data.shaken,
            ), count_pictures(sources)
        elif data.layout == SHARP:
            size = data.crop + 2 * MARGINS[config.task]
            sharp = SharpCrops(
                data.root, size, ENDLESS, config.seed, data.cache_gb, data.detailed
            )
            self.crops, self.pictures = sharp, len(sharp.stills)
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

        ``strength`` (0..1) scales what is degraded here.
        """
        # The generator's dropout draws from PyTorch's own, everything here from this one.
        seed = self._seed(number)
        torch.manual_seed(seed)
        rng = torch.Generator(self.device).manual_seed(seed)
        if isinstance(batch, Tensor):
            data = self.config.data
            drawn = strength * draw_strength(len(batch), data.clean, data.light, rng)
            return DEGRADATIONS[self.config.task](self._to_device(batch), drawn, rng)
        degraded, target = (self._to_device(images) for images in batch)
        sigma = per_sample(self.config.data.noise * uniform(len(degraded), rng))
        return degraded + sigma * normal(tuple(degraded.shape), rng), target

    def unroll(self, batch: list[Tensor], number: int) -> Unroll:
        """Return the sequences of batch ``number``, to be restored frame by frame."""
        return Unroll(tuple(batch), self.config.task, self.device, self._seed(number))

    def _seed(self, number: int) -> int:
        return self.config.seed * 1_000_003 + number

    def _to_device(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True).float() / 255


def find_sources(data: DataConfig) -> Sources:
    """Return what sequences are made from. Raises ``DataError`` for a folder without any."""
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
    """Return how many pictures there are, by which an epoch is measured."""
    clips = [clips for clips in (sources.footage, sources.pairs) if clips]
    stills = len(sources.stills) if sources.stills else 0
    return stills + FRAMES * sum(len(c.pictures.sources) for c in clips)
