"""
What lies on the glass before the lens, seen from what stays in its place while the world moves.

From planes for cells of a whole frame (`video.glass.observe`) ``Glass`` finds how much of each cell
is covered by drops, dirt, a smear, or a wiper that passes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

PLANES = 14  # of `video.glass.observe`
WIDTH = 24  # channels
DILATIONS = 1, 2, 4, 8, 3, 1  # of the convolutions at half of the cells, one after another
RARE = -2.0  # logit of a cell that is covered, at first


class Glass(nn.Module):
    """A few convolutions at half of the cells, those with holes to see far; and a way around."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = nn.Conv2d(PLANES, WIDTH, 4, 2, 1)
        self.steps = nn.ModuleList(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=far, dilation=far) for far in DILATIONS
        )
        self.beside = nn.Conv2d(PLANES, WIDTH // 3, 3, padding=1)
        self.end = nn.Conv2d(WIDTH + WIDTH // 3, 1, 3, padding=1)

    def forward(self, planes: Tensor) -> Tensor:
        """
        Return the logit of each cell being covered, N x rows x columns, even numbers.

        ``planes`` is float32 N x PLANES x rows x columns, see `video.glass.observe`.
        """
        seen = _bent(self.begin(planes))
        for step in self.steps:
            seen = seen + _bent(step(seen))
        seen = functional.interpolate(
            seen, planes.shape[-2:], mode='bilinear', align_corners=False
        )
        both = torch.cat([seen, _bent(self.beside(planes))], 1)
        return self.end(both)[:, 0] + RARE


def _bent(values: Tensor) -> Tensor:
    return functional.leaky_relu(values, 0.1)
