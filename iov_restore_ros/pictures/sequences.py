"""
Training sequences by number: consecutive frames in continuing rain, or with motion blur.

The frames come from a photograph along a camera's path, or from footage. Some items are real pairs.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from iov_restore_ros.pictures.clips import Clips
from iov_restore_ros.pictures.degradations import DEGRADATIONS
from iov_restore_ros.pictures.degradations.blur import GAMMA
from iov_restore_ros.pictures.degradations.draw import sensor_noise
from iov_restore_ros.pictures.degradations.layers import StreakLayers
from iov_restore_ros.pictures.files import (
    DataError,
    Stills,
    cut_at_random,
    detail,
    flip_at_random,
    side_to_shrink,
    to_pictures,
    to_tensor,
)
from iov_restore_ros.pictures.footage import CROP_MARGIN, STRETCH, expose, flow_pace, shrink
from iov_restore_ros.pictures.moving import CANDIDATES, MovingScene
from iov_restore_ros.pictures.shaking import SAMPLES, STILL_BEFORE, ShakenCamera
from iov_restore_ros.tasks import TASKS

FASTEST_SHAKEN = 3.0  # pixels a frame, of motion that a gyroscope does not measure
MAX_BLUR = 30.0  # pixels
CLOSED = 0.03  # least exposure, as a share of the frame period
STANDING = 0.1  # share of the sequences with a camera at rest
LIGHT_CHANGES = 0.3
WITH_CUT = 0.03
# Share of the sequences whose scene has no black. Without such sequences the network took every
# scene without black for veiled by rain, also where it did not rain.
HAZY = 0.35
# Share of the sequences with stronger colours. Photographs have few colours so strong that light
# adds nothing to a channel. Bright streaks in front of such orange leave teal spots. It was not
# shown that this share helps against them.
VIVID = 0.2
ATTEMPTS = 20  # to find footage whose optical flow can be estimated
LINEAR_LIGHT = 0.75  # share of the shaken sequences averaged in linear light
COMPRESSED = 0.35  # share of the shaken sequences compressed as JPEG
QUALITY = 80, 98


@dataclass(frozen=True)
class Sources:
    """The sources of the frames: ``stills``, ``footage`` or both, and optional others."""

    stills: Stills | None = None
    footage: Clips | None = None
    footage_share: float = 0.35  # of the sequences, if there are stills too
    pairs: Clips | None = None
    pairs_share: float = 0.15
    pairs_shutter: float | None = None  # exposure, as a share of the frame period, if known
    layers: StreakLayers | None = None  # for two fifths of the showers


class Sequences(Dataset):
    """
    Sequence number i: T consecutive frames, degraded and sharp.

    An item is a function of (seed, i) alone: (degraded, sharp, shutter, rates, camera).

    - ``degraded`` and ``sharp``: uint8 T x 3 x size x size, RGB.
    - ``shutter``: a float32 scalar, the exposure as a share (0..1) of the frame period. It is NaN
      where unknown and 0 where the frames are sharp.
    - ``rates``: float32 S x 3, the samples of a gyroscope, see ``ShakenCamera.rates``.
    - ``camera``: float32 4: focal length, x and y of the principal point (pixels), frame period
      (s).

    ``rates`` and ``camera`` are all zeros without a gyroscope.
    """

    def __init__(
        self,
        task: str,
        sources: Sources,
        frames: int,
        size: int,
        count: int,
        seed: int,
        clean: float = 0.25,
        light: float = 0.1,
        shaken: float = 0.0,
    ) -> None:
        """
        Serve ``count`` sequences.

        The share ``clean`` is not degraded, and the share ``light`` is degraded a little. The share
        ``shaken`` of the blurred sequences has a shaking camera with a gyroscope.
        """
        self.task = TASKS[task]
        self.make = self._blurred if self.task.blur else self._degraded
        self.sources, self.frames, self.size = sources, frames, size
        self.count, self.seed, self.clean, self.light = count, seed, clean, light
        self.shaken = shaken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((self.seed, index))
        sources = self.sources
        rates = np.zeros((int((self.frames - 1 + 2 * STILL_BEFORE) * SAMPLES) + 1, 3))
        camera = np.zeros(4)
        if sources.pairs and rng.random() < sources.pairs_share:
            degraded, sharp, shutter = self._paired(sources.pairs, rng)
        elif self.task.blur and rng.random() < self.shaken:
            degraded, sharp, shutter, shaken = self._shaken(rng)
            rates = shaken.rates(self.frames)
            camera[:] = shaken.focal, *shaken.middle, shaken.period
        else:
            degraded, sharp, shutter = self.make(rng)
        known = (torch.tensor(one, dtype=torch.float32) for one in (shutter, rates, camera))
        return degraded, sharp, *known

    def _paired(self, pairs: Clips, rng: np.random.Generator) -> tuple[Tensor, Tensor, float]:
        stretch = pairs.draw(rng)
        first = int(rng.integers(STRETCH - self.frames + 1))
        both = self._cut(stretch[:, first : first + self.frames], self.size, rng)
        degraded, sharp = to_tensor(flip_at_random(both, rng, upside_down=0.0))
        shutter = self.sources.pairs_shutter
        return degraded, sharp, math.nan if shutter is None else shutter

    def _degraded(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, float]:
        frames = self._footage(rng) if self._from_footage(rng) else self._ride(rng)
        if rng.random() < LIGHT_CHANGES:
            gains = 1 + np.cumsum(0.04 * rng.normal(size=len(frames)))
            frames = frames * gains.reshape(-1, 1, 1, 1).astype(np.float32)
        if rng.random() < WITH_CUT:
            cut = len(frames) // 2
            frames = np.concatenate([frames[:cut], self._ride(rng)[cut:]])
        if rng.random() < HAZY:
            haze, light = rng.uniform((0, 0.3), (0.6, 0.95))
            frames = frames + np.float32(haze) * (np.float32(255 * light) - frames)
        if rng.random() < VIVID:
            frames = vivid(frames, rng)
        sharp = _to_bytes(to_tensor(frames))
        strength = self._amount(rng, (0.01, 0.3), (1.0, 1.0))
        if not strength:
            return sharp, sharp, 0.0
        fall = None
        if self.sources.layers and rng.random() < 0.4:
            fall = self.sources.layers.draw(self.frames, self.size, rng)
        degrade = DEGRADATIONS[self.task.degradation].frames
        assert degrade is not None
        return _to_bytes(255 * degrade(sharp / 255, strength, _torch(rng), fall)), sharp, 0.0

    def _blurred(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, float]:
        share = self._amount(rng, (CLOSED, 0.15), (0.3, 1.0))
        linear_light = rng.random() < 0.5
        if self._from_footage(rng):
            blurred, sharp, share = self._exposed(rng, share, linear_light)
        else:
            scene = self._scene(rng)
            pace = float(np.linalg.norm(scene.path.velocity))
            share = min(share, MAX_BLUR / max(pace, 1e-6))
            times = np.arange(self.frames) - self.frames / 2
            sharp = np.stack([scene.frame(time) for time in times])
            blurred = np.stack([scene.exposure(time, share, linear_light) for time in times])
        noisy = torch.full((self.frames,), float(share > 0))
        degraded = sensor_noise(to_tensor(blurred).float() / 255, noisy, _torch(rng))
        return _to_bytes(255 * degraded), _to_bytes(to_tensor(sharp)), share

    def _shaken(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, float, ShakenCamera]:
        """Return (degraded, sharp, exposure, camera) of a camera that shakes."""
        share = 0.0 if rng.random() < self.clean else float(rng.uniform(0.1, 1.0))
        camera = ShakenCamera.draw(rng, self.frames, self.size, max(share, 0.3))
        gamma = GAMMA if rng.random() < LINEAR_LIGHT else 1.0
        if self._from_footage(rng):
            frames = self._footage(rng)
            sharp = np.stack([camera.see(frame, time) for time, frame in enumerate(frames)])
            blurred = np.stack([
                camera.expose(frame, time, share, gamma) for time, frame in enumerate(frames)
            ])
        else:
            start = self.frames / 2
            scene = self._scene(rng, FASTEST_SHAKEN, (camera, start))
            times = np.arange(self.frames) - start
            sharp = np.stack([scene.frame(time) for time in times])
            blurred = np.stack([scene.exposure(time, share, gamma > 1) for time in times])
        noisy = torch.full((self.frames,), float(share > 0))
        degraded = _to_bytes(255 * sensor_noise(
            to_tensor(blurred).float() / 255, noisy, _torch(rng)
        ))
        if share and rng.random() < COMPRESSED:
            degraded = compressed(degraded, int(rng.integers(*QUALITY)))
        return degraded, _to_bytes(to_tensor(sharp)), share, camera

    def _amount(
        self, rng: np.random.Generator, little: tuple[float, float], much: tuple[float, float]
    ) -> float:
        """Return 0 for the share of clean sequences, else a draw from one of two ranges."""
        draw = rng.random()
        if draw < self.clean:
            return 0.0
        return float(rng.uniform(*(little if draw < self.clean + self.light else much)))

    def _from_footage(self, rng: np.random.Generator) -> bool:
        sources = self.sources
        if not (sources.stills and sources.footage):
            return sources.stills is None
        return bool(rng.random() < sources.footage_share)

    def _scene(
        self, rng: np.random.Generator, fastest: float = 0.0,
        shaken: tuple[ShakenCamera, float] | None = None,
    ) -> MovingScene:
        assert self.sources.stills is not None
        fastest = fastest or float(rng.choice(self.task.fastest))
        return MovingScene.draw(rng, self.sources.stills.draw(rng), self.size, fastest, shaken)

    def _ride(self, rng: np.random.Generator) -> np.ndarray:
        """Return frames along a path, float32 T x size x size x 3, 0..255."""
        if self.sources.stills is None:
            return self._footage(rng)
        scene = self._scene(rng)
        pace = float(rng.random() >= STANDING)
        return np.stack([
            scene.frame(pace * time) for time in np.arange(self.frames) - self.frames / 2
        ])

    def _footage(self, rng: np.random.Generator) -> np.ndarray:
        """Return consecutive frames of footage, uint8 T x size x size x 3."""
        assert self.sources.footage is not None
        [stretch] = self.sources.footage.draw(rng)
        first = int(rng.integers(STRETCH - self.frames + 1))
        frames = stretch[first : first + self.frames]
        frames = self._cut(frames, side_to_shrink(frames, self.size, rng), rng)
        return flip_at_random(shrink(frames, self.size), rng, upside_down=0.0)

    def _exposed(
        self, rng: np.random.Generator, share: float, linear_light: bool
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """
        Return footage exposed for ``share`` of the frame period, or less where it moves fast.

        A frame averages several frames of the footage. Returns (blurred, sharp, share), the first
        two uint8 T x size x size x 3. Skips cuts and places where the optical flow fails. Raises
        ``DataError`` if no attempt succeeds.
        """
        assert self.sources.footage is not None
        # The exposures reach up to half a frame period before the first and after the last frame.
        longest = max(
            p for p in range(1, STRETCH) if (self.frames - 1) * p + 2 * -(-p // 2) < STRETCH
        )
        outer = self.size + 2 * CROP_MARGIN
        for _ in range(ATTEMPTS):
            [frames] = self.sources.footage.draw(rng)
            period = int(rng.integers(1, longest + 1))
            frames = self._cut(frames, side_to_shrink(frames, outer, rng), rng)
            frames = flip_at_random(shrink(frames, outer), rng, upside_down=0.0)
            middle = STRETCH // 2
            pace = period * flow_pace(frames[middle], frames[middle + 1])
            exposure = period * min(share, MAX_BLUR / max(pace, 1e-6))
            reach = max(1, math.ceil(exposure / 2))
            way = (self.frames - 1) * period  # from the first moment to the last
            first = int(rng.integers(reach, STRETCH - way - reach))
            moments = [
                expose(
                    frames[moment - reach : moment + reach + 1], exposure, math.inf,
                    GAMMA if linear_light else 1.0,
                )
                for moment in range(first, first + way + 1, period)
            ]
            if all(moment is not None for moment in moments):
                blurred, sharp = np.stack([m for m in moments if m is not None], 1)
                return blurred, sharp, exposure / period
        raise DataError(f'no usable moment of footage in {ATTEMPTS} attempts')

    def _cut(self, frames: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
        """Cut side x side out of ``frames`` (... x H x W x 3) where the last has most detail."""
        places = [cut_at_random(frames, side, rng) for _ in range(CANDIDATES)]
        return max(places, key=lambda place: detail(place.reshape(-1, side, side, 3)[-1]))


def vivid(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return frames (T x H x W x 3, 0..255) with stronger colours, channels swapped; float32."""
    swapped = frames[..., rng.permutation(3)].astype(np.float32)
    grey = swapped.mean(-1, keepdims=True)
    return (grey + rng.uniform(1, 3) * (swapped - grey)).clip(0, 255)


def compressed(frames: Tensor, quality: int) -> Tensor:
    """Return frames (uint8 T x 3 x H x W) after JPEG compression with ``quality``."""
    pictures = []
    for picture in to_pictures(frames / 255):
        _, data = cv2.imencode('.jpg', picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        pictures.append(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
    return to_tensor(np.stack(pictures))


def _to_bytes(values: Tensor) -> Tensor:
    """Round 0..255 to uint8."""
    return values.clamp(0, 255).round().byte() if values.is_floating_point() else values


def _torch(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**62)))
