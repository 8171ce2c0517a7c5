"""
What is known beside the frame itself, and how it is put together before the residual blocks.

A camera delivers video. The frame before, restored and moved onto this one, shows what rain or
blur hides now; and the path that the picture took while the shutter was open says how to undo a
blur, without a network: by Wiener's filter, and where the path is straight, of L pixels, because it
makes of a sharp line x(t) the line y(t) with y'(t) = (x(t + L/2) - x(t - L/2)) / L, and so
x(t) = x(t + L) - L y'(t + L/2), and the same from the other side. `along` holds these terms, with y
for the unknown x(t +- L). How much of which to take where is what ``Fusion`` learns.

Not from the paper, which restores single pictures. Feeding the last output back is from Sajjadi et
al., Frame-Recurrent Video Super-Resolution, CVPR 2018.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from iov_restore_ros.model.wiener import CELL, deconvolve

MOMENTS = 9  # of a path, evenly spaced over the exposure, an odd number
TAPS = 4  # planes of Evidence.along that are luma; the other three are colours
ALONG = TAPS + 3  # planes of Evidence.along
BENT = tuple(quarter * (MOMENTS - 1) // 4 for quarter in (1, 2, 3))  # moments that are told apart
CUES = 9 + 2 * len(BENT)  # planes of Evidence.cues
MOTION_UNIT = 16.0  # pixels of motion that are 1 in Evidence.cues
ASSUMED_SHUTTER = 0.7  # share of the time that it is open, where nobody knows; so in training
CHANNELS = 32
SEEN = 3 * 3 * CELL**2 + CHANNELS  # planes of a quarter of the size for the blocks
BRIGHTER = 20.0  # logits for a pixel that is brighter by 1 than before
RAISED_REACH = 3  # cells about one: `darkest` sees two, `enlarge` one more
LITTLE = -1.0  # logit of the share of the frame before, at first
LUMA = 0.299, 0.587, 0.114  # of R, G, B (ITU-R BT.601)
# Of what Wiener's filter changes along the path of a gyroscope, at first: 1 is best where the path
# is right. Learnt from nothing it took longer than all else.
BELIEVED = 0.6
TAPS_AT_FIRST = 0.3  # of each, less than the half that the formula above says, which knows no noise


class Evidence(NamedTuple):
    """
    What is known beside a batch of frames N x 3 x H x W; see ``no_evidence`` for nothing.

    ``before``: float32 N x 3 x H x W, RGB, 0..1: the frame before, as it was restored (as it
    was received where it was not), each pixel moved to where this frame has it.
    ``along``: float32 N x ALONG x H x W, what ``sample_along`` returns.
    ``cues``: float32 N x CUES x ceil(H / 4) x ceil(W / 4), for each cell of 4x4 pixels: whether
    ``before`` shows it (0 where there is none, or the flow leads out of it; 1); how well the flows
    there and back agree (0..1); how alike both frames are there (0..1); x and y of the motion while
    the shutter was open that the flow tells of, in ``MOTION_UNIT``; what ``path_cues`` returns; and
    whether the share of the time that the shutter was open is known, and whether the path comes
    from a gyroscope (0 or 1).
    """

    before: Tensor
    along: Tensor
    cues: Tensor


def no_evidence(image: Tensor) -> Evidence:
    """Return the ``Evidence`` beside ``image`` (N x 3 x H x W) when nothing is known."""
    count, _, height, width = image.shape
    return Evidence(
        image,
        image.new_zeros(count, ALONG, height, width),
        image.new_zeros(count, CUES, -(-height // CELL), -(-width // CELL)),
    )


def enlarge(cells: Tensor, height: int, width: int) -> Tensor:
    """Return values of cells, N x C x ceil(H / 4) x ceil(W / 4), for each pixel: N x C x H x W."""
    rows, columns = cells.shape[-2:]
    return functional.interpolate(
        cells, (rows * CELL, columns * CELL), mode='bilinear', align_corners=False
    )[..., :height, :width]


def move(image: Tensor, flow: Tensor) -> Tensor:
    """
    Return ``image`` (N x C x H x W), each pixel taken from ``flow`` (N x 2 x H x W) away.

    The flow is in pixels, x before y; what lies outside of the image is taken from its border.
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
    """Return how far N x MOMENTS x 2 x ... lies from its end back to its beginning: N x 2 x ...."""
    return path[:, 0] - path[:, -1]


def path_cues(path: Tensor) -> Tensor:
    """
    Return what of ``path`` (N x MOMENTS x 2 x ...) is told the network, N x (CUES - 7) x ....

    In ``MOTION_UNIT``, x before y: its chord, and how far from the chord it is after one, two and
    three quarters of the exposure.
    """
    straight = chord(path)
    bent = [
        path[:, moment] - path[:, 0] + straight * (moment / (MOMENTS - 1)) for moment in BENT
    ]
    return torch.cat([straight, *bent], 1) / MOTION_UNIT


def sample_along(image: Tensor, motion: Tensor, path: Tensor) -> Tensor:
    """
    Return ``Evidence.along``, N x ALONG x H x W: ``image`` along the way that it took.

    ``image`` is N x 3 x H x W, ``motion`` N x 2 x ceil(H / 4) x ceil(W / 4) a straight one, pixels,
    and ``path`` N x MOMENTS x 2 x the same, as ``deconvolve`` takes it. With L the length of the
    motion and y the luma: y one L ahead and behind, less y here; L times its slope half an L ahead
    (negative) and behind; and what Wiener's filter makes of the image along the path, less the
    image: R, G, B.
    """
    grey = luma(image)
    edged = functional.pad(grey, (1, 1, 1, 1), mode='replicate')
    across = (edged[..., 1:-1, 2:] - edged[..., 1:-1, :-2]) / 2
    down = (edged[..., 2:, 1:-1] - edged[..., :-2, 1:-1]) / 2
    displacement = enlarge(motion, *image.shape[-2:])
    # Times L, which is the length of the displacement.
    slope = across * displacement[:, :1] + down * displacement[:, 1:]
    return torch.cat([
        move(grey, displacement) - grey, move(grey, -displacement) - grey,
        -move(slope, displacement / 2), move(slope, -displacement / 2),
        deconvolve(image, path) - image,
    ], 1)


def make_evidence(
    image: Tensor, before: Tensor, displacement: Tensor, trust: Tensor,
    blurring: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Evidence:
    """
    Return the ``Evidence`` beside ``image`` (N x 3 x H x W) from the frame before (the same shape).

    ``displacement`` (N x 2 x ceil(H / 4) x ceil(W / 4), pixels) leads from each cell to where it
    was in ``before``; ``trust`` (N x 3 x the same) holds the first three cues. ``blurring`` is
    motion (N x 2 x the same) and path (N x 2 MOMENTS x the same, x and y of each moment) as
    ``sample_along`` takes them, and the last two cues (N x 2 x 1 x 1); None where the blur is of no
    interest.
    """
    height, width = image.shape[-2:]
    flow = enlarge(displacement, height, width)
    if blurring is None:
        along = image.new_zeros(len(image), ALONG, height, width)
        cues = displacement.new_zeros(len(displacement), CUES - 3, *displacement.shape[-2:])
    else:
        motion, planes, told = blurring
        path = planes.unflatten(1, (MOMENTS, 2))
        along = sample_along(image, motion, path)
        cues = torch.cat([
            motion / MOTION_UNIT, path_cues(path), told.expand(-1, -1, *displacement.shape[-2:]),
        ], 1)
    return Evidence(move(before, flow), along, torch.cat([trust, cues], 1))


def darkest(image: Tensor) -> Tensor:
    """
    Return how dark the darkest pixels are about each cell of ``image`` (N x 3 x H x W), 0..1.

    N x 1 x H/4 x W/4, luma; H and W are multiples of 4.
    """
    return _about(-functional.max_pool2d(-luma(image), CELL))


def _about(cells: Tensor) -> Tensor:
    """Return the mean of a plane over 5x5 cells, fewer at the border."""
    return functional.avg_pool2d(cells, 5, 1, 2, count_include_pad=False)


def _by_pixel(cells: Tensor, planes: int) -> Tensor:
    """Return what ``pixel_unshuffle`` gave for so many planes as N x planes x 16 x H x W."""
    return cells.unflatten(1, (planes, CELL**2))


class Fusion(nn.Module):
    """
    Puts a frame and its ``Evidence`` together: a better frame to start from, and features of both.

    Each pixel takes a share of the frame before and of what Wiener's filter changes, and each cell
    of 4x4 a weight for each other plane along the path. They depend on what a few convolutions see
    at a quarter of the size.
    """

    def __init__(self) -> None:
        super().__init__()
        seen = 2 * 3 * CELL**2 + ALONG * CELL**2 + CUES
        self.look = nn.Sequential(
            nn.Conv2d(seen, CHANNELS, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.weigh = nn.Conv2d(CHANNELS, 2 * CELL**2 + TAPS, 3, padding=1)
        self.brighter = nn.Parameter(torch.ones(()))
        self.raised = nn.Parameter(torch.ones(()))
        self.believed = nn.Parameter(torch.full((), BELIEVED))

    def forward(self, image: Tensor, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """
        Return the better frame (float32 N x 3 x H x W), and N x SEEN x H/4 x W/4 for the blocks.

        ``image`` is float32 N x 3 x H x W; H and W are multiples of 4. The convolutions run in the
        data type of their weights, which the features have too.
        """
        dtype = self.weigh.weight.dtype
        # Rain hides what is dark, it does not make it darker: without this a frame before that is
        # too dark was taken again and again where the flow fails, and got darker each time.
        too_dark = functional.relu(darkest(image) - darkest(evidence.before))
        raised = self.raised.float() * enlarge(too_dark, *image.shape[-2:])
        # All of it happens in cells of 4x4 pixels: there the channels are colour by pixel.
        here, before, along = (
            functional.pixel_unshuffle(planes, CELL)
            for planes in (image, evidence.before + raised, evidence.along)
        )
        change = before - here
        # Differences from the frame, and that about mid-grey: so all of it is small.
        features = self.look(torch.cat([here - 0.5, change, along, evidence.cues], 1).to(dtype))
        weights = self.weigh(features).float()
        share, taps, undoing = weights.split([CELL**2, TAPS, CELL**2], 1)
        # Rain is brighter than what it hides, and thin: a change of the light is wide.
        brighter = -luma(_by_pixel(change, 3)).flatten(1, 2)
        wide = _about(brighter.mean(1, keepdim=True))
        share = torch.sigmoid(share + BRIGHTER * self.brighter.float() * (brighter - wide))
        taken = share * evidence.cues[:, :1]
        undoing = undoing + self.believed.float() * evidence.cues[:, -1:]
        samples, undone = _by_pixel(along, ALONG).split([TAPS, 3], 1)
        better = here + (
            taken.unsqueeze(1) * _by_pixel(change, 3)
            + (taps.unsqueeze(2) * samples).sum(1, keepdim=True)
            + undoing.unsqueeze(1) * undone
        ).flatten(1, 2)
        pair = torch.cat([better - 0.5, here - better, undone.flatten(1, 2)], 1)
        return functional.pixel_shuffle(better, CELL), torch.cat([pair.to(dtype), features], 1)

    def initialise(self) -> None:
        """After random weights: begin with some of all, the same everywhere."""
        with torch.no_grad():
            self.weigh.weight *= 0.1
            assert self.weigh.bias is not None
            self.weigh.bias.fill_(LITTLE)
            self.weigh.bias[CELL**2 :] = TAPS_AT_FIRST  # also of what Wiener's filter changes
