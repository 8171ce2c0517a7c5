"""
The progressive ("gradient") training strategy of Sec. 4.1, as data.

A plan is a list of stages; within the whole training the learning rate falls, and where a stage
begins the discriminator and the optimisers start afresh while the generator is kept.
"""

import math
from dataclasses import dataclass

from iov_restore_ros.training.config import RateConfig, Stage


def grown(done: float, length: float) -> float:
    """Return how strong degradations are by now (0.3..1), ``done`` of ``length`` being over."""
    return min(1.0, 0.3 + 0.7 * done / length) if length else 1.0


@dataclass(frozen=True)
class Plan:
    """Where each stage begins, in steps, and the learning rate of every step."""

    starts: tuple[int, ...]
    steps: int
    rate: RateConfig

    def stage(self, step: int) -> int:
        """Return the number of the stage, from 0, that ``step`` belongs to."""
        return sum(start <= step for start in self.starts) - 1

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of ``step``: a linear rise, then the fall to ``rate.end``."""
        done = step / max(1, self.steps - 1)
        left = 1 - done if self.rate.shape == 'linear' else (1 + math.cos(math.pi * done)) / 2
        rise = min(1.0, (step + 1) / (self.rate.warm_up + 1))
        return rise * (self.rate.end + (self.rate.start - self.rate.end) * left)


def make_plan(stages: list[Stage], rate: RateConfig, steps_per_epoch: int) -> Plan:
    """Return the plan of ``stages``; an epoch shows every picture once."""
    starts = [0]
    for stage in stages:
        starts.append(starts[-1] + (stage.steps or stage.epochs * steps_per_epoch))
    return Plan(tuple(starts[:-1]), starts[-1], rate)
