"""
A finder of the veil of fog and far rain, from a thumbnail of the whole frame.

A veil is a property of the whole picture: I = J t + A (1 - t). J is the scene, A is the airlight
(one colour), and t is the transmission. In a crop, a veil looks like a scene without black.
``Veil`` finds t and A, and the probability that there is a veil.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

PLANES = 10  # of `pictures.thumbnail.describe`
WIDTHS = 16, 32, 64, 80  # channels at 1/2, 1/4, 1/8 and 1/16 of the size of the cells
THIN = 1.5  # initial logit of the transmission: from nearly 1 it never learnt a veil
LIGHT = 1.4  # initial logit of the airlight


class Seen(NamedTuple):
    """
    What ``Veil`` finds in N frames.

    ``through``: float32 N x rows x columns, 0..1, the transmission.
    ``light``: N x 3, RGB, 0..1, the airlight.
    ``sure``: N, the logit that there is a veil.
    """

    through: Tensor
    light: Tensor
    sure: Tensor


class Veil(nn.Module):
    """A small U-Net over cells. Its bottom adds features of the whole picture."""

    def __init__(self) -> None:
        super().__init__()
        steps = (PLANES, *WIDTHS)
        self.down = nn.ModuleList(
            _convolutions(inputs, outputs, 3, 2)
            for inputs, outputs in pairwise(steps)
        )
        self.whole = nn.Linear(2 * WIDTHS[-1], WIDTHS[-1])
        self.up = nn.ModuleList(
            _convolutions(below + beside, beside, 1)
            for beside, below in pairwise(WIDTHS)
        )
        self.through = _convolution(WIDTHS[0], 1, 3)
        self.light = nn.Linear(2 * WIDTHS[-1], 3)
        self.sure = nn.Linear(2 * WIDTHS[-1], 1)

    def forward(self, described: Tensor) -> Seen:
        """Map whole frames, N x PLANES x rows x columns (`pictures.thumbnail.describe`)."""
        maps = [described]
        for step in self.down:
            maps.append(step(maps[-1]))
        seen = maps.pop()
        whole = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1)
        seen = seen + self.whole(whole)[..., None, None]
        for step, beside in zip(reversed(self.up), reversed(maps[1:]), strict=True):
            seen = step(torch.cat([_enlarge(seen, beside.shape[-2:]), beside], 1))
        through = _enlarge(self.through(seen), described.shape[-2:])[:, 0]
        return Seen(
            torch.sigmoid(through + THIN), torch.sigmoid(self.light(whole) + LIGHT),
            self.sure(whole)[:, 0],
        )


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    # With zero padding, the veil got thinner towards the borders.
    pad = kernel // 2
    return nn.Conv2d(inputs, outputs, kernel, stride, pad, padding_mode='replicate')


def _convolutions(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, outputs, kernel, stride), nn.LeakyReLU(0.1),
        _convolution(outputs, outputs, 3), nn.LeakyReLU(0.1),
    )


def _enlarge(planes: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    return functional.interpolate(planes, tuple(size), mode='bilinear', align_corners=False)
