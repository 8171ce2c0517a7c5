"""Upsampling and convolution in one layer: the same result for 4/9 of the work."""

import torch
from torch import Tensor, nn
from torch.nn import functional

# The rows of the small map that a 3-row kernel sees on the map upsampled by 2. Even rows see the
# row above once and the row itself twice. Odd rows see the row itself twice and the row below once.
FOLDS = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], dtype=torch.float32)


class PhaseConvolution(nn.Module):
    """
    Computes nearest upsampling by 2 and a 3x3 convolution as four 2x2 convolutions.

    There is one for each phase of the output (even or odd row, even or odd column). All work on the
    small map. It is for inference: it takes trained weights.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        """Take the weights of ``convolution``, 3x3 with padding 1."""
        super().__init__()
        weight = convolution.weight.detach()
        folds = FOLDS.to(weight)
        phases = torch.einsum('aip,bjq,ocpq->abocij', folds, folds, weight)
        self.weights = nn.ParameterList(phases.flatten(0, 1).unbind())
        self.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W to N x K x 2H x 2W."""
        height, width = x.shape[-2:]
        padded = functional.pad(x, (1, 1, 1, 1))
        result = x.new_empty(
            (x.shape[0], len(self.weights[0]), 2 * height, 2 * width)
        ).to(memory_format=torch.channels_last)
        for phase, weight in enumerate(self.weights):
            row, column = divmod(phase, 2)
            seen = padded[..., row : row + height + 1, column : column + width + 1]
            result[..., row::2, column::2] = functional.conv2d(seen, weight, self.bias)
        return result


def fold_upsampling(body: nn.Sequential) -> nn.Sequential:
    """Return ``body`` with each upsampling and the next convolution as one module."""
    layers: list[nn.Module] = []
    for layer in body:
        if isinstance(layer, nn.Conv2d) and layers and isinstance(layers[-1], nn.Upsample):
            layers[-1] = PhaseConvolution(layer)
        else:
            layers.append(layer)
    return nn.Sequential(*layers)
