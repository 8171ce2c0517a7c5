"""
Train a generator: the paper's way, or ours.

    python -m iov_restore_ros.training.train config/train/fast_deblur.yaml data.root=DIR
    torchrun --nproc_per_node=8 -m iov_restore_ros.training.train CONFIG data.root=DIR
    torchrun --nnodes=2 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=HOST:29400 \\
        -m iov_restore_ros.training.train CONFIG data.root=DIR

Any setting of the file can be given after it as name=value. A run writes checkpoint.pt,
weights.safetensors, log.csv, TensorBoard events and samples/ into `output`. Started again with the
same output, it continues. Ctrl-C saves and stops. See docs/training.md for more.
"""

import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import distributed

from iov_restore_ros.evaluation.metrics import psnr, restore_image
from iov_restore_ros.model import Generator, WeightsError, WeightsInfo, save_weights
from iov_restore_ros.pictures.datasets import find_pairs
from iov_restore_ros.pictures.files import DataError
from iov_restore_ros.pictures.readings import Pair
from iov_restore_ros.stop import Stop
from iov_restore_ros.training.config import TrainConfig, read_config
from iov_restore_ros.training.logs import Logs
from iov_restore_ros.training.origin import command_text, git_commit, machine_name, settings_text
from iov_restore_ros.training.processes import join
from iov_restore_ros.training.trainer import Trainer, TrainingError

LOG_EVERY = 50  # steps
VALIDATION_PICTURES = 20


def run(config: TrainConfig) -> Path:
    """Train until the last step or a signal; return the weight file written last."""
    if config.threads:
        torch.set_num_threads(config.threads)
    processes = join(config.device)
    stop = Stop()
    trainer = Trainer(config, processes)
    leader = processes.rank == 0
    console = Console(stderr=True, quiet=not leader)
    columns = (
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not leader) as progress:
        keeper = Keeper(trainer, progress) if leader else None
        console.print(
            f'{config.preset} {config.task} on {processes.count} x {trainer.device} in '
            f'{trainer.dtype}, step {trainer.step} of {trainer.plan.steps}'
        )
        for batches in trainer.read():
            report = trainer.take_step(batches)
            reason = trainer.replace_collapsed()
            # Every process must stop after the same step.
            stopped = processes.mean(torch.tensor(float(stop.asked), device=trainer.device)) > 0
            if keeper:
                keeper.note(report, reason, bool(stopped))
            if stopped:
                break
    if distributed.is_initialized():
        distributed.barrier()
    return config.output / 'weights.safetensors'


class Keeper:
    """The tasks of the leading process: show, log, measure, save."""

    def __init__(self, trainer: Trainer, progress: Progress) -> None:
        self.trainer, self.progress = trainer, progress
        self.config = trainer.whole
        self.logs = Logs(self.config.output, trainer.step)
        self.sums: dict[str, float] = {}
        self.steps = 0
        self.since = time.monotonic()
        self.metrics = ''
        self.commit = git_commit()  # the running code's, read before later commits
        self.bar = progress.add_task('', total=trainer.plan.steps, completed=trainer.step)
        data = self.config.data
        self.pairs = []
        if data.validation:
            pairs = find_pairs(data.validation, 'folders', 'test')
            self.pairs = self._readable(pairs[:: -(-len(pairs) // VALIDATION_PICTURES)])

    def _readable(self, pairs: list[Pair]) -> list[Pair]:
        """Return the readable ones of ``pairs``; raises ``DataError`` if there are none."""
        good = [pair for pair in pairs if self._read(pair)]
        if not good:
            raise DataError(f'{self.config.data.validation}: none of its pairs can be read')
        return good

    def _read(self, pair: Pair) -> tuple[np.ndarray, np.ndarray] | None:
        """Return a pair like ``Pair.read``; print the error and return None if that fails."""
        try:
            return pair.read()
        except DataError as error:
            self.progress.console.print(f'{error}, skipped')
            return None

    def note(self, report: dict[str, float], reason: str | None, stopped: bool) -> None:
        """Record the last step; log, measure and save when due."""
        trainer = self.trainer
        if reason:
            self.progress.console.print(f'step {trainer.step}: {reason}; a new one begins')
        if trainer.broken:
            self.progress.console.print(f'step {trainer.step} was not finite, nothing changed')
        else:
            self.steps += 1
            for name, value in report.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
        self.progress.update(self.bar, completed=trainer.step)
        last = stopped or trainer.step == trainer.plan.steps
        save = last or trainer.step % self.config.save_every == 0
        try:
            if (save or trainer.step % LOG_EVERY == 0) and self.steps:
                self._log(save)
            if save:
                trainer.save()
                self._export()
                self._sample()
                self.logs.draw()
        except OSError as error:  # a full disk must not end a run of days
            self.progress.console.print(f'step {trainer.step}: {error}; training goes on')
            if last:
                raise
        if stopped:
            self.progress.console.print(f'stopped and saved at step {trainer.step}')

    def _log(self, measure: bool) -> None:
        trainer = self.trainer
        values = {name: value / self.steps for name, value in self.sums.items()}
        config = trainer.config  # of the stage
        crops = config.batch * config.accumulate * trainer.processes.count * self.steps
        values['crops_per_second'] = crops / (time.monotonic() - self.since)
        values['rate'] = trainer.plan.learning_rate(trainer.step - 1)
        values['stage'] = trainer.stage
        score = self._validate() if measure and self.pairs else math.nan
        if not math.isnan(score):
            values['PSNR'] = score
            assert self.config.data.validation is not None
            self.metrics = f'{self.config.data.validation.name} {values["PSNR"]:.2f} dB RGB'
        shown = [f'{name} {values[name]:.4g}' for name in values if name in (
            'loss', 'adversarial', 'discriminator', *config.losses)]
        self.progress.update(self.bar, description=' '.join([*shown, self.metrics]))
        if measure:
            self.progress.console.print(f'step {trainer.step}', *shown, self.metrics)
        self.logs.write(trainer.step, values)
        self.sums, self.steps, self.since = {}, 0, time.monotonic()

    def _averaged(self) -> Generator:
        averaged = self.trainer.average.module
        assert isinstance(averaged, Generator)
        return averaged

    def _validate(self) -> float:
        """
        Return the mean RGB PSNR in dB of the averaged generator over the validation pairs.

        NaN if none of them can be read any more.
        """
        averaged = self._averaged().eval()
        scores = []
        for both in filter(None, map(self._read, self.pairs)):
            degraded, sharp = both
            scores.append(psnr(restore_image(averaged, degraded, self.trainer.device), sharp))
        averaged.train()
        return sum(scores) / len(scores) if scores else math.nan

    def _sample(self) -> None:
        """Write samples of the run's first batch, restored with the present weights."""
        batches = self.trainer.batches
        [batch] = batches.read([0])
        averaged = self._averaged().eval()
        with torch.inference_mode():
            if self.trainer.config.data.frames > 1:  # the last frame of each sequence
                sequences = batches.unroll(batch, 0)
                for number in sequences.numbers:
                    degraded, evidence, target = sequences.frame(number)
                    restored = averaged(degraded, evidence)
                    sequences.keep(restored)
            else:
                degraded, target = batches.degrade(batch, 0)
                restored = averaged(degraded)
        averaged.train()
        self.logs.sample(self.trainer.step, degraded, restored, target)

    def _export(self) -> None:
        """Write the averaged generator as a weight file."""
        trainer = self.trainer
        machine = machine_name(trainer.device, trainer.processes.count)
        precision = str(trainer.dtype).removeprefix('torch.')
        save_weights(self.config.output / 'weights.safetensors', self._averaged(), WeightsInfo(
            preset=self.config.preset, task=self.config.task,
            trained_on=self.config.data.description, metrics=self.metrics,
            command=command_text('train', sys.argv[1:]), commit=self.commit,
            settings=settings_text(self.config), steps=f'{trainer.step} of {trainer.plan.steps}',
            hours=f'{trainer.seconds() / 3600:.2f}', machine=f'{machine}, {precision}',
        ))


def main() -> int:
    """Run the command line; returns the exit status."""
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        print(__doc__.strip())
        return 0 if len(sys.argv) > 1 else 2
    try:
        path = run(read_config(sys.argv[1:]))
    except (OSError, ValueError, TrainingError, WeightsError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    if os.environ.get('RANK', '0') == '0':  # of torchrun's workers
        print(path)
    return 0


if __name__ == '__main__':
    sys.exit(main())
