"""One training run: its networks, its optimisers, its current step, and how it takes a step."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from iov_restore_ros.compute.cpu import on_one_thread
from iov_restore_ros.compute.device import fastest_precision
from iov_restore_ros.model import Discriminator, Generator
from iov_restore_ros.model.fusion import Evidence
from iov_restore_ros.training.adversarial import (
    COLLAPSE_STEPS,
    OBJECTIVES,
    Judgement,
    collapsed,
)
from iov_restore_ros.training.batches import Batches
from iov_restore_ros.training.checkpoint import (
    ANEW,
    TrainingError,
    read_checkpoint,
    start_from,
    write_checkpoint,
)
from iov_restore_ros.training.config import TrainConfig, config_of, make_plan
from iov_restore_ros.training.losses import RestorationLoss
from iov_restore_ros.training.processes import Processes
from iov_restore_ros.training.unroll import Unroll

BROKEN_STEPS = 10  # in a row end the run


class Trainer:
    """
    The state of a run. ``config`` belongs to the present stage, ``plan`` covers all stages.

    A step whose loss or gradient is not finite changes no weight. ``BROKEN_STEPS`` such steps in a
    row end the run; its last checkpoint is then still good. A new discriminator replaces one that
    has collapsed (see ``adversarial.collapsed``), as at the start of a stage.
    """

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        self.whole, self.processes = config, processes
        self.config = config_of(config, config.first_stage)
        self.device = processes.device
        self.batches = Batches(self.config, self.device)
        per_step = config.batch * config.accumulate * processes.count
        self.plan = make_plan(config, math.ceil(self.batches.pictures / per_step))
        torch.manual_seed(config.seed)
        self.generator = Generator(config.preset)
        self.generator.initialise()
        if config.start_from:
            start_from(self.generator, config.start_from)
        self.generator.to(self.device)
        self.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dtype = self._precision()
        self.average = self._new_average()
        self.loss = RestorationLoss(self.config.losses, config.vgg).to(self.device)
        self.shared_generator = processes.share(self.generator)
        self.step = self.plan.starts[config.first_stage]
        self.broken = 0  # steps in a row that were not finite
        self.started = time.monotonic()
        self.begin_stage(config.first_stage)
        self.checkpoint = config.output / 'checkpoint.pt'
        if self.checkpoint.exists():
            self._load()

    def _precision(self) -> torch.dtype:
        """Return the data type that the convolutions of all processes run in."""
        if self.config.precision != 'auto':
            return getattr(torch, self.config.precision)
        fastest = on_one_thread(fastest_precision, self.generator, self.device, True)
        # Each process measures for itself. All take the result of the majority.
        votes = torch.tensor(float(fastest == 'bfloat16'), device=self.device)
        return torch.bfloat16 if self.processes.mean(votes) > 0.5 else torch.float32

    def _new_average(self) -> AveragedModel:
        return AveragedModel(
            self.generator, multi_avg_fn=get_ema_multi_avg_fn(self.config.ema)
        )

    def _take_settings(self, config: TrainConfig) -> None:
        """Continue with other settings, from the averaged weights."""
        self.config = config
        self.batches = Batches(config, self.device)
        self.loss = RestorationLoss(config.losses, config.vgg).to(self.device)
        averaged = self.average.module
        assert isinstance(averaged, Generator)
        self.generator.load_state_dict(averaged.state_dict())
        self.average = self._new_average()

    def begin_stage(self, stage: int) -> None:
        """Keep the generator; create a new discriminator and new optimisers (Sec. 4.1)."""
        self.stage = stage
        config = config_of(self.whole, stage)
        if config != self.config:
            self._take_settings(config)
        self.optimiser = make_optimiser(self.config.optimiser, self.generator)
        self.judgements: list[Judgement] = []
        self.discriminator: Discriminator | None = None
        if self.config.adversarial.weight:
            torch.manual_seed(self.config.seed * 1_000_003 + self.step)
            self.discriminator = Discriminator().to(self.device)
            self.shared_discriminator = self.processes.share(self.discriminator)
            self.discriminator_optimiser = make_optimiser(
                self.config.optimiser, self.discriminator
            )

    def seconds(self) -> float:
        """Return the run's duration so far in s, with the time before it was stopped."""
        return time.monotonic() - self.started

    def read(self) -> Iterator[list[Any]]:
        """
        Yield the batches of each step, from the present step to the last.

        It begins the stage of the step first, so take each step before asking for the next.
        """
        count, rank = self.processes.count, self.processes.rank
        while self.step < self.plan.steps:
            if self.plan.stage(self.step) != self.stage:
                self.begin_stage(self.plan.stage(self.step))
            accumulate, end = self.config.accumulate, self.plan.end(self.stage)
            first, last = (step * accumulate * count + rank for step in (self.step, end))
            reader = iter(self.batches.read(range(first, last, count)))
            while self.step < end:
                yield [next(reader) for _ in range(accumulate)]

    def take_step(self, batches: list[Any]) -> dict[str, float]:
        """
        Take one step on ``config.accumulate`` batches from ``Batches.read``.

        Generator and discriminator step together, on the same pictures. Returns the losses by
        name, as means over all processes.
        """
        self._set_rate(self.plan.learning_rate(self.step))
        self.optimiser.zero_grad()
        if self.discriminator:
            self.discriminator_optimiser.zero_grad()
        sums: dict[str, Tensor] = {}
        for place, batch in enumerate(batches):
            for name, value in self._accumulate(batch, place).items():
                sums[name] = sums.get(name, 0.0) + value / len(batches)
        means = self.processes.mean(torch.stack(list(sums.values())))
        report = dict(zip(sums, means.tolist(), strict=True))
        self._update(report)
        self.step += 1
        return report

    def _accumulate(self, batch: Any, place: int) -> dict[str, Tensor]:
        """Add the gradients of one batch; return its losses."""
        count, accumulate = self.processes.count, self.config.accumulate
        number = (self.step * accumulate + place) * count + self.processes.rank
        last = place == accumulate - 1
        if self.config.data.frames > 1:
            return self._accumulate_frames(self.batches.unroll(batch, number), last)
        with self._gradients_shared(last):
            return self._accumulate_pictures(
                *self.batches.degrade(batch, number, self.strength()), number
            )

    def _accumulate_frames(self, sequences: Unroll, last: bool) -> dict[str, Tensor]:
        """Train on each frame in turn. The ``last`` batch shares the gradients at its end."""
        learnt = sequences.learnt
        share = 1 / (self.config.accumulate * len(learnt))
        sums: dict[str, Tensor] = {}
        for number in sequences.numbers:
            image, evidence, target = sequences.frame(number)
            if number not in learnt:
                with torch.no_grad():
                    sequences.keep(self._forward(image, evidence))
                continue
            with self._gradients_shared(last and number == learnt[-1]):
                restored, total, values = self._restore(image, evidence, target)
                (share * total).backward()
            sequences.keep(restored)
            for name, value in (values | {'loss': total.detach()}).items():
                sums[name] = sums.get(name, 0.0) + value / len(learnt)
        return sums

    def _restore(
        self, image: Tensor, evidence: Evidence | None, target: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the restored pictures, the loss, and its terms by name."""
        restored = self._forward(image, evidence)
        with self._mixed():
            return restored, *self.loss(restored, target)

    def _forward(self, image: Tensor, evidence: Evidence | None) -> Tensor:
        with self._mixed():
            return self.shared_generator(image.to(memory_format=torch.channels_last), evidence)

    def _mixed(self) -> torch.autocast:
        mixed = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=mixed)

    def _accumulate_pictures(
        self, degraded: Tensor, target: Tensor, number: int
    ) -> dict[str, Tensor]:
        """Add the gradients of the losses and, if there is one, of the discriminator."""
        share = 1 / self.config.accumulate
        restored, total, values = self._restore(degraded, None, target)
        if not self.discriminator:
            (share * total).backward()
            return values | {'loss': total.detach()}

        adversarial = self.config.adversarial
        objective = OBJECTIVES[adversarial.objective]
        self.discriminator.requires_grad_(False)
        game = objective.generator_loss(self.discriminator, restored)
        total = total + adversarial.weight * game
        (share * total).backward()
        self.discriminator.requires_grad_(True)
        rng = torch.Generator().manual_seed(number)
        loss, judgement = objective.discriminator_loss(
            self.shared_discriminator, target, restored.detach(), rng
        )
        (share * loss).backward()
        return values | {
            'loss': total.detach(), 'adversarial': game.detach(), 'discriminator': loss.detach(),
            **{f'D_{name}': torch.as_tensor(value, device=self.device)
               for name, value in judgement._asdict().items()},
        }

    def _update(self, report: dict[str, float]) -> None:
        """Apply the gradients if they are finite, and record the discriminator's judgement."""
        norm = nn.utils.clip_grad_norm_(self.generator.parameters(), self.config.max_gradient)
        report['gradient'] = norm.item()
        if self.discriminator:  # the penalty's gradient can be non-finite with a finite loss
            norm = nn.utils.clip_grad_norm_(self.discriminator.parameters(), math.inf)
            report['D_gradient'] = norm.item()
        if not all(math.isfinite(value) for value in report.values()):
            self.broken += 1
            if self.broken == BROKEN_STEPS:
                raise TrainingError(
                    f'{BROKEN_STEPS} steps in a row were not finite, the last is {self.step}: '
                    f'lower rate.start or max_gradient; {self.checkpoint} is the last good state'
                )
            return
        self.broken = 0
        self.optimiser.step()
        self.average.update_parameters(self.generator)
        if self.discriminator:
            self.discriminator_optimiser.step()
            OBJECTIVES[self.config.adversarial.objective].after_step(self.discriminator)
            now = Judgement(*(report[f'D_{name}'] for name in Judgement._fields))
            self.judgements = [*self.judgements, now][-COLLAPSE_STEPS:]

    def replace_collapsed(self) -> str | None:
        """Begin the stage anew if the discriminator has collapsed; return the reason if so."""
        reason = collapsed(self.judgements)
        if reason:
            self.begin_stage(self.stage)
        return reason

    def strength(self) -> float:
        """Return the present strength of the degradations, 0.3..1; weak ones come first."""
        ramp = self.config.ramp
        return min(1.0, 0.3 + 0.7 * self.plan.done(self.step) / ramp) if ramp else 1.0

    def _set_rate(self, rate: float) -> None:
        set_rate(self.optimiser, rate, self.config.fusion_rate)
        if self.discriminator:
            set_rate(self.discriminator_optimiser, rate, 1.0)

    def _gradients_shared(self, last: bool) -> contextlib.AbstractContextManager:
        """Average the gradients over the processes only with the last batch of a step."""
        waiting = contextlib.ExitStack()
        if self.processes.count > 1 and not last:
            waiting.enter_context(self.shared_generator.no_sync())  # type: ignore[operator]
            if self.discriminator:
                waiting.enter_context(
                    self.shared_discriminator.no_sync()  # type: ignore[operator]
                )
        return waiting

    def save(self) -> None:
        """Write the checkpoint, whole or not at all. Raises ``OSError``, e.g. on a full disk."""
        state: dict[str, Any] = {
            'task': self.config.task,
            'preset': self.config.preset,
            'step': self.step,
            'stage': self.stage,
            'seconds': self.seconds(),
            'generator': self.generator.state_dict(),
            'average': self.average.state_dict(),
            'optimiser': self.optimiser.state_dict(),
        }
        if self.discriminator:
            state['discriminator'] = self.discriminator.state_dict()
            state['discriminator_optimiser'] = self.discriminator_optimiser.state_dict()
            state['judgements'] = [tuple(judgement) for judgement in self.judgements]
        write_checkpoint(self.checkpoint, state)

    def _load(self) -> None:
        """Continue from the checkpoint. Raises ``TrainingError`` for one that does not fit."""
        state = read_checkpoint(self.checkpoint, self.whole, self.device)
        self.step = state['step']
        self.started -= state.get('seconds', 0.0)  # older checkpoints have none
        self.begin_stage(state['stage'])
        try:
            self._take(state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise TrainingError(
                f'{self.checkpoint}: of another network or optimiser; {ANEW}'
            ) from error

    def _take(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state['generator'])
        self.average.load_state_dict(state['average'])
        self.optimiser.load_state_dict(state['optimiser'])
        if self.discriminator:
            self.discriminator.load_state_dict(state['discriminator'])
            self.discriminator_optimiser.load_state_dict(state['discriminator_optimiser'])
            self.judgements = [Judgement(*values) for values in state['judgements']]


def make_optimiser(name: str, network: nn.Module) -> torch.optim.Optimizer:
    """Return 'adam' or 'adamw' for ``network``; a generator's fusion is a separate group."""
    parts = [network]
    if isinstance(network, Generator) and network.fusion is not None:
        parts = [network.body, network.fusion]
    groups = [{'params': list(part.parameters())} for part in parts]
    if name == 'adam':
        return torch.optim.Adam(groups, fused=True)
    return torch.optim.AdamW(groups, weight_decay=1e-4, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, rate: float, fusion_rate: float) -> None:
    """Set the learning rate to ``rate``, and the fusion's to ``fusion_rate`` times ``rate``."""
    for group, factor in zip(optimiser.param_groups, (1.0, fusion_rate), strict=False):
        group['lr'] = factor * rate
