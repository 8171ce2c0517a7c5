"""
Side information: what it is, and how ``Fusion`` joins it with the frame for the residual blocks.

A camera delivers video. The restored previous frame, warped onto the current frame, shows what rain
or blur hides now. The path during the exposure says how Wiener's filter can undo a blur without a
network. ``Fusion`` learns how much of both to take at each place.

This is not from the paper, which restores single images. The idea to feed the last output back is
from Sajjadi et al., Frame-Recurrent Video Super-Resolution, CVPR 2018.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from iov_restore_ros.model.wiener import CELL, deconvolve

MOMENTS = 9  # samples of a path, evenly spaced over the exposure; an odd number
BENT = tuple(quarter * (MOMENTS - 1) // 4 for quarter in (1, 2, 3))  # moments that the cues hold
CUES = 9 + 2 * len(BENT)  # planes of Evidence.cues
MOTION_UNIT = 16.0  # a motion of so many pixels is 1 in Evidence.cues
ASSUMED_SHUTTER = 0.7  # open share of the frame time if it is unknown; also in training
CHANNELS = 32
SEEN = 3 * 3 * CELL**2 + CHANNELS  # input planes of the residual blocks, at a quarter of the size
BRIGHTER = 20.0  # logits for a pixel that is brighter by 1 than in the previous frame
RAISED_REACH = 3  # cells around a cell: `darkest` sees two, `enlarge` one more
LITTLE = -1.0  # initial logit of the share of the previous frame
LUMA = 0.299, 0.587, 0.114  # of R, G, B (ITU-R BT.601)
# Initial share of the change by Wiener's filter along the path of a gyroscope. 1 is best where the
# path is right. From 0, this value took longer to learn than all others.
BELIEVED = 0.6
UNDONE_AT_FIRST = 0.3  # the same along a straight path from the optical flow


class Evidence(NamedTuple):
    """
    The side information of a batch of frames N x 3 x H x W; ``no_evidence`` makes an empty one.

    ``before``: float32 N x 3 x H x W, RGB, 0..1: the previous frame, warped onto this frame. It is
    the restored frame, or the received one if it was not restored.

    ``undone``: float32 N x 3 x H x W, RGB: the change of the frame by Wiener's filter.

    ``cues``: float32 N x CUES x ceil(H / 4) x ceil(W / 4). For each cell of 4x4 pixels, in order:

    - whether ``before`` shows it: 1, or 0 without a previous frame or where the flow leaves it;
    - how well the forward and the backward flow agree, 0..1;
    - how similar both frames are there, 0..1;
    - x and y of the motion during the exposure, from the optical flow, in ``MOTION_UNIT``;
    - what ``path_cues`` returns;
    - whether the open share of the frame time is known, 0 or 1;
    - whether the path is from a gyroscope, 0 or 1.
    """

    before: Tensor
    undone: Tensor
    cues: Tensor


def no_evidence(image: Tensor) -> Evidence:
    """Return the ``Evidence`` of ``image`` (N x 3 x H x W) without any side information."""
    count, _, height, width = image.shape
    return Evidence(
        image,
        image.new_zeros(count, 3, height, width),
        image.new_zeros(count, CUES, -(-height // CELL), -(-width // CELL)),
    )


def enlarge(cells: Tensor, height: int, width: int) -> Tensor:
    """Interpolate cells, N x C x ceil(H / 4) x ceil(W / 4), to pixels: N x C x H x W."""
    rows, columns = cells.shape[-2:]
    return functional.interpolate(
        cells, (rows * CELL, columns * CELL), mode='bilinear', align_corners=False
    )[..., :height, :width]


def move(image: Tensor, flow: Tensor) -> Tensor:
    """
    Warp ``image`` (N x C x H x W): each pixel is sampled at its position plus ``flow``.

    ``flow`` is N x 2 x H x W in pixels, x before y. Positions outside of the image get the value of
    its border.
    """
    height, width = image.shape[-2:]
    y = torch.arange(height, device=image.device, dtype=torch.float32).view(1, -1, 1)
    x = torch.arange(width, device=image.device, dtype=torch.float32).view(1, 1, -1)
    grid = torch.stack([
        (2 * (x + flow[:, 0]) + 1) / width - 1, (2 * (y + flow[:, 1]) + 1) / height - 1,
    ], -1)
    return functional.grid_sample(image, grid, padding_mode='border', align_corners=False)


def luma(image: Tensor) -> Tensor:
    """Return the luma of ``image`` (N x 3 x ...) as N x 1 x ...."""
    red, green, blue = LUMA
    return red * image[:, :1] + green * image[:, 1:2] + blue * image[:, 2:]


def chord(path: Tensor) -> Tensor:
    """Return the chord of a path N x MOMENTS x 2 x ..., from its end to its start: N x 2 x ...."""
    return path[:, 0] - path[:, -1]


def path_cues(path: Tensor) -> Tensor:
    """
    Return the cues of ``path`` (N x MOMENTS x 2 x ...) for the network, N x (CUES - 7) x ....

    They are its chord, and its offset from the chord after one, two and three quarters of the
    exposure. All are in ``MOTION_UNIT``, x before y.
    """
    straight = chord(path)
    bent = [
        path[:, moment] - path[:, 0] + straight * (moment / (MOMENTS - 1)) for moment in BENT
    ]
    return torch.cat([straight, *bent], 1) / MOTION_UNIT


def make_evidence(
    image: Tensor, before: Tensor, displacement: Tensor, trust: Tensor,
    blurring: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Evidence:
    """
    Return the ``Evidence`` of ``image`` (N x 3 x H x W), given the previous frame (same shape).

    ``displacement`` (N x 2 x ceil(H / 4) x ceil(W / 4), pixels) leads from each cell to its place
    in ``before``. ``trust`` (N x 3 x the same size) holds the first three cues.

    ``blurring`` holds the motion during the exposure (N x 2 x the same size), the path (N x 2
    MOMENTS x the same size, x and y of each moment) for ``deconvolve``, and the last two cues
    (N x 2 x 1 x 1). It is None if the blur does not matter.
    """
    height, width = image.shape[-2:]
    moved = move(before, enlarge(displacement, height, width))
    if blurring is None:
        undone = torch.zeros_like(image)
        cues = displacement.new_zeros(len(displacement), CUES - 3, *displacement.shape[-2:])
    else:
        motion, planes, told = blurring
        path = planes.unflatten(1, (MOMENTS, 2))
        present = trust[:, :1].amax((-2, -1), keepdim=True)
        undone = deconvolve(image, path, prior=present * moved) - image
        cues = torch.cat([
            motion / MOTION_UNIT, path_cues(path), told.expand(-1, -1, *displacement.shape[-2:]),
        ], 1)
    return Evidence(moved, undone, torch.cat([trust, cues], 1))


def darkest(image: Tensor) -> Tensor:
    """
    Return the luma of the darkest pixels around each cell of ``image`` (N x 3 x H x W).

    The result is N x 1 x H/4 x W/4, 0..1. H and W are multiples of 4.
    """
    return _about(-functional.max_pool2d(-luma(image), CELL))


def _about(cells: Tensor) -> Tensor:
    """Return the mean of a plane over 5x5 cells; over fewer at the border."""
    return functional.avg_pool2d(cells, 5, 1, 2, count_include_pad=False)


def _by_pixel(cells: Tensor, planes: int) -> Tensor:
    """Reshape a result of ``pixel_unshuffle`` to N x planes x 16 x H x W."""
    return cells.unflatten(1, (planes, CELL**2))


class Fusion(nn.Module):
    """
    Fuses a frame with its ``Evidence`` to a better initial frame, and to features of both.

    Each pixel takes a share of the previous frame, and a share of the change by Wiener's filter. A
    few convolutions at a quarter of the size compute these shares.
    """

    def __init__(self) -> None:
        super().__init__()
        seen = 3 * 3 * CELL**2 + CUES
        self.encode = nn.Sequential(
            nn.Conv2d(seen, CHANNELS, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.weigh = nn.Conv2d(CHANNELS, 2 * CELL**2, 3, padding=1)
        self.brighter = nn.Parameter(torch.ones(()))
        self.raised = nn.Parameter(torch.ones(()))
        self.believed = nn.Parameter(torch.full((), BELIEVED))

    def forward(self, image: Tensor, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """
        Return the better frame (float32 N x 3 x H x W), and N x SEEN x H/4 x W/4 for the blocks.

        ``image`` is float32 N x 3 x H x W. H and W are multiples of 4. The convolutions run in the
        data type of their weights, and the features have that type too.
        """
        dtype = self.weigh.weight.dtype
        # Rain hides what is dark, and makes nothing darker. Without this step, where the flow
        # fails, a previous frame that is too dark was used again and again, and got ever darker.
        too_dark = functional.relu(darkest(image) - darkest(evidence.before))
        raised = self.raised.float() * enlarge(too_dark, *image.shape[-2:])
        # All of this works on cells of 4x4 pixels. Their channels are colour times pixel.
        here, before, undone = (
            functional.pixel_unshuffle(planes, CELL)
            for planes in (image, evidence.before + raised, evidence.undone)
        )
        change = before - here
        # The input is differences from the frame, and the frame minus mid-grey. So all are small.
        features = self.encode(torch.cat([here - 0.5, change, undone, evidence.cues], 1).to(dtype))
        share, undoing = self.weigh(features).float().chunk(2, 1)
        # Rain is brighter than what it hides, and thin. A change of the light is wide.
        brighter = -luma(_by_pixel(change, 3)).flatten(1, 2)
        wide = _about(brighter.mean(1, keepdim=True))
        share = torch.sigmoid(share + BRIGHTER * self.brighter.float() * (brighter - wide))
        taken = share * evidence.cues[:, :1]
        undoing = undoing + self.believed.float() * evidence.cues[:, -1:]
        better = here + (
            taken.unsqueeze(1) * _by_pixel(change, 3) + undoing.unsqueeze(1) * _by_pixel(undone, 3)
        ).flatten(1, 2)
        pair = torch.cat([better - 0.5, here - better, undone], 1)
        return functional.pixel_shuffle(better, CELL), torch.cat([pair.to(dtype), features], 1)

    def initialise(self) -> None:
        """Set initial shares, the same at all places; call it after the random initialisation."""
        with torch.no_grad():
            self.weigh.weight *= 0.1
            assert self.weigh.bias is not None
            self.weigh.bias.fill_(LITTLE)
            self.weigh.bias[CELL**2 :] = UNDONE_AT_FIRST
