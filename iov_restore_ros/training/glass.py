"""
Train what finds drops and dirt on the glass, on whole frames of sequences.

    python -m iov_restore_ros train_glass config/train/glass.yaml data.root=SHARP data.footage=[DIR]

Any setting of the file can be given behind it as name=value. Writes glass.safetensors into
`output`, now and then and when it is stopped.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING
from torch import Tensor, nn
from torch.nn import functional

from iov_restore_ros.pictures.files import Pictures, list_stills
from iov_restore_ros.pictures.veils import read_small
from iov_restore_ros.training.finder import FinderConfig, fit, main_of
from iov_restore_ros.training.soiled_sequences import SoiledSequences, read_videos

SURE = 1.4  # times its cover a cell is to be called covered
VISIBLE = 0.004  # error of a cell (0..1) below which nobody can see what covers it
BETTER = 0.8  # error of a filling, a share of that of a smooth one: some of it was seen before
DETECTION, RESTORATION = 0.3, 12.0  # weights of the parts of the loss


@dataclass
class GlassDataConfig:
    """Where the pictures are."""

    root: Path = MISSING  # sharp ones, and videos
    footage: list[Path] = field(default_factory=list)  # folders of videos of moving cameras
    footage_share: float = 0.45  # of the sequences
    description: str = ''  # goes into the weight file: which sets, under which terms
    cache_gb: float = 2.0


@dataclass
class GlassConfig(FinderConfig):
    """Everything that a run can be told."""

    data: GlassDataConfig = field(default_factory=GlassDataConfig)


def glass_loss(logit: Tensor, cover: Tensor, kept: Tensor, made: Tensor) -> Tensor:
    """
    Return how wrong ``logit`` (N x rows x columns) is about what is covered, see ``Moment``.

    That is what is found, and what is restored then: to fill what isn't covered costs as much as to
    leave what is.
    """
    target = (SURE * cover).clamp(0, 1) * (kept > VISIBLE)
    found = functional.binary_cross_entropy_with_logits(logit, target)
    share = torch.sigmoid(logit)
    filled = BETTER * made
    wrong = (1 - share) * kept + share * filled - torch.minimum(kept, filled)
    return DETECTION * found + RESTORATION * wrong.mean()


def run(config: GlassConfig, command: str = '') -> Path:
    """Train; return the weight file."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    data = config.data
    sequences = SoiledSequences(
        Pictures(list_stills(data.root), read_small, data.cache_gb),
        read_videos(data.footage), data.footage_share, config.batch, config.seed,
    )
    return fit('glass', config, sequences, _loss_of, data.description, command)


def _loss_of(glass: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    planes, *truth = batch
    return glass_loss(glass(planes), *truth)


def main() -> int:
    """Run the command line; returns the exit status."""
    return main_of('train_glass', __doc__, GlassConfig, run)


if __name__ == '__main__':
    sys.exit(main())
