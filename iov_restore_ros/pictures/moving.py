"""Sequences from a photograph: a moving camera, and objects with their own motion."""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from iov_restore_ros.pictures.degradations.blur import GAMMA
from iov_restore_ros.pictures.files import detail
from iov_restore_ros.pictures.shaking import QUICK, ShakenCamera

SHRINK = 2.2  # greatest factor; shrinking sharpens and shows more of the scene
CANDIDATES = 3  # candidates; the one with the strongest edges is used
WITH_OBJECT = 0.3  # share of the scenes
# Pixels, mean of an exponential draw. The flow between frames does not contain vibration, so the
# network learns to doubt the flow. Without it, frames of a shaken camera came out worse with a
# known exposure than as stills.
VIBRATION = 0.5
MOMENTS = 9, 25  # fewest and most samples of an exposure


@dataclass(frozen=True)
class CameraPath:
    """
    The motion of a camera, in pixels and frames: travel with shake, zoom about a focus, roll.

    ``velocity``, ``acceleration`` and ``focus`` (relative to the picture's middle) are (x, y).
    ``shake`` and ``phase`` have one row (x, y) per frequency: once and twice in a frame.
    """

    velocity: np.ndarray
    acceleration: np.ndarray
    shake: np.ndarray
    phase: np.ndarray
    focus: np.ndarray
    zoom: float = 0.0  # logarithm of the magnification in a frame
    roll: float = 0.0  # radians in a frame

    @classmethod
    def draw(
        cls, rng: np.random.Generator, fastest: float, size: int, shakes: bool = True
    ) -> 'CameraPath':
        """
        Return a path of up to ``fastest`` pixels a frame, for a picture of ``size``.

        Without ``shakes`` it has no shake and no roll. ``ShakenCamera`` then draws the rotation
        that a gyroscope measures.
        """
        speed = fastest * rng.random() ** 1.5
        angle = 2 * math.pi * rng.random()
        if rng.random() < 0.5:  # yaw, and objects passing beside the road
            angle = 0.15 * rng.normal() + math.pi * rng.integers(2)
        path = cls(
            velocity=speed * np.array([math.cos(angle), math.sin(angle)]),
            acceleration=0.06 * speed * rng.normal(size=2),
            shake=(0.012 * speed + rng.exponential(VIBRATION)) * rng.normal(size=(2, 2)),
            phase=2 * math.pi * rng.random((2, 2)),
            focus=0.5 * size * rng.normal(size=2),
            zoom=0.012 * rng.normal() * (rng.random() < 0.6),
            roll=0.008 * rng.normal() * (rng.random() < 0.5),
        )
        return path if shakes else replace(path, shake=np.zeros((2, 2)), roll=0.0)

    def matrix(self, time: float) -> np.ndarray:
        """Return 2 x 3: maps positions about the middle at ``time`` (frames) to time 0."""
        turns = 2 * math.pi * np.array([[1.0], [2.0]]) * time
        shake = self.shake * (np.sin(turns + self.phase) - np.sin(self.phase))
        way = self.velocity * time + self.acceleration * time**2 / 2 + shake.sum(0)
        zoom, roll = math.exp(self.zoom * time), self.roll * time
        cos, sin = zoom * math.cos(roll), zoom * math.sin(roll)
        turn = np.array([[cos, -sin], [sin, cos]])
        return np.hstack([turn, (self.focus - turn @ self.focus + way)[:, None]])


class MovingScene:
    """A moving camera's view of a photograph, size x size, at times around 0 (in frames)."""

    def __init__(
        self, photograph: np.ndarray, size: int, path: CameraPath, middle: tuple[float, float],
        shaken: tuple[ShakenCamera, float] | None = None,
    ) -> None:
        """
        Look at ``middle`` (x, y) of ``photograph`` (uint8 H x W x 3, RGB) at time 0.

        ``shaken`` is an additional shaking camera, and its time at this scene's time 0.
        """
        self.photograph, self.size, self.path, self.middle = photograph, size, path, middle
        self.object: tuple[np.ndarray, CameraPath] | None = None  # float32 R, G, B, opacity
        self.shaken = shaken

    @classmethod
    def draw(
        cls, rng: np.random.Generator, photograph: np.ndarray, size: int, fastest: float,
        shaken: tuple[ShakenCamera, float] | None = None,
    ) -> 'MovingScene':
        """
        Return a scene at a random place and scale, sometimes with an object in it.

        ``shaken`` is a shaking camera, and its time at this scene's time 0.
        """
        room = min(photograph.shape[:2]) / (1.2 * size)
        if room > 1.3 and rng.random() < 0.6:
            scale = 1 / rng.uniform(1, min(SHRINK, room))
            photograph = cv2.resize(
                photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
            )
        if rng.random() < 0.5:
            photograph = photograph[:, ::-1]
        photograph = np.ascontiguousarray(photograph)
        height, width = photograph.shape[:2]
        half = size / 2
        places = [
            tuple(rng.uniform(min(half, n / 2), max(n - half, n / 2)) for n in (width, height))
            for _ in range(CANDIDATES)
        ]

        def edges(place: tuple[float, ...]) -> float:
            left, top = (max(0, int(middle - half)) for middle in place)
            return detail(photograph[top : top + size, left : left + size])
        x, y = max(places, key=edges)
        path = CameraPath.draw(rng, fastest, size, shakes=shaken is None)
        scene = cls(photograph, size, path, (x, y), shaken)
        if rng.random() < WITH_OBJECT:
            field = cv2.resize(
                rng.normal(size=(5, 5)).astype(np.float32), (width, height),
                interpolation=cv2.INTER_CUBIC,
            )
            opacity = 1 / (1 + np.exp(-np.clip(20 * (field - 0.6), -30, 30)))
            elsewhere = np.roll(photograph, (height // 3, width // 3), (0, 1))
            layers = np.dstack([elsewhere, opacity]).astype(np.float32)
            scene.object = layers, CameraPath.draw(rng, fastest, size)
        return scene

    def frame(self, time: float, interpolation: int = cv2.INTER_CUBIC) -> np.ndarray:
        """Return the view at ``time``, float32 size x size x 3, RGB, 0..255."""
        seen = self._see(self.photograph, self.path, time, interpolation).astype(np.float32)
        if self.object is not None:
            layers = self._see(*self.object, time, cv2.INTER_LINEAR)
            opacity = layers[..., 3:]
            seen += opacity * (layers[..., :3] - seen)
        return seen

    def exposure(self, time: float, share: float, linear_light: bool) -> np.ndarray:
        """
        Return the average over ``share`` of the frame period around ``time``, like ``frame``.

        The average is taken in linear light (Wei et al. 2021, Eq. 1), or over gamma-encoded values.
        """
        if not share:
            return self.frame(time)
        least, most = MOMENTS
        gamma = GAMMA if linear_light else 1.0
        moved = float(np.linalg.norm(self.path.velocity)) * share
        if self.shaken is not None:
            moved += self.shaken[0].extent(time + self.shaken[1], share)
        count = int(np.clip(moved + 1, least, most)) | 1
        # With a shaken camera, cubic interpolation takes three times as long, and blur hides it.
        quick = self.shaken is not None and moved > QUICK
        interpolation = cv2.INTER_LINEAR if quick else cv2.INTER_CUBIC
        total = np.zeros((self.size, self.size, 3), np.float32)
        for moment in time + share * np.linspace(-0.5, 0.5, count):
            total += cv2.pow(self.frame(moment, interpolation) / 255, gamma)
        return cv2.pow(total / count, 1 / gamma) * 255

    def _see(
        self, image: np.ndarray, path: CameraPath, time: float, interpolation: int
    ) -> np.ndarray:
        matrix = path.matrix(time)
        matrix[:, 2] += self.middle - matrix[:, :2] @ np.full(2, (self.size - 1) / 2)
        how = {
            'dsize': (self.size, self.size), 'flags': interpolation | cv2.WARP_INVERSE_MAP,
            'borderMode': cv2.BORDER_REFLECT,
        }
        if self.shaken is None:
            return cv2.warpAffine(image, matrix, **how)
        camera, start = self.shaken
        return cv2.warpPerspective(
            image, np.vstack([matrix, [0, 0, 1]]) @ camera.view(time + start), **how
        )
