"""
What the demo's camera films: drives over photographs, blurred by their motion or in rain.

The photographs come with scikit-image; what is random comes from fixed seeds.
"""

from dataclasses import dataclass

import numpy as np
import torch
from skimage import data as photographs
from torch import Tensor

from iov_restore_ros.pictures.degradations import shower
from iov_restore_ros.pictures.degradations.draw import sensor_noise
from iov_restore_ros.pictures.files import to_tensor
from iov_restore_ros.pictures.moving import CameraPath, MovingScene

WIDTH, HEIGHT = 400, 300
FPS = 8.0
FRAMES_EACH = 16
SHUTTER = 0.7  # share of the time between two frames that it is open
IN_RAIN = 0.5  # of the pace: who sees little drives slower


@dataclass(frozen=True)
class Drive:
    """
    A way over a photograph: how far a frame goes (pixels, x and y), and how much closer.

    The way leads through the photograph's middle and does not leave it.
    """

    photograph: str
    velocity: tuple[float, float]
    zoom: float
    shower: int  # seed of its rain


DRIVES = (
    Drive('stereo_motorcycle', (17.0, 3.0), -0.006, 1),
    Drive('coffee', (11.0, -2.0), -0.004, 2),
    Drive('astronaut', (-4.0, -9.0), 0.004, 7),
)


@dataclass(frozen=True)
class Footage:
    """
    Frames as the camera gives them and as they should be, uint8 H x W x 3, RGB.

    Each drive is ``FRAMES_EACH`` consecutive frames; the next begins with a cut.
    """

    degraded: list[np.ndarray]
    sharp: list[np.ndarray]


def blurred() -> Footage:
    """Return fast drives, exposed for ``SHUTTER``; what is sharp is the middle of the exposure."""
    footage = Footage([], [])
    for seed, drive in enumerate(DRIVES):
        scene, times = _scene(drive, 1.0), _times()
        exposed = np.stack([scene.exposure(time, SHUTTER, linear_light=True) for time in times])
        rng = torch.Generator().manual_seed(seed)
        noisy = sensor_noise(_tensor(exposed), torch.ones(FRAMES_EACH), rng)
        footage.degraded.extend(_frames(noisy))
        footage.sharp.extend(_frames(_sharp(scene)))
    return footage


def rainy() -> Footage:
    """Return slower drives, each through a shower of its own that lasts."""
    footage = Footage([], [])
    for drive in DRIVES:
        sharp = _sharp(_scene(drive, IN_RAIN))
        rng = torch.Generator().manual_seed(drive.shower)
        footage.degraded.extend(_frames(shower(sharp, 1.0, rng)))
        footage.sharp.extend(_frames(sharp))
    return footage


def _scene(drive: Drive, pace: float) -> MovingScene:
    photograph = getattr(photographs, drive.photograph)()
    photograph = photograph[0] if isinstance(photograph, tuple) else photograph  # one eye of two
    height, width = photograph.shape[:2]
    path = CameraPath(
        velocity=pace * np.array(drive.velocity), acceleration=np.zeros(2), zoom=pace * drive.zoom,
        shake=np.array([[0.6, 0.9], [0.3, 0.4]]), phase=np.array([[0.5, 2.0], [1.0, 4.0]]),
        focus=np.zeros(2),
    )
    return MovingScene(photograph, WIDTH, path, (width / 2, height / 2))


def _times() -> np.ndarray:
    """Return when the frames are taken; the way through the middle is half over at 0."""
    return np.arange(FRAMES_EACH) - (FRAMES_EACH - 1) / 2


def _sharp(scene: MovingScene) -> Tensor:
    return _tensor(np.stack([scene.frame(time) for time in _times()]))


def _tensor(squares: np.ndarray) -> Tensor:
    """Return the middle of square frames (0..255) as T x 3 x ``HEIGHT`` x ``WIDTH``, 0..1."""
    top = (WIDTH - HEIGHT) // 2
    return to_tensor(squares[:, top : top + HEIGHT]) / 255


def _frames(pictures: Tensor) -> list[np.ndarray]:
    """Return uint8 H x W x 3 of T x 3 x H x W, 0..1."""
    rounded = pictures.mul(255).round().clamp(0, 255).byte()
    return list(np.ascontiguousarray(rounded.permute(0, 2, 3, 1).numpy()))
