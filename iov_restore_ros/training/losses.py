"""
The losses between restored pictures and their targets.

Pictures are float N x 3 x H x W, RGB, 0..1. Half precision is accepted too; every loss is computed
and returned in float32. Each loss is a mean over the batch. The perceptual loss compares features
of VGG19 (Simonyan and Zisserman 2015), which is defined at the end.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from iov_restore_ros.model.weights import WeightsError

# Of VGG19
BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels, convolutions
LAYERS = [f'conv{b}_{i}' for b, (_, count) in enumerate(BLOCKS, 1) for i in range(1, count + 1)]
LAYER = 'conv3_3'  # Kupyn et al. 2018; Wei et al. use one layer and do not say which
URL = 'https://download.pytorch.org/models/vgg19-dcbb9e9d.pth'

TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KERAS_MEAN = (123.68, 116.779, 103.939)  # red, green, blue of 0..255
KERAS_SCALE = 255 * 0.226  # ratio of its input range to torchvision's


def charbonnier(restored: Tensor, target: Tensor) -> Tensor:
    """Return mean(sqrt((restored - target)^2 + 1e-6)), a smooth L1 loss (Charbonnier 1994)."""
    return torch.sqrt((restored.float() - target.float()) ** 2 + 1e-6).mean()


def l1(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference."""
    return functional.l1_loss(restored.float(), target.float())


def psnr_loss(restored: Tensor, target: Tensor) -> Tensor:
    """
    Return minus the PSNR in dB, 10 log10(MSE + 1e-8), as HINet (Chen et al. 2021) and NAFNet do.

    The MSE is taken per picture. The loss is negative, -80 for equal pictures, and about a thousand
    times as large as `l1`. Its gradient grows as the error falls.
    """
    error = ((restored.float() - target.float()) ** 2).mean(dim=(1, 2, 3))
    return 10 * torch.log10(error + 1e-8).mean()


def fft(restored: Tensor, target: Tensor) -> Tensor:
    """
    Return the mean absolute difference of the spectra's real and imaginary parts.

    MIMO-UNet (Cho et al. 2021) gives it the weight 0.1 beside L1. As there, the transform is not
    normalised, so the value grows with the side of the crop (256 there).
    """
    spectrum = torch.fft.rfft2(restored.float() - target.float())
    return torch.view_as_real(spectrum).abs().mean()


def perceptual(features: nn.Module, restored: Tensor, target: Tensor) -> Tensor:
    """
    Return the squared distance of feature maps (Eq. 10; Johnson et al. 2016).

    As in the equation, the squares are averaged over the W x H positions of the map. At each
    position they are summed over the channels, like the squared length of a vector; the equation
    does not mention channels. The value is large: about 3000 at conv3_3 where `charbonnier` is
    0.02. Kupyn et al. average over the 256 channels too, so their weight of 100 is about 0.4 here.
    """
    with torch.no_grad():
        wanted = features(target.float()).float()
    return ((features(restored.float()).float() - wanted) ** 2).sum(dim=1).mean()


PIXEL_LOSSES = {'charbonnier': charbonnier, 'l1': l1, 'psnr': psnr_loss, 'fft': fft}
LOSSES = (*PIXEL_LOSSES, 'perceptual')


class RestorationLoss(nn.Module):
    """
    A weighted sum of losses, from a mapping such as {'charbonnier': 1.0, 'fft': 0.05}.

    ``vgg_layer`` and ``vgg_weights`` go to ``VGG19Features``, which is only created if 'perceptual'
    has a weight. Under autocast only VGG's convolutions run in the lower precision.
    Raises ``ValueError`` for an unknown name, a negative weight, or no weight at all.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        vgg_weights: Path | None = None,
        vgg_layer: str = LAYER,
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
        """Return the weighted sum, and every loss by name, detached and unweighted."""
        values = {name: self._loss(name, restored, target) for name in self.weights}
        total = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return total, {name: value.detach() for name, value in values.items()}

    def _loss(self, name: str, restored: Tensor, target: Tensor) -> Tensor:
        if self.features is not None and name == 'perceptual':
            return perceptual(self.features, restored, target)
        return PIXEL_LOSSES[name](restored, target)


class VGG19Features(nn.Module):
    """
    Map float N x 3 x H x W, RGB, 0..1, to the features of one layer, N x C x h x w, frozen.

    ``layer`` is `conv1_1` to `conv5_4`: convolution i of block b, after its ReLU. That is how
    Ledig et al. 2017 and Kupyn et al. 2018 define their feature maps, and what TensorFlow 2,
    used by Wei et al., has under that name. (Kupyn's code stops before the ReLU.) Wei et al. use
    one layer and don't say which; the default is Kupyn's.

    ``weights`` is a local file; without one, torchvision's is downloaded by torch hub.

    - `.npz`: Keras' weights, `block3_conv3__kernel` (height, width, in, out) and `__bias`,
      trained on BGR, 0..255, minus the mean. Its features are divided by 57.63, as if its input
      had torchvision's range, so that a loss can keep its weight.
    - any other suffix: torchvision's `vgg19-dcbb9e9d.pth`, `features.0.weight` and so on,
      trained on RGB with ImageNet's mean and deviation.

    Raises ``ValueError`` for an unknown layer and ``WeightsError`` for a file that cannot be used.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layer: str = LAYER, weights: Path | None = None) -> None:
        super().__init__()
        if layer not in LAYERS:
            raise ValueError(f'VGG19 has no layer {layer!r}, choose one of {", ".join(LAYERS)}')
        layers: list[nn.Module] = []
        places = {}  # index of every convolution in torchvision's sequence
        channels = 3
        for name in LAYERS[: LAYERS.index(layer) + 1]:
            block = int(name[4])
            if name.endswith('_1') and block > 1:
                layers.append(nn.MaxPool2d(2))
            places[name] = len(layers)
            outputs = BLOCKS[block - 1][0]
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            channels = outputs
        self.layers = nn.Sequential(*layers)

        if weights is not None and weights.suffix == '.npz':
            state = _read_keras(weights, places)
            mean, std = torch.tensor(KERAS_MEAN) / 255, torch.full((3,), KERAS_SCALE / 255)
        else:
            state = _read_torchvision(weights, places)
            mean, std = torch.tensor(TORCHVISION_MEAN), torch.tensor(TORCHVISION_STD)
        try:
            self.layers.load_state_dict(state)
        except RuntimeError as error:
            raise WeightsError(f'{weights or URL}: not the shapes of VGG19 ({error})') from error
        self.register_buffer('mean', mean.view(1, 3, 1, 1))
        self.register_buffer('std', std.view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Return the features of ``image``; gradients flow back to it."""
        scaled = (image - self.mean) / self.std
        return self.layers(scaled.contiguous(memory_format=torch.channels_last))


def _read_torchvision(path: Path | None, places: dict[str, int]) -> dict[str, Tensor]:
    """Return the filters of ``path``, or of torchvision's published file, for our layers."""
    try:
        if path is None:
            held = torch.hub.load_state_dict_from_url(
                URL, map_location='cpu', check_hash=True, weights_only=True
            )
        else:
            held = torch.load(path, map_location='cpu', weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        advice = '' if path else '; fetch that file elsewhere and set vgg=FILE'
        raise WeightsError(f'{path or URL}: cannot be read ({error}){advice}') from error
    return {
        f'{place}.{kind}': _pick(held, f'features.{place}.{kind}', f'{path or URL}')
        for place in places.values()
        for kind in ('weight', 'bias')
    }


def _read_keras(path: Path, places: dict[str, int]) -> dict[str, Tensor]:
    """Return the filters of ``path`` for our layers, made for RGB input over ``KERAS_SCALE``."""
    state = {}
    try:
        arrays = np.load(path, allow_pickle=False)
        for name, place in places.items():
            key = f'block{name[4]}_conv{name[6]}'
            kernel = torch.from_numpy(_pick(arrays, f'{key}__kernel', f'{path}'))
            bias = torch.from_numpy(_pick(arrays, f'{key}__bias', f'{path}'))
            kernel = kernel.permute(3, 2, 0, 1)
            state[f'{place}.weight'] = kernel.flip(1) if name == 'conv1_1' else kernel
            # Dividing the input and the biases by a number divides the features of convolutions
            # and ReLUs by that number.
            state[f'{place}.bias'] = bias / KERAS_SCALE
    except (OSError, RuntimeError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f'{path}: cannot be read ({error})') from error
    return state


def _pick(held: Any, key: str, source: str) -> Any:
    """Return ``held[key]``, or raise an error that lists what ``held`` has instead."""
    if not isinstance(held, Mapping):
        raise WeightsError(f'{source}: looked for {key}, found no names but {type(held).__name__}')
    if key not in held:
        raise WeightsError(f'{source}: looked for {key}, found {", ".join(held) or "nothing"}')
    return held[key]
