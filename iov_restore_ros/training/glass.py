"""
Train the network that finds drops and dirt on the glass, on whole frames of sequences.

    python -m iov_restore_ros train_glass config/train/glass.yaml data.root=SHARP data.footage=[DIR]

Any setting of the file can be given after it as name=value. The command writes glass.safetensors
into `output` at intervals, and when it is stopped.
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

SURE = 1.4  # factor on the cover of a cell for the wanted output
VISIBLE = 0.004  # error of a cell (0..1) below which its cover is invisible
BETTER = 0.8  # error of a filling relative to a smooth one, as some of it was seen before
DETECTION, RESTORATION = 0.3, 12.0  # weights of the terms of the loss


@dataclass
class GlassDataConfig:
    """The folders of the pictures."""

    root: Path = MISSING  # sharp pictures and videos
    footage: list[Path] = field(default_factory=list)  # folders of videos of moving cameras
    footage_share: float = 0.45  # of the sequences
    description: str = ''  # for the weight file: the data sets and their terms
    cache_gb: float = 2.0


@dataclass
class GlassConfig(FinderConfig):
    """All settings of a run."""

    data: GlassDataConfig = field(default_factory=GlassDataConfig)


def glass_loss(logit: Tensor, cover: Tensor, kept: Tensor, made: Tensor) -> Tensor:
    """
    Return the loss of ``logit`` (N x rows x columns) against the true cover, see ``Moment``.

    It adds the error of the detection and the error of the restored frame. So filling a clean cell
    counts like leaving a covered one, each by its error in the frame.
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
