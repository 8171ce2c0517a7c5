"""
The game between generator and discriminator, by the name of its objective.

``real`` and ``restored`` are float N x 3 x 256 x 256, RGB, 0..1. The discriminator ends in a
sigmoid, which the paper keeps (Sec. 3.2), so its outputs lie in 0..1. It runs in float32, since in
bfloat16 the sigmoid is exactly 1 from 0.998 on and has no gradient there.

WGAN and WGAN-GP were made for discriminators without a sigmoid. With it D(real) - D(restored) is
1 at most, and the penalty of WGAN-GP fights it: pictures are further than 1 apart (L2 norm over all
values), so D cannot have the slope of 1 all along the line between them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

CLIP = 0.01  # c of Arjovsky et al. 2017
PENALTY = 10.0  # lambda of Eq. 7

COLLAPSE_STEPS = 200
SATURATED = 0.01  # slope of the sigmoid, at most 0.25; D is then beyond 0.01 or 0.99
BLIND = 1e-4


class Judgement(NamedTuple):
    """The discriminator's mean outputs on a batch."""

    real: float  # D(real)
    restored: float  # D(restored)
    slope: float  # D(restored) (1 - D(restored)), the sigmoid's factor on the gradient


class Objective(ABC):
    """The losses of the discriminator and the generator."""

    @abstractmethod
    def discriminator_loss(
        self, discriminator: nn.Module, real: Tensor, restored: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Judgement]:
        """
        Return the discriminator's loss; no gradient reaches the generator.

        ``rng`` is a random generator on the CPU, for objectives that draw.
        """

    @abstractmethod
    def generator_loss(self, discriminator: nn.Module, restored: Tensor) -> Tensor:
        """
        Return the generator's loss.

        Gradients reach the discriminator too, so set them to zero before its own step.
        """

    def after_step(self, discriminator: nn.Module) -> None:  # noqa: B027  most need nothing
        """Run after each step of the discriminator; by default nothing."""


class Wasserstein(Objective):
    """
    Eq. 9 as the paper uses it: sigmoid kept, no Lipschitz constraint.

    For the generator the paper writes the perceptual loss only; -D(restored) is the part of Eq. 6
    that depends on it.
    """

    def discriminator_loss(
        self, discriminator: nn.Module, real: Tensor, restored: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Judgement]:
        """Return D(restored) - D(real)."""
        on_real, on_restored = _judge_both(discriminator, real, restored)
        return on_restored.mean() - on_real.mean(), _judgement(on_real, on_restored)

    def generator_loss(self, discriminator: nn.Module, restored: Tensor) -> Tensor:
        """Return -D(restored)."""
        return -_judge(discriminator, restored).mean()


class WassersteinClipped(Wasserstein):
    """WGAN (Arjovsky et al. 2017): Eq. 6 with all weights kept in -0.01..0.01."""

    @torch.no_grad()
    def after_step(self, discriminator: nn.Module) -> None:
        """Clip the weights and biases."""
        for parameter in discriminator.parameters():
            parameter.clamp_(-CLIP, CLIP)


class WassersteinPenalised(Wasserstein):
    """WGAN-GP (Gulrajani et al. 2017): Eq. 7, with a penalty of weight 10 on the gradient."""

    def discriminator_loss(
        self, discriminator: nn.Module, real: Tensor, restored: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Judgement]:
        """Return Eq. 7; ``rng`` draws the points of the penalty."""
        distance, judgement = super().discriminator_loss(discriminator, real, restored, rng)
        penalty = gradient_penalty(discriminator, real, restored, rng)
        return distance + PENALTY * penalty, judgement


class Original(Objective):
    """
    The first GAN's objective: Eq. 5 of the article, Eq. 6 of the preprint (Goodfellow 2014).

    The discriminator's loss is minus the equation. The generator lowers -log D(restored) rather
    than the equation's log(1 - D(restored)), as Goodfellow et al. advise: the latter has no
    gradient as long as the discriminator wins.
    """

    def discriminator_loss(
        self, discriminator: nn.Module, real: Tensor, restored: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Judgement]:
        """Return -log D(real) - log(1 - D(restored))."""
        on_real, on_restored = _judge_both(discriminator, real, restored)
        loss = -_log(on_real).mean() - _log(1 - on_restored).mean()
        return loss, _judgement(on_real, on_restored)

    def generator_loss(self, discriminator: nn.Module, restored: Tensor) -> Tensor:
        """Return -log D(restored)."""
        return -_log(_judge(discriminator, restored)).mean()


OBJECTIVES: dict[str, Objective] = {
    'wasserstein': Wasserstein(),
    'wgan_clip': WassersteinClipped(),
    'wgan_gp': WassersteinPenalised(),
    'original': Original(),
}


def gradient_penalty(
    discriminator: nn.Module, real: Tensor, restored: Tensor, rng: torch.Generator
) -> Tensor:
    """
    Return the last term of Eq. 7 without its lambda, the mean of (|grad D| - 1)^2.

    Each gradient is taken at a random point of the line from a restored picture to its real one.
    """
    share = torch.rand(len(real), 1, 1, 1, generator=rng).to(real.device)
    point = (share * real + (1 - share) * restored).detach().requires_grad_()
    judged = _judge(discriminator, point)
    [gradient] = torch.autograd.grad(judged.sum(), point, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


def collapsed(history: Iterable[Judgement]) -> str | None:
    """
    Return the reason why the discriminator is useless, or None while it is useful.

    ``history`` is its judgements, the latest last. The last 200 count; with fewer the result is
    None. A discriminator has collapsed in two cases:

    - Its sigmoid is saturated: the mean slope at the restored pictures is below 0.01 (the maximum
      is 0.25). It has won, with D(real) = 1 and D(restored) = 0, or its output is constant. Under
      the Wasserstein objectives the generator then learns nothing from it.
    - It is blind: over all of these steps, all values of D(real) and D(restored) lie within 1e-4.
    """
    last = list(history)[-COLLAPSE_STEPS:]
    if len(last) < COLLAPSE_STEPS:
        return None
    real, restored, slope = (sum(column) / len(last) for column in zip(*last, strict=True))
    means = f'over {len(last)} steps, mean D(real) {real:.4f}, D(restored) {restored:.4f}'
    if slope < SATURATED:
        return f'the discriminator is saturated: slope {slope:.1e} {means}'
    values = [value for judgement in last for value in judgement[:2]]
    if max(values) - min(values) < BLIND:
        return f'the discriminator is blind: it says the same of every picture {means}'
    return None


def _judge(discriminator: nn.Module, image: Tensor) -> Tensor:
    with torch.autocast(image.device.type, enabled=False):
        return discriminator(image.float())


def _judge_both(
    discriminator: nn.Module, real: Tensor, restored: Tensor
) -> tuple[Tensor, Tensor]:
    on_real, on_restored = _judge(discriminator, torch.cat([real, restored.detach()])).chunk(2)
    return on_real, on_restored


@torch.no_grad()
def _judgement(on_real: Tensor, on_restored: Tensor) -> Judgement:
    slope = on_restored * (1 - on_restored)
    # One transfer from the device.
    return Judgement(*torch.stack([on_real.mean(), on_restored.mean(), slope.mean()]).tolist())


def _log(probability: Tensor) -> Tensor:
    # binary_cross_entropy is not used, because on a GPU a NaN input makes it end the process.
    return probability.clamp_min(torch.finfo(torch.float32).tiny).log()
