"""
The training loop of the finders: small networks that find veils, or drops, in whole frames.

It uses no generator, no crops and no discriminator.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from iov_restore_ros.model import FINDERS, FinderInfo, load_finder, save_finder
from iov_restore_ros.stop import Stop
from iov_restore_ros.training.origin import command_text, git_commit, machine_name, settings_text

LOG_EVERY = 250  # steps
LEAST_RATE = 0.01  # final learning rate, as a share of the first
MOST_GRADIENT = 1.0  # norm


@dataclass
class FinderConfig:
    """The settings that all finders share."""

    output: Path = MISSING
    steps: int = 4000
    batch: int = 12
    rate: float = 8e-4  # initial learning rate; it falls as a cosine
    ema: float = 0.995
    threads: int = 1
    seed: int = 1
    start_from: Path | None = None  # a weight file of the same network


Config = TypeVar('Config', bound=FinderConfig)


def read_config(kind: type[Config], arguments: list[str]) -> Config:
    """Merge YAML files and name=value settings. Raises ``ValueError`` with the reason."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(
            OmegaConf.structured(kind),
            *(OmegaConf.load(a) for a in arguments if '=' not in a),
            OmegaConf.from_dotlist([a for a in arguments if '=' in a]),
        ))
    except (OmegaConfBaseException, OSError) as error:
        raise ValueError(str(error)) from error
    assert isinstance(config, kind)
    return config


def main_of(name: str, usage: str, kind: type[Config], run: Callable[[Config, str], Path]) -> int:
    """Run the command ``name``, whose settings are a ``kind``; returns the exit status."""
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        print(usage.strip())
        return 0 if len(sys.argv) > 1 else 2
    try:
        print(run(read_config(kind, sys.argv[1:]), command_text(name, sys.argv[1:])))
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def fit(
    name: str, config: FinderConfig, batches: Iterable[list[Tensor]],
    loss_of: Callable[[nn.Module, list[Tensor]], Tensor], trained_on: str, command: str,
) -> Path:
    """
    Train the network ``name`` of ``FINDERS`` on ``config.steps`` batches; return the weight file.

    It is written into ``config.output`` at intervals, and when the run stops.
    """
    info = FinderInfo(
        name, trained_on, command, git_commit(), settings_text(config),
        machine=f'{machine_name(torch.device("cpu"))}, float32',
    )
    started = time.monotonic()
    network = load_finder(name, config.start_from) if config.start_from else FINDERS[name]()
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    path = config.output / f'{name}.safetensors'
    stop, console, losses = Stop(), Console(stderr=True), []
    for step, batch in enumerate(track(batches, name, config.steps, console=console)):
        share = 0.5 * (1 + math.cos(math.pi * step / config.steps))
        optimiser.param_groups[0]['lr'] = config.rate * max(LEAST_RATE, share)
        loss = loss_of(network, batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), MOST_GRADIENT)
        optimiser.step()
        average.update_parameters(network)
        losses.append(loss.item())
        last = stop.asked or step + 1 == config.steps
        if last or (step + 1) % LOG_EVERY == 0:
            console.print(f'step {step + 1}: loss {sum(losses) / len(losses):.4f}')
            losses.clear()
            averaged = average.module
            assert isinstance(averaged, nn.Module)
            save_finder(path, averaged, replace(
                info, steps=f'{step + 1} of {config.steps}',
                hours=f'{(time.monotonic() - started) / 3600:.2f}',
            ))
        if last:
            break
    return path
