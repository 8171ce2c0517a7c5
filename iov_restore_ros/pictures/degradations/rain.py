"""
Rain: streaks, mist, and water on the lens.

``rain`` degrades single pictures. ``shower`` degrades consecutive frames with continuing rain.

Sources: Wei et al. 2021, Eq. 8 (streaks). The mist is the veil of far rain (Sec. 2.5). The paper's
introduction names water on the lens as a problem of vehicles.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from iov_restore_ros.pictures.degradations.draw import (
    normal,
    per_sample,
    sensor_noise,
    smooth_field,
    uniform,
)
from iov_restore_ros.pictures.degradations.lens import drops, smears

LAYERS = 5
CROSSING = 0.2  # share of the showers with crossing layers, as in gusts and behind vehicles
# Share of the showers with a veil. With a tenth the generator removed no veil. With this share it
# removed part of the veil, but darkened scenes without a veil and without black, which look veiled
# (fast_derain.md).
WITH_VEIL = 0.4
# Mist and water on the lens stay in all frames. They teach nothing about the use of the history,
# and where present they make up half of the loss.
WITH_MIST = 0.3  # share of the showers that may have mist
ON_LENS = 0.25  # share of the showers that may wet the lens
OPAQUE = 0.3  # share of the showers whose streaks hide the scene instead of adding light


def rain(sharp: Tensor, strength: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """
    Add rain: streaks W by Y = X + W (Eq. 8), mist, and drops and smears on the lens.

    Returns (rainy, target), both of the shape of ``sharp``; the target is ``sharp`` itself.
    ``strength`` is N values from 0 (untouched) to 1, see ``draw_strength``.
    """
    on = per_sample(strength)
    rainy = mist(sharp, strength, rng)
    rainy = (rainy + streaks(rainy, strength, rng)).clamp(0, 1)
    rainy = smears(drops(rainy, strength, rng), strength, rng)
    rainy = torch.where(on > 0, rainy, sharp)
    return sensor_noise(rainy, strength, rng), sharp


def shower(
    sharp: Tensor, strength: float, rng: torch.Generator, fall: Tensor | None = None
) -> Tensor:
    """
    Add continuing rain to T consecutive frames, T x 3 x H x W.

    The mist and the water on the lens are the same in every frame. ``fall`` is the streaks of each
    frame, T x 1 x H x W, 0..1; None draws them. In some showers far rain veils the whole frame,
    with a vertical gradient. In some, the streaks brighten bright pixels only a little. Returns the
    shape of ``sharp``.
    """
    on = torch.full((1,), strength, device=sharp.device)
    stacked = sharp.reshape(1, -1, *sharp.shape[-2:])  # as channels, so all frames get the same
    wet = mist(stacked, on, rng) if uniform(1, rng) < WITH_MIST else stacked
    if uniform(1, rng) < WITH_VEIL:
        slope = 0.6 * (2 * uniform(1, rng) - 1)
        rows = torch.linspace(1, -1, sharp.shape[-2], device=sharp.device).view(-1, 1)
        veil = strength * (0.05 + 0.2 * uniform(1, rng)) * (1 + slope * rows)
        wet = wet + veil * (0.5 + 0.45 * uniform(1, rng) - wet)
    if fall is None:
        fall = streaks(stacked, on, rng, len(sharp)).view(-1, 1, *sharp.shape[-2:])
    else:
        fall = strength * fall
    wet = wet.view_as(sharp)
    if uniform(1, rng) < OPAQUE:
        light = 0.6 + 0.4 * uniform(1, rng)
        wet = wet + 1.5 * fall * (light - wet).clamp(min=0)
    else:
        wet = wet + fall
    wet = wet.clamp(0, 1).view_as(stacked)
    if uniform(1, rng) < ON_LENS:
        wet = smears(drops(wet, on, rng), on, rng)
    return sensor_noise(wet, on, rng).view_as(sharp)


def draw_fall(size: tuple[int, int], times: int, seed: int) -> np.ndarray:
    """
    Return the streaks of a small picture of ``size`` (height, width); float32, 0..1.

    The streaks are drawn ``times`` as large and then shrunk.
    """
    height, width = size
    large = torch.zeros(1, 3, times * height, times * width)
    fall = streaks(large, torch.ones(1), torch.Generator().manual_seed(seed))[0, 0].numpy()
    return cv2.resize(fall, (width, height), interpolation=cv2.INTER_AREA)


def streaks(
    image: Tensor, strength: Tensor, rng: torch.Generator, frames: int = 1
) -> Tensor:
    """
    Return W of Eq. 8, N x ``frames`` x H x W: layers of streaks at different depths.

    Consecutive frames have the same wind and the same sizes of streaks, but different drops. A
    layer is a set of random points convolved with one streak, on a torus (by FFT). Layers share the
    wind and differ in depth: near streaks are long, thick, bright and rare. A third of the samples
    is light rain, a third heavy rain, and a third a downpour that hides half of the picture.
    """
    count, _, height, width = image.shape
    kind = uniform(count, rng)
    light, downpour = kind < 1 / 3, kind > 2 / 3
    wind = 0.3 * normal(count, rng)  # radians from vertical
    gusts = 0.03 + 0.15 * uniform(count, rng).pow(2)
    crossing = uniform(count, rng) < CROSSING
    gusts = torch.where(crossing, 0.2 + 0.4 * uniform(count, rng), gusts)
    length = 8 + 60 * uniform(count, rng)
    brightness = torch.where(downpour, 0.15 + 0.5 * uniform(count, rng),
                             0.1 + 0.6 * uniform(count, rng))
    covered = torch.where(light, 0.04 * uniform(count, rng), 0.02 + 0.1 * uniform(count, rng))
    covered = torch.where(downpour, 0.06 + 0.2 * uniform(count, rng), covered)
    y = torch.fft.fftfreq(height, 1 / height, device=image.device).view(1, -1, 1)
    x = torch.fft.fftfreq(width, 1 / width, device=image.device).view(1, 1, -1)
    total = torch.zeros(count, frames, height, width, device=image.device)
    for _ in range(LAYERS):
        near = (0.5 + uniform(count, rng)).view(-1, 1, 1)
        angle = (wind + gusts * normal(count, rng)).view(-1, 1, 1)
        thickness = near * (0.5 + 1.3 * uniform(count, rng).pow(2)).view(-1, 1, 1)
        along = (x * torch.sin(angle) + y * torch.cos(angle)).abs()
        across = (x * torch.cos(angle) - y * torch.sin(angle)).abs()
        hard = (1.5 + 6 * uniform(count, rng)).view(-1, 1, 1)
        streak = torch.sigmoid(near * length.view(-1, 1, 1) / 2 - along)
        streak = streak * torch.sigmoid(hard * (thickness - across))
        density = covered.view(-1, 1, 1) / near / streak.sum((1, 2), keepdim=True)
        points = (uniform(tuple(total.shape), rng) < density.unsqueeze(1)).float()
        points *= 0.4 + 0.6 * uniform(tuple(total.shape), rng)
        spectrum = torch.fft.rfft2(points) * torch.fft.rfft2(streak).unsqueeze(1)
        layer = torch.fft.irfft2(spectrum, s=(height, width)).clamp(0, 1)
        total += per_sample(strength * brightness * near.flatten()) * layer
    return total


def mist(image: Tensor, strength: Tensor, rng: torch.Generator) -> Tensor:
    """Veil a third of the samples with a smooth, bright, uneven layer of mist."""
    count, _, height, width = image.shape
    present = uniform(count, rng) < 0.33
    amount = per_sample(strength * present * 0.35 * uniform(count, rng))
    cloud = (0.75 + 0.15 * smooth_field(count, 3, height, width, rng)).clamp(0, 1)
    light = per_sample(0.6 + 0.35 * uniform(count, rng))
    return image + amount * cloud * (light - image)
