"""
The generators: that of the article, that of its preprint, and a fast one for vehicles.

All of them map a degraded image to a restored one as ``restored = image + body(image)``
(the global skip connection of Fig. 3). They differ only in the body. `fast` also restores video: a
``Fusion`` before its body adds the side information.

Sources: B. Wei et al., "Dynamic scene deblurring and image de-raining based on generative
adversarial networks and transfer learning for Internet of vehicle", EURASIP JWCN 2021, Sec. 3.1
and 3.3.1 (`wei2021`), and its preprint, Sec. 3.3.1 (`wei2021_preprint`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from iov_restore_ros.model.fusion import CELL, SEEN, Evidence, Fusion, no_evidence

LEAKY_SLOPE = 0.2  # the paper names LeakyReLU, but gives no slope
SIZE_MULTIPLE = CELL  # every body works at a quarter of the height and width


class ResidualBlock(nn.Module):
    """
    Computes ``x + conv(act(conv(dropout(act(conv(x))))))``; act is LeakyReLU (Sec. 3.1, Fig. 2).

    It has three 3x3 convolutions of ``channels`` channels, and no normalisation.
    """

    def __init__(self, channels: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map N x channels x H x W to the same shape."""
        return self.layers(x).add_(x)


def conv_relu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Return the layers of CxSy-k: a ``kernel`` x ``kernel`` convolution, then ReLU."""
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), nn.ReLU(inplace=True)]


def upsample_conv_relu(inputs: int, outputs: int) -> list[nn.Module]:
    """Return the layers of UC3-k: nearest upsampling by 2, a 3x3 convolution, ReLU."""
    return [nn.Upsample(scale_factor=2, mode='nearest'), *conv_relu(inputs, outputs, 3)]


def transposed_conv_relu(inputs: int, outputs: int) -> list[nn.Module]:
    """Return the preprint's upsampling: a 3x3 transposed convolution of stride 2, ReLU."""
    return [
        nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=1, output_padding=1),
        nn.ReLU(inplace=True),
    ]


def wei2021_body() -> nn.Sequential:
    """C7S1-64, C3S2-128, C3S2-256, RB256x10, UC3-128, UC3-64, C7S1-3 with tanh (Sec. 3.3.1)."""
    return nn.Sequential(
        *conv_relu(3, 64, 7),
        *conv_relu(64, 128, 3, stride=2),
        *conv_relu(128, 256, 3, stride=2),
        *[ResidualBlock(256) for _ in range(10)],
        *upsample_conv_relu(256, 128),
        *upsample_conv_relu(128, 64),
        nn.Conv2d(64, 3, 7, padding=3),
        nn.Tanh(),
    )


def wei2021_preprint_body() -> nn.Sequential:
    """Build the preprint's variant: six residual blocks and transposed convolutions."""
    return nn.Sequential(
        *conv_relu(3, 64, 7),
        *conv_relu(64, 128, 3, stride=2),
        *conv_relu(128, 256, 3, stride=2),
        *[ResidualBlock(256) for _ in range(6)],
        *transposed_conv_relu(256, 128),
        *transposed_conv_relu(128, 64),
        nn.Conv2d(64, 3, 7, padding=3),
        nn.Tanh(),
    )


def fast_body() -> nn.Sequential:
    """
    Build a body at 1/16 of the cost: ten of the paper's blocks with 64 channels.

    Pixel-unshuffle by 4 (in ``Fusion``) replaces the wide layers at full resolution, which have
    most of the paper's cost. There is no dropout: 64 channels have none to spare, and nothing
    overfits here.
    """
    return nn.Sequential(
        nn.Conv2d(SEEN, 64, 3, padding=1),
        *[ResidualBlock(64, dropout=0.0) for _ in range(10)],
        nn.Conv2d(64, 48, 3, padding=1),
        nn.PixelShuffle(CELL),
    )


@dataclass(frozen=True)
class Preset:
    """The definition of a generator. All lists of generators come from ``PRESETS``."""

    body: Callable[[], nn.Sequential]
    evidence: bool  # whether it takes side information, for video
    memory: int  # most bytes of a pass per pixel, float32: benchmarks/memory.py


PRESETS = {
    'wei2021': Preset(wei2021_body, evidence=False, memory=800),
    'wei2021_preprint': Preset(wei2021_preprint_body, evidence=False, memory=550),
    'fast': Preset(fast_body, evidence=True, memory=290),
}
VIDEO = tuple(name for name, preset in PRESETS.items() if preset.evidence)


class Generator(nn.Module):
    """A body with the global skip connection around it, for images of any size."""

    def __init__(self, preset: str) -> None:
        """
        Build the generator ``preset`` with random weights.

        Raises ``ValueError`` for a name that is not in ``PRESETS``.
        """
        super().__init__()
        if preset not in PRESETS:
            raise ValueError(f'unknown model {preset!r}: choose one of {", ".join(PRESETS)}')
        self.preset = preset
        self.fusion = Fusion() if PRESETS[preset].evidence else None
        self.body = PRESETS[preset].body()

    def forward(self, image: Tensor, evidence: Evidence | None = None) -> Tensor:
        """
        Restore ``image``: float32, N x 3 x H x W, RGB, 0..1, any H and W from 1 up.

        ``evidence`` is its side information; None means that there is none. Generators that are not
        in ``VIDEO`` ignore it.

        Returns float32 of the same shape, not clamped: training needs the gradient outside of 0..1.
        The body runs in the data type of its weights. The skip connection stays in float32. So
        bfloat16 rounds only the correction.
        """
        height, width = image.shape[-2:]
        bottom, right = -height % SIZE_MULTIPLE, -width % SIZE_MULTIPLE

        def pad(pixels: Tensor) -> Tensor:
            if not bottom and not right:
                return pixels
            # Replicate: reflection is undefined for images that are narrower than the padding.
            return functional.pad(pixels, (0, right, 0, bottom), mode='replicate')

        padded = pad(image)
        if self.fusion is None:
            # Subtract mid-grey: with 0..1, deblurring took several times as long to learn.
            start, seen = padded, (padded - 0.5).to(next(self.body.parameters()).dtype)
        else:
            before, undone, cues = evidence or no_evidence(image)
            start, seen = self.fusion(padded, Evidence(pad(before), pad(undone), cues))
        return (start + self.body(seen).to(torch.float32))[..., :height, :width]

    def initialise(self) -> None:
        """
        Set random weights for training: He initialisation, with small last convolutions.

        With the default of PyTorch the signal fades in every block. With large last convolutions
        the output is noise. With these weights an image passes almost unchanged, and every layer
        learns from the start.
        """
        last = [[m for m in self.body if isinstance(m, nn.Conv2d)][-1]]
        for block in self.body:
            if isinstance(block, ResidualBlock):
                last += [m for m in block.layers if isinstance(m, nn.Conv2d)][-1:]
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            for convolution in last:
                convolution.weight *= 0.1
            last[0].weight *= 0.1
        if self.fusion is not None:
            self.fusion.initialise()
