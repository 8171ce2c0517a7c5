"""What happens to pixels on the device, whichever it is."""

import torch
from torch import Tensor

from iov_restore_ros.model import Generator


def restore_pixels(pixels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """
    Map uint8 N x H x W x 3, RGB, to the same, on the device: only uint8 crosses the bus.

    Returns with it whether the output was finite, as a tensor, so that nothing waits for it here.
    """
    # A permuted N x H x W x 3 is channels_last as it lies; the conversion keeps that.
    image = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)
    restored = generator(image)
    finite = torch.isfinite(restored.sum())
    restored = restored.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return restored.permute(0, 2, 3, 1).contiguous(), finite
