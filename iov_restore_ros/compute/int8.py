"""
Residual blocks in 8-bit integers, for CPUs that multiply those four times as fast (VNNI).

Nine tenths of a generator's work is in its residual blocks. Here their convolutions take 8-bit
activations and weights, add up in 32 bits, and return float32. The sum that runs from block to
block and all other layers stay in float32.

Weights have one scale for each output channel. Activations have one scale, which each pass computes
from their range. So no calibration is needed, and nothing is clipped in unusual images.
"""

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from iov_restore_ros.model.generators import LEAKY_SLOPE, ResidualBlock

LARGEST_WEIGHT = 127
SMALLEST_SCALE = 1e-30  # below it values are 0; float32 cannot hold a much larger 1 / scale
STEPS = 254  # of 255, so that the ends can be rounded up
# Adding this to a float32 up to 2^22 rounds it to an integer, which is then in its lowest bits.
ROUNDING = 1.5 * 2**23


class Int8Convolution:
    """A 3x3 convolution with padding 1 in 8-bit integers."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        """Take the weights of ``convolution``."""
        weight = convolution.weight.detach()
        assert convolution.bias is not None
        self._bias = convolution.bias.detach()
        self._scales = weight.abs().amax((1, 2, 3)).clamp_(min=1e-20) / LARGEST_WEIGHT
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._weight = torch.ops.onednn.qconv_prepack(
            (weight / self._scales.view(-1, 1, 1, 1)).round_().to(torch.int8), self._scales,
            1.0, 1, [1, 1], [1, 1], [1, 1], 1, None,
        )

    def __call__(self, x: Tensor, spare: bool = False) -> Tensor:
        """
        Map float32 N x C x H x W to float32 N x K x H x W, both channels_last.

        If ``spare``, the memory of ``x`` may be overwritten.
        """
        steps, scale, zero = quantise(x, spare)
        return torch.ops.onednn.qconv_pointwise(
            steps, scale, zero, self._weight, self._scales, self._zeros, self._bias,
            [1, 1], [1, 1], [1, 1], 1, 1.0, 0, torch.float32, 'none', [], '',
        )


def quantise(x: Tensor, spare: bool = False) -> tuple[Tensor, float, int]:
    """
    Return uint8 ``steps``, ``scale`` and ``zero``: x = scale * (steps - zero), rounded.

    If ``spare``, the memory of ``x`` may be overwritten.
    """
    lowest, highest = (float(end) for end in torch.aminmax(x.permute(0, 2, 3, 1)))
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)  # 0 is the padding, so it must be a step
    scale = (highest - lowest) / STEPS
    if not SMALLEST_SCALE < scale < math.inf:  # values that are not finite make the result NaN
        empty = torch.zeros_like(x, dtype=torch.uint8)
        return empty, 1.0 if scale <= SMALLEST_SCALE else math.nan, 0
    zero = math.ceil(-lowest / scale)
    offset = torch.tensor(ROUNDING + zero)
    shifted = torch.add(offset, x, alpha=1 / scale, out=x if spare else None)
    # This is three times as fast as a conversion from float32.
    return shifted.view(torch.int32).to(torch.uint8), scale, zero


class Int8ResidualBlock(nn.Module):
    """A trained ``ResidualBlock`` with 8-bit integer convolutions; on the CPU only."""

    def __init__(self, block: ResidualBlock) -> None:
        """Take the weights of ``block``."""
        super().__init__()
        self._first, self._second, self._third = (
            Int8Convolution(layer) for layer in block.layers if isinstance(layer, nn.Conv2d)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 N x C x H x W, channels_last, to the same."""
        inner = functional.leaky_relu_(self._first(x), LEAKY_SLOPE)
        inner = functional.leaky_relu_(self._second(inner, spare=True), LEAKY_SLOPE)
        return self._third(inner, spare=True).add_(x)


def to_int8(body: nn.Sequential) -> nn.Sequential:
    """Return ``body`` (trained, CPU, float32) with its residual blocks in int8."""
    return nn.Sequential(*(
        Int8ResidualBlock(layer) if isinstance(layer, ResidualBlock) else layer for layer in body
    ))


@functools.cache
def int8_is_exact() -> bool:
    """
    Return whether this CPU adds up 8-bit products correctly.

    Without VNNI, pairs of products are added in 16 bits, which overflow for large products.
    """
    convolution = nn.Conv2d(16, 16, 3, padding=1)
    nn.init.ones_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    ones = torch.ones(1, 16, 8, 8).to(memory_format=torch.channels_last)
    try:
        sums = Int8Convolution(convolution)(ones)
    except (AttributeError, RuntimeError):  # not on this processor, or no longer in PyTorch
        return False
    return bool(torch.allclose(sums[..., 1:-1, 1:-1], torch.tensor(16 * 9.0)))
