"""
Train a network that blurs sharp pictures like real blurred ones (Zhang et al. 2020).

    iov_restore train_blur config/train/learned_blur.yaml data.root=SHARP data.blurred=DIR vgg=FILE

The network turns a sharp picture and a map of noise into a blurred picture. It trains without
pairs. A relativistic discriminator compares its output with real blurred pictures, and the
perceptual loss keeps the scene. The command writes blur.safetensors into `output` at intervals, and
when it is stopped. `train ... data.learned_blur=FILE` blurs a share of the training pictures with
it.

K. Zhang et al., "Deblurring by Realistic Blurring", CVPR 2020.
"""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from iov_restore_ros.model import Discriminator, FinderInfo, WeightsError, save_finder
from iov_restore_ros.model.discriminator import INPUT_SIZE
from iov_restore_ros.model.generators import ResidualBlock
from iov_restore_ros.model.weights import fill_network, read_header
from iov_restore_ros.pictures.files import SharpCrops
from iov_restore_ros.stop import Stop
from iov_restore_ros.training.finder import FinderConfig, main_of
from iov_restore_ros.training.losses import RestorationLoss
from iov_restore_ros.training.origin import git_commit, machine_name, settings_text

NETWORK = 'blur'  # name in the header of its file
CELL = 4  # pixels
CHANNELS, BLOCKS = 64, 6
LOG_EVERY = 100  # steps


class Blur(nn.Module):
    """Adds blur to pictures: `fast` without history, with a plane of noise beside the colours."""

    def __init__(self) -> None:
        super().__init__()
        last = nn.Conv2d(CHANNELS, 3 * CELL**2, 3, padding=1)
        with torch.no_grad():
            last.weight *= 0.1  # at first, a picture comes out almost unchanged
        self.body = nn.Sequential(
            nn.PixelUnshuffle(CELL),
            nn.Conv2d(4 * CELL**2, CHANNELS, 3, padding=1),
            *[ResidualBlock(CHANNELS, dropout=0.0) for _ in range(BLOCKS)],
            last,
            nn.PixelShuffle(CELL),
        )

    def forward(self, sharp: Tensor, noise: Tensor) -> Tensor:
        """
        Return ``sharp`` blurred, float32 N x 3 x H x W, RGB, 0..1, H and W multiples of 4.

        ``noise`` is N x 1 x H x W of normal values. Different noise gives a different blur.
        """
        return sharp + self.body(torch.cat([sharp - 0.5, noise], 1))


@dataclass
class BlurDataConfig:
    """The folders of the pictures."""

    root: Path = MISSING  # sharp pictures
    blurred: Path = MISSING  # real blurred pictures of any scenes
    description: str = ''  # for the weight file: the data sets and their terms
    cache_gb: float = 2.0


@dataclass
class BlurConfig(FinderConfig):
    """All settings of a run."""

    data: BlurDataConfig = field(default_factory=BlurDataConfig)
    losses: dict[str, float] = MISSING  # against the sharp picture, as for `train`
    adversarial: float = 1.0  # weight
    vgg: Path | None = None  # VGG19 weights for the perceptual loss; None downloads them


def relativistic(higher: Tensor, lower: Tensor) -> Tensor:
    """
    Return the relativistic loss, low if logits ``higher`` exceed the mean of ``lower``.

    The reverse term (``lower`` below the mean of ``higher``) is included. The discriminator
    minimises it for (real, made), the generator for (made, real).
    """
    up, down = higher - lower.mean(), lower - higher.mean()
    return functional.softplus(-up).mean() + functional.softplus(down).mean()


def load_blur(path: Path) -> Blur:
    """Read the network from ``path``. Raises ``WeightsError`` with a one-sentence message."""
    network = read_header(path).get('network')
    if network != NETWORK:
        raise WeightsError(f'{path}: the header names network {network!r}, not {NETWORK!r}')
    blur = Blur()
    fill_network(blur, path, NETWORK)
    return blur.eval().requires_grad_(False)


def run(config: BlurConfig, command: str = '') -> Path:
    """Train; return the weight file."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    blur = (load_blur(config.start_from) if config.start_from else Blur()).to(device)
    blur.train().requires_grad_(True)
    critic = Discriminator().layers[:-1].to(device)  # without its sigmoid
    scene = RestorationLoss(config.losses, config.vgg).to(device)
    sides = [torch.optim.AdamW(side.parameters(), config.rate) for side in (blur, critic)]
    count, data = config.steps * config.batch, config.data
    sharp, blurred = (
        DataLoader(SharpCrops(root, INPUT_SIZE, count, config.seed, data.cache_gb), config.batch)
        for root in (data.root, data.blurred)
    )
    path, stop, started = config.output / 'blur.safetensors', Stop(), time.monotonic()
    console, pairs = Console(stderr=True), zip(sharp, blurred, strict=True)
    for step, pair in enumerate(track(pairs, 'blur', config.steps, console=console), 1):
        picture, real = (images.to(device).float() / 255 for images in pair)
        made = blur(picture, torch.randn_like(picture[:, :1]))
        critic.requires_grad_(False)
        game = relativistic(critic(made), critic(real))
        kept, _ = scene(made, picture)
        _lower(sides[0], kept + config.adversarial * game)
        critic.requires_grad_(True)
        judged = relativistic(critic(real), critic(made.detach()))
        _lower(sides[1], judged)
        last = stop.asked or step == config.steps
        if last or step % LOG_EVERY == 0:
            changed = (made - picture).abs().mean().item()
            console.print(
                f'step {step}: scene {kept.item():.4f}, game {game.item():.4f}, discriminator '
                f'{judged.item():.4f}, changed by {changed:.4f}'
            )
            save_finder(path, blur, FinderInfo(
                NETWORK, data.description, command, git_commit(), settings_text(config),
                f'{step} of {config.steps}', f'{(time.monotonic() - started) / 3600:.2f}',
                f'{machine_name(device)}, float32',
            ))
        if last:
            break
    return path


def _lower(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def main() -> int:
    """Run the command line; returns the exit status."""
    return main_of('train_blur', __doc__, BlurConfig, run)


if __name__ == '__main__':
    sys.exit(main())
