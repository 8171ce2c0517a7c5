"""
What a restored picture is held against its target by.

Pictures are float N x 3 x H x W, RGB, 0..1; half precision is taken too, every loss is computed
and returned in float32. Each loss is a mean over the batch.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from iov_restore_ros.training.vgg import VGG19Features


def charbonnier(restored: Tensor, target: Tensor) -> Tensor:
    """Return mean(sqrt((restored - target)^2 + 1e-6)), a smooth L1 loss (Charbonnier 1994)."""
    return torch.sqrt((restored.float() - target.float()) ** 2 + 1e-6).mean()


def l1(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference."""
    return functional.l1_loss(restored.float(), target.float())


def psnr_loss(restored: Tensor, target: Tensor) -> Tensor:
    """
    Return minus the PSNR in dB, 10 log10(MSE + 1e-8), as HINet (Chen et al. 2021) and NAFNet do.

    The MSE is each picture's own. The loss is negative, -80 for equal pictures, and a thousand
    times `l1` in size; its gradient grows as the error falls.
    """
    error = ((restored.float() - target.float()) ** 2).mean(dim=(1, 2, 3))
    return 10 * torch.log10(error + 1e-8).mean()


def fft(restored: Tensor, target: Tensor) -> Tensor:
    """
    Return the mean absolute difference of the spectra's real and imaginary parts.

    MIMO-UNet (Cho et al. 2021), who weigh it 0.1 beside L1. The transform is not normalised, as
    theirs, so the value grows with the side of the crop (256 in theirs).
    """
    spectrum = torch.fft.rfft2(restored.float() - target.float())
    return torch.view_as_real(spectrum).abs().mean()


def perceptual(features: nn.Module, restored: Tensor, target: Tensor) -> Tensor:
    """
    Return the squared distance of feature maps (Eq. 10; Johnson et al. 2016).

    As in the equation the squares are averaged over the W x H places of the map. At a place they
    are summed over the channels, as the squared length of a vector; the equation doesn't mention
    them. The value is large: about 3000 at conv3_3 where `charbonnier` is 0.02. Kupyn et al.
    average over the 256 channels too, so their weight of 100 is about 0.4 here.
    """
    with torch.no_grad():
        wanted = features(target.float()).float()
    return ((features(restored.float()).float() - wanted) ** 2).sum(dim=1).mean()


PIXEL_LOSSES = {'charbonnier': charbonnier, 'l1': l1, 'psnr': psnr_loss, 'fft': fft}
LOSSES = (*PIXEL_LOSSES, 'perceptual')


class RestorationLoss(nn.Module):
    """
    A weighted sum of losses, from a mapping such as {'charbonnier': 1.0, 'fft': 0.05}.

    ``vgg_layer`` and ``vgg_weights`` go to ``VGG19Features``, which is only made if 'perceptual'
    has a weight. Under autocast VGG's convolutions run in the lower precision, nothing else does.
    Raises ``ValueError`` for an unknown name, a negative weight, or no weight at all.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        vgg_weights: Path | None = None,
        vgg_layer: str = 'conv3_3',
    ) -> None:
        super().__init__()
        for name, weight in weights.items():
            if name not in LOSSES:
                raise ValueError(f'no loss is named {name!r}, known are {", ".join(LOSSES)}')
            if not weight >= 0:
                raise ValueError(f'the weight of loss {name!r} is {weight}, it cannot be below 0')
        self.weights = {name: weight for name, weight in weights.items() if weight}
        if not self.weights:
            raise ValueError(f'no loss has a weight, choose from {", ".join(LOSSES)}')
        self.features = (
            VGG19Features(vgg_layer, vgg_weights) if 'perceptual' in self.weights else None
        )

    def forward(self, restored: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and every loss by name, detached and not weighted."""
        values = {name: self._loss(name, restored, target) for name in self.weights}
        total = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return total, {name: value.detach() for name, value in values.items()}

    def _loss(self, name: str, restored: Tensor, target: Tensor) -> Tensor:
        if self.features is not None and name == 'perceptual':
            return perceptual(self.features, restored, target)
        return PIXEL_LOSSES[name](restored, target)
