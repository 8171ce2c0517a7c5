"""
The footage of the demo: drives in motion, on bad roads, in rain, and behind wet glass.

The camera moves over photographs of scikit-image. All random numbers come from fixed seeds.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from skimage import data as photographs
from torch import Tensor

from iov_restore_ros.pictures.degradations import shower
from iov_restore_ros.pictures.degradations.draw import sensor_noise
from iov_restore_ros.pictures.files import to_tensor
from iov_restore_ros.pictures.moving import CameraPath, MovingScene
from iov_restore_ros.pictures.shaking import SAMPLES, STILL_BEFORE, Shake, ShakenCamera
from iov_restore_ros.pictures.soiled import soil

WIDTH, HEIGHT = 400, 300
FPS = 8.0
FRAMES_EACH = 16
SHUTTER = 0.7  # share of the time between two frames that it is open
IN_RAIN = 0.5  # of the speed: drivers are slower in rain
BEHIND_GLASS = 0.4  # of the speed
FRAMES_BEHIND_GLASS = 40
ON_BUMPS = 0.3  # of the speed
BUMPY_SHUTTER = 0.25  # share, 31 ms
BUMPS = 9.0  # median blur of the frames, pixels
FOCAL = 480.0  # pixels
IMU_RATE = 400  # Hz


@dataclass(frozen=True)
class Drive:
    """
    A drive over a photograph: displacement of a frame (pixels, x and y), and zoom of a frame.

    It passes the middle of the photograph and does not leave the photograph.
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


# Kind, first and last frame, seed: the first seeds whose drops cover 1.5 to 5 % of the picture.
# The wiper removes all drops but the first ones, which lie outside of its reach.
ON_GLASS = (
    ('drops', 0, 40, 0), ('drops', 5, 24, 1), ('drops', 11, 24, 6),
    ('wiper', 18, 27, 8),
    ('drops', 27, 40, 8), ('drops', 32, 40, 9),
)


@dataclass(frozen=True)
class Footage:
    """
    Degraded and sharp frames, uint8 H x W x 3, RGB.

    Each drive has ``each`` consecutive frames. The next drive starts with a cut.
    """

    degraded: list[np.ndarray]
    sharp: list[np.ndarray]
    each: int = field(default=FRAMES_EACH, kw_only=True)


@dataclass(frozen=True)
class BumpyFootage(Footage):
    """``rates``: S x 4, s from the first frame on, round to it again, and rad/s about x, y, z."""

    rates: np.ndarray
    intrinsics: tuple[float, ...]  # fx, fy, cx, cy, pixels


def blurred() -> Footage:
    """Return fast drives, exposed for ``SHUTTER``; the sharp frame is at mid-exposure."""
    footage = Footage([], [])
    for seed, drive in enumerate(DRIVES):
        scene, times = _scene(drive, 1.0), _times()
        exposed = np.stack([scene.exposure(time, SHUTTER, linear_light=True) for time in times])
        rng = torch.Generator().manual_seed(seed)
        noisy = sensor_noise(_tensor(exposed), torch.ones(FRAMES_EACH), rng)
        footage.degraded.extend(_frames(noisy))
        footage.sharp.extend(_frames(_sharp(scene)))
    return footage


def bumpy() -> BumpyFootage:
    """Return slower drives on bad roads, with the rates of the camera's gyroscope."""
    degraded, sharp, cameras = [], [], []
    middle = (np.array([WIDTH, WIDTH]) - 1) / 2
    for seed, drive in enumerate(DRIVES):
        rng = np.random.default_rng(seed)
        scene, times = _scene(drive, ON_BUMPS), _times()
        scene.path = replace(scene.path, shake=np.zeros((2, 2)))
        shake = Shake.draw(rng, (FRAMES_EACH + 1) / FPS)
        camera = ShakenCamera(shake, FOCAL, middle, 1 / FPS)
        extents = [camera.extent(time, BUMPY_SHUTTER) for time in range(FRAMES_EACH)]
        camera = replace(camera, shake=shake.scaled(BUMPS / float(np.median(extents))))
        scene.shaken = camera, -float(times[0])
        exposed = np.stack([scene.exposure(time, BUMPY_SHUTTER, True) for time in times])
        noise = torch.Generator().manual_seed(seed)
        noisy = sensor_noise(_tensor(exposed), torch.ones(FRAMES_EACH), noise)
        degraded.extend(_frames(noisy))
        sharp.extend(_frames(_sharp(scene)))
        cameras.append(camera)
    intrinsics = FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2
    return BumpyFootage(degraded, sharp, _round(cameras), intrinsics)


def _round(cameras: list[ShakenCamera]) -> np.ndarray:
    """Return the rates of the drives, one after the other; see ``BumpyFootage``."""
    count = len(cameras) * FRAMES_EACH
    times = np.arange(round(count / FPS * IMU_RATE)) / IMU_RATE
    drives, since = np.divmod(times * FPS + 0.5, FRAMES_EACH)  # half a frame before the first
    rates = np.zeros((len(times), 3))
    for number, camera in enumerate(cameras):
        known = camera.rates(FRAMES_EACH)
        own = drives % len(cameras) == number
        moments = (since[own] - 0.5 + STILL_BEFORE) * SAMPLES
        for axis in range(3):
            rates[own, axis] = np.interp(moments, np.arange(len(known)), known[:, axis])
    return np.column_stack([times, rates])


def rainy() -> Footage:
    """Return slower drives, each through its own shower."""
    footage = Footage([], [])
    for drive in DRIVES:
        sharp = _sharp(_scene(drive, IN_RAIN))
        rng = torch.Generator().manual_seed(drive.shower)
        footage.degraded.extend(_frames(shower(sharp, 1.0, rng)))
        footage.sharp.extend(_frames(sharp))
    return footage


def behind_glass() -> Footage:
    """Return one drive behind glass: drops gather, a wiper passes, and drops gather again."""
    sharp = _frames(_sharp(_scene(DRIVES[0], BEHIND_GLASS), FRAMES_BEHIND_GLASS))
    seen = np.stack(sharp)
    for kind, first, end, seed in ON_GLASS:
        seen[first:end] = soil(seen[first:end], np.random.default_rng(seed), [kind]).received
    rng = torch.Generator().manual_seed(0)
    noisy = sensor_noise(to_tensor(seen).float() / 255, torch.ones(FRAMES_BEHIND_GLASS), rng)
    return Footage(_frames(noisy), sharp, each=FRAMES_BEHIND_GLASS)


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


def _times(count: int = FRAMES_EACH) -> np.ndarray:
    """Return the times of the frames; at 0 the camera is in the middle of the drive."""
    return np.arange(count) - (count - 1) / 2


def _sharp(scene: MovingScene, count: int = FRAMES_EACH) -> Tensor:
    return _tensor(np.stack([scene.frame(time) for time in _times(count)]))


def _tensor(squares: np.ndarray) -> Tensor:
    """Return the middle of square frames (0..255) as T x 3 x ``HEIGHT`` x ``WIDTH``, 0..1."""
    top = (WIDTH - HEIGHT) // 2
    return to_tensor(squares[:, top : top + HEIGHT]) / 255


def _frames(pictures: Tensor) -> list[np.ndarray]:
    """Return uint8 H x W x 3 of T x 3 x H x W, 0..1."""
    rounded = pictures.mul(255).round().clamp(0, 255).byte()
    return list(np.ascontiguousarray(rounded.permute(0, 2, 3, 1).numpy()))
