"""
A finder of what lies on the glass before the lens.

What lies on the glass stays in its place in the picture while the scene moves. ``Glass`` finds how
much of each cell is covered by drops, dirt, a smear, or a passing wiper. Its input is planes of
cells of a whole frame (`video.glass.observe`).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

PLANES = 24  # of `video.glass.observe`
WIDTHS = 14, 28, 40  # channels at the size of the cells, at a half and at a quarter of it
RARE = -2.0  # initial logit that a cell is covered


class Glass(nn.Module):
    """A small U-Net that finds cells that look like a drop, and unlike all around them."""

    def __init__(self) -> None:
        super().__init__()
        here, half, quarter = WIDTHS
        self.begin = nn.ModuleList([_convolution(PLANES, here), _convolution(here, here)])
        self.shrink = nn.Conv2d(here, half, 4, 2, 1)
        self.middle = nn.ModuleList(_convolution(half, half, far) for far in (1, 2))
        self.shrink_more = nn.Conv2d(half, quarter, 4, 2, 1)
        self.far = nn.ModuleList(_convolution(quarter, quarter, far) for far in (1, 2, 4))
        self.join = _convolution(quarter + half, half)
        self.after = _convolution(half, half)
        self.narrow = nn.Conv2d(half, here, 1)
        self.end = nn.ModuleList([_convolution(2 * here, here), _convolution(here, 1)])

    def forward(self, planes: Tensor) -> Tensor:
        """
        Return for each cell the logit that it is covered, N x rows x columns.

        ``planes`` is float32 N x PLANES x rows x columns, see `video.glass.observe`. ``rows`` and
        ``columns`` are multiples of 4.
        """
        here = planes
        for step in self.begin:
            here = _bent(step(here))
        half = _bent(self.shrink(here))
        for step in self.middle:
            half = half + _bent(step(half))
        far = _bent(self.shrink_more(half))
        for step in self.far:
            far = far + _bent(step(far))
        joined = _bent(self.join(torch.cat([_enlarged(far, half), half], 1)))
        joined = joined + _bent(self.after(joined))
        both = torch.cat([_enlarged(self.narrow(joined), here), here], 1)
        first, last = self.end
        return last(_bent(first(both)))[:, 0] + RARE


def _convolution(inputs: int, outputs: int, far: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=far, dilation=far)


def _bent(values: Tensor) -> Tensor:
    return functional.leaky_relu(values, 0.1)


def _enlarged(values: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(
        values, like.shape[-2:], mode='bilinear', align_corners=False
    )
