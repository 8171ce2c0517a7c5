"""
Train a generator on sharp images that are degraded on the fly.

    python -m iov_restore_ros.training.train config/train/fast_deblur.yaml data.root=DIR

Any setting of the file can be given behind it as name=value. A run writes checkpoint.pt and
weights.safetensors into `output`; started again with the same output, it goes on where it was.
Ctrl-C saves and stops.
"""

import math
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset

from iov_restore_ros.model import (
    TASKS,
    Generator,
    WeightsError,
    WeightsInfo,
    load_weights,
    save_weights,
)
from iov_restore_ros.model.device import fastest_dtype, pick_device
from iov_restore_ros.training.data import SharpCrops, list_pairs, read_image
from iov_restore_ros.training.degradations import DEGRADATIONS, MARGIN, draw_strength
from iov_restore_ros.training.metrics import psnr

WARM_UP = 200  # steps
MAX_GRADIENT = 0.05  # norm; rare steep batches otherwise end a run at this learning rate


@dataclass
class DataConfig:
    """Where the images are."""

    root: Path = MISSING  # a folder of sharp images
    validation: Path | None = None  # a folder with input/ and gt/
    description: str = ''  # goes into the weight file: which sets, under which terms
    crop: int = 128  # pixels
    detailed: bool = False  # prefer crops with detail
    cache_gb: float = 4.0
    workers: int = 0


@dataclass
class TrainConfig:
    """Everything that a run can be told."""

    task: str = MISSING
    output: Path = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    preset: str = 'fast'
    device: str = 'auto'
    threads: int = 0  # CPU threads, 0 leaves it to PyTorch
    steps: int = 20000
    batch: int = 8
    learning_rate: float = 8e-4
    ema: float = 0.999
    ramp: float = 0.0  # share of the steps in which the degradations grow to full strength
    save_every: int = 1000
    seed: int = 1
    start_from: Path | None = None  # weights of whichever task (transfer, Sec. 2.4)


class Trainer:
    """One run: the generator, its running average, the optimiser, and the step it is at."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.device = pick_device(config.device)
        torch.manual_seed(config.seed)
        self.generator = Generator(config.preset)
        self.generator.initialise()
        if config.start_from:
            loaded, _ = load_weights(config.start_from, preset=config.preset)
            self.generator.load_state_dict(loaded.state_dict())
        self.dtype = fastest_dtype(self.generator, self.device)
        self.average = AveragedModel(
            self.generator, multi_avg_fn=get_ema_multi_avg_fn(config.ema)
        )
        self.optimiser = torch.optim.AdamW(
            self.generator.parameters(), config.learning_rate, fused=True, weight_decay=1e-4
        )
        self.step = 0
        self.checkpoint = config.output / 'checkpoint.pt'
        if self.checkpoint.exists():
            self._load()

    def crops(self) -> DataLoader:
        """Return the batches from the present step to the last."""
        config = self.config
        margin = MARGIN if config.task == 'deblur' else 0
        every = SharpCrops(
            config.data.root, config.data.crop + 2 * margin, config.steps * config.batch,
            config.seed, config.data.cache_gb, config.data.detailed,
        )
        rest = Subset(every, range(self.step * config.batch, len(every)))
        return DataLoader(rest, config.batch, num_workers=config.data.workers)

    def train_on(self, crops: Tensor) -> float:
        """Take one step on uint8 N x 3 x H x W sharp crops; return the loss."""
        # Everything random in a step follows from its number, so that a resumed run is the same.
        seed = self.config.seed * 1_000_003 + self.step
        torch.manual_seed(seed)
        sharp = crops.to(self.device, torch.float32) / 255
        rng = torch.Generator().manual_seed(seed)
        strength = self.ramp() * draw_strength(len(sharp), rng)
        degraded, target = DEGRADATIONS[self.config.task](sharp, strength, rng)
        for group in self.optimiser.param_groups:
            group['lr'] = self.config.learning_rate * schedule(self.step, self.config.steps)
        mixed = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=mixed):
            restored = self.generator(degraded.to(memory_format=torch.channels_last))
        loss = charbonnier(restored, target)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.generator.parameters(), MAX_GRADIENT)
        self.optimiser.step()
        self.average.update_parameters(self.generator)
        self.step += 1
        return loss.item()

    def ramp(self) -> float:
        """Return how strong the degradations are by now (0.3..1); easy ones are learnt sooner."""
        done = self.step / (self.config.ramp * self.config.steps) if self.config.ramp else 1.0
        return min(1.0, 0.3 + 0.7 * done)

    def validate(self) -> float:
        """Return the mean RGB PSNR in dB of the averaged generator over the validation pairs."""
        assert self.config.data.validation is not None
        scores = []
        self.average.eval()
        for degraded, sharp in list_pairs(self.config.data.validation):
            image = torch.from_numpy(read_image(degraded)).to(self.device).permute(2, 0, 1)[None]
            with torch.inference_mode():
                restored = self.average(image.float() / 255)
            pixels = restored[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
            scores.append(psnr(pixels.cpu().numpy(), read_image(sharp)))
        self.average.train()
        return sum(scores) / len(scores)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            'step': self.step,
            'generator': self.generator.state_dict(),
            'average': self.average.state_dict(),
            'optimiser': self.optimiser.state_dict(),
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix('.part')
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def export(self, metrics: str) -> Path:
        """Write the averaged generator as a weight file; return its path."""
        path = self.config.output / 'weights.safetensors'
        averaged = self.average.module
        assert isinstance(averaged, Generator)
        save_weights(path, averaged, WeightsInfo(
            preset=self.config.preset, task=self.config.task,
            trained_on=self.config.data.description, metrics=metrics,
            command=shlex.join(['train', *sys.argv[1:]]), commit=git_commit(),
        ))
        return path

    def _load(self) -> None:
        state: dict[str, Any] = torch.load(
            self.checkpoint, map_location=self.device, weights_only=True
        )
        self.step = state['step']
        self.generator.load_state_dict(state['generator'])
        self.average.load_state_dict(state['average'])
        self.optimiser.load_state_dict(state['optimiser'])


def charbonnier(restored: Tensor, target: Tensor) -> Tensor:
    """Return mean(sqrt((restored - target)^2 + 1e-6)), a smooth L1 loss (Charbonnier 1994)."""
    return torch.sqrt((restored - target) ** 2 + 1e-6).mean()


def schedule(step: int, steps: int) -> float:
    """Return the factor (0..1) of the learning rate: a short rise, then a cosine to 0."""
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def git_commit() -> str:
    """Return the commit of the working folder, '-dirty' behind it if so, or '' outside of git."""
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*']
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ''
    return result.stdout.strip()


def read_config(arguments: list[str]) -> TrainConfig:
    """Merge a YAML file and name=value settings. Raises ``ValueError`` saying what is wrong."""
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(TrainConfig),
            *(OmegaConf.load(a) for a in arguments if '=' not in a),
            OmegaConf.from_dotlist([a for a in arguments if '=' in a]),
        )
        missing = OmegaConf.missing_keys(merged)
        if missing:
            raise ValueError(f'not set: {", ".join(sorted(missing))}; give them as name=value')
        config = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, OSError) as error:
        raise ValueError(str(error)) from error
    assert isinstance(config, TrainConfig)
    if config.task not in TASKS:
        raise ValueError(f'task={config.task}: choose one of {", ".join(TASKS)}')
    return config


def run(config: TrainConfig) -> Path:
    """Train until the last step or Ctrl-C; return the weight file written last."""
    if config.threads:
        torch.set_num_threads(config.threads)
    trainer = Trainer(config)
    columns = (
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )
    loss, metrics = 0.0, ''
    with Progress(*columns) as progress:
        progress.console.print(
            f'{config.preset} {config.task} on {trainer.device} in {trainer.dtype}, '
            f'step {trainer.step} of {config.steps}'
        )
        bar = progress.add_task(config.task, total=config.steps, completed=trainer.step)
        try:
            for crops in trainer.crops():
                now = trainer.train_on(crops)
                if not math.isfinite(now):
                    raise ValueError(
                        f'the loss is {now} at step {trainer.step}: lower learning_rate and start '
                        f'again, the last good state is {trainer.checkpoint}'
                    )
                loss += 0.01 * (now - loss) if loss else now
                progress.update(bar, completed=trainer.step, description=f'loss {loss:.4f}')
                if trainer.step % config.save_every == 0 or trainer.step == config.steps:
                    trainer.save()
                    if config.data.validation:
                        metrics = f'{config.data.validation.name} {trainer.validate():.2f} dB RGB'
                    progress.console.print(f'step {trainer.step} loss {loss:.4f} {metrics}')
                    trainer.export(metrics)
        except KeyboardInterrupt:
            trainer.save()
            progress.console.print(f'stopped and saved at step {trainer.step}')
    return trainer.export(metrics)


def main() -> int:
    """Run the command line; returns the exit status."""
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        print(__doc__.strip())
        return 0 if len(sys.argv) > 1 else 2
    try:
        print(run(read_config(sys.argv[1:])))
    except (ValueError, WeightsError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
