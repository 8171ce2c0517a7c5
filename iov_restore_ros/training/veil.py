"""
Train what finds the veil of fog and of far rain, on whole pictures.

    python -m iov_restore_ros train_veil config/train/veil.yaml data.root=SHARP data.depth=DEPTH

A command of its own: no generator, no crops, no sequences and no discriminator are in it, and it
takes some ten minutes on one core. Any setting of the file can be given behind it as
name=value. Writes veil.safetensors into `output`, now and then and when it is stopped.
"""

import math
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from iov_restore_ros.model.veil import Seen, Veil
from iov_restore_ros.model.weights import VeilInfo, load_veil, save_veil
from iov_restore_ros.pictures.thumbnail import THINNEST
from iov_restore_ros.pictures.veils import VeiledPicture, Veils, find_veil_sources
from iov_restore_ros.stop import Stop
from iov_restore_ros.training.train import git_commit

LOG_EVERY = 250  # steps
LEAST_RATE = 0.01  # of the first one, at the end
MOST_GRADIENT = 1.0  # norm


@dataclass
class VeilDataConfig:
    """Where the pictures are."""

    root: Path = MISSING  # sharp ones, and videos
    depth: Path | None = None  # picture/ and depth/ below it
    depth_share: float = 0.2  # of the pictures
    streaks: Path | None = None  # layers of rain
    description: str = ''  # goes into the weight file: which sets, under which terms
    cache_gb: float = 2.0
    workers: int = 0  # processes that make pictures


@dataclass
class VeilConfig:
    """Everything that a run can be told."""

    output: Path = MISSING
    data: VeilDataConfig = field(default_factory=VeilDataConfig)
    steps: int = 4000
    batch: int = 12
    rate: float = 8e-4  # at first; it falls as a cosine
    ema: float = 0.995
    threads: int = 1
    seed: int = 1
    start_from: Path | None = None  # a veil.safetensors


def read_config(arguments: list[str]) -> VeilConfig:
    """Merge YAML files and name=value settings. Raises ``ValueError`` saying what is wrong."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(
            OmegaConf.structured(VeilConfig),
            *(OmegaConf.load(a) for a in arguments if '=' not in a),
            OmegaConf.from_dotlist([a for a in arguments if '=' in a]),
        ))
    except (OmegaConfBaseException, OSError) as error:
        raise ValueError(str(error)) from error
    assert isinstance(config, VeilConfig)
    return config


def veil_loss(seen: Seen, picture: VeiledPicture) -> Tensor:
    """Return how wrong ``seen`` is: the scene behind the veil, the veil, and whether it is sure."""
    _, mean, through, light, veiled = map(torch.as_tensor, picture)

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
    info = VeilInfo(trained_on=data.description, command=command, commit=git_commit())
    sources = find_veil_sources(
        data.root, data.depth, data.streaks, data.cache_gb, data.depth_share
    )
    reader = DataLoader(
        Veils(sources, config.steps * config.batch, config.seed), config.batch,
        num_workers=data.workers,
    )
    veil = load_veil(config.start_from).train() if config.start_from else Veil()
    veil.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(veil, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
    optimiser = torch.optim.AdamW(veil.parameters(), weight_decay=1e-3)
    path = config.output / 'veil.safetensors'
    stop, console, losses = Stop(), Console(stderr=True), []
    for step, batch in enumerate(track(reader, 'veil', console=console)):
        share = 0.5 * (1 + math.cos(math.pi * step / config.steps))
        optimiser.param_groups[0]['lr'] = config.rate * max(LEAST_RATE, share)
        loss = veil_loss(veil(batch[0]), batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(veil.parameters(), MOST_GRADIENT)
        optimiser.step()
        average.update_parameters(veil)
        losses.append(loss.item())
        last = stop.asked or step + 1 == config.steps
        if last or (step + 1) % LOG_EVERY == 0:
            console.print(f'step {step + 1}: loss {sum(losses) / len(losses):.4f}')
            losses.clear()
            averaged = average.module
            assert isinstance(averaged, Veil)
            save_veil(path, averaged, info)
        if last:
            break
    return path


def main() -> int:
    """Run the command line; returns the exit status."""
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        print(__doc__.strip())
        return 0 if len(sys.argv) > 1 else 2
    try:
        print(run(read_config(sys.argv[1:]), shlex.join(['train_veil', *sys.argv[1:]])))
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
