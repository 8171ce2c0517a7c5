"""
Train the network that finds the veil of fog and far rain, on whole pictures.

    python -m iov_restore_ros train_veil config/train/veil.yaml data.root=SHARP data.depth=DEPTH

It uses no generator, no crops, no sequences and no discriminator, and takes about ten minutes on
one core. Any setting of the file can be given after it as name=value. The command writes
veil.safetensors into `output` at intervals, and when it is stopped.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from iov_restore_ros.model.veil import Seen
from iov_restore_ros.pictures.thumbnail import THINNEST
from iov_restore_ros.pictures.veils import Veils, find_veil_sources
from iov_restore_ros.training.finder import FinderConfig, fit, main_of


@dataclass
class VeilDataConfig:
    """The folders of the pictures."""

    root: Path = MISSING  # sharp pictures and videos
    depth: Path | None = None  # a folder with picture/ and depth/
    depth_share: float = 0.2  # of the pictures
    streaks: Path | None = None  # layers of rain streaks
    description: str = ''  # for the weight file: the data sets and their terms
    cache_gb: float = 2.0
    workers: int = 0  # processes that make pictures


@dataclass
class VeilConfig(FinderConfig):
    """All settings of a run."""

    data: VeilDataConfig = field(default_factory=VeilDataConfig)


def veil_loss(seen: Seen, picture: Sequence[Tensor]) -> Tensor:
    """
    Return the loss of ``seen``: errors of the unveiled scene, of the veil, and of its certainty.

    ``picture`` holds the tensors of a batch of ``VeiledPicture``.
    """
    _, mean, through, light, veiled = picture

    def scene(through: Tensor, light: Tensor) -> Tensor:
        rest, level = through.clamp(min=THINNEST)[:, None], light[..., None, None]
        return ((mean - level) / rest + level).clamp(0, 1)

    wrong = functional.l1_loss(scene(seen.through, seen.light), scene(through, light))
    off = (seen.light - light).abs() * veiled[:, None]
    return (
        wrong + 0.5 * functional.l1_loss(seen.through, through) + 0.1 * off.mean()
        + 0.05 * functional.binary_cross_entropy_with_logits(seen.sure, veiled)
    )


def run(config: VeilConfig, command: str = '') -> Path:
    """Train; return the weight file."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    data = config.data
    sources = find_veil_sources(
        data.root, data.depth, data.streaks, data.cache_gb, data.depth_share
    )
    reader = DataLoader(
        Veils(sources, config.steps * config.batch, config.seed), config.batch,
        num_workers=data.workers,
    )
    return fit('veil', config, reader, _loss_of, data.description, command)


def _loss_of(veil: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    return veil_loss(veil(batch[0]), batch)


def main() -> int:
    """Run the command line; returns the exit status."""
    return main_of('train_veil', __doc__, VeilConfig, run)


if __name__ == '__main__':
    sys.exit(main())
