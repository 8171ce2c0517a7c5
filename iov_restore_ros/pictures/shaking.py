"""The shake of a camera on a vehicle or in a hand, and the angular rates of its gyroscope."""

from dataclasses import dataclass

import cv2
import numpy as np

VIBRATION = 6.0, 40.0  # Hz, of a mount and an engine
WALK = 0.6, 5.0  # Hz, of a hand, and of a vehicle's springs
BUMP = 5.0, 25.0  # Hz, of the oscillation after a bump
DECAYS = 0.08, 0.4  # s, its time constant
SAMPLES = 32  # of the angular rates in a frame period
RATES = 10.0, 15.0, 20.0, 25.0, 30.0, 60.0  # frames a second
FOCAL = 300.0, 1500.0  # pixels
BLUR = 5.0  # pixels, mean of an exponential draw
MOST_BLUR = 26.0  # pixels
MOST_MOTION = 36.0  # pixels from frame to frame
LITTLE_BLUR = 2.0  # pixels, in LITTLE of the sequences
LITTLE = 0.25
QUICK = 4.0  # pixels of motion in an exposure, above which linear interpolation is enough
MOMENTS = 9, 31  # fewest and most samples of an exposure
BAND = 16  # rows that a rolling shutter reads at once
STILL_BEFORE = 1.0  # frame periods from the start of the rates to the first frame


@dataclass(frozen=True)
class Shake:
    """
    A camera's orientation as a function of time: vibrations, swaying, and decaying bumps.

    Arrays have N rows: ``frequencies`` (Hz), ``phases``, ``amplitudes`` (N x 3, rad, about x, y and
    z of the camera), and ``starts`` and ``decays`` of bumps (s; infinite without a decay).
    """

    frequencies: np.ndarray
    phases: np.ndarray
    amplitudes: np.ndarray
    starts: np.ndarray
    decays: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, span: float) -> 'Shake':
        """Return a random shake of about amplitude 1, for times from 0 to ``span`` s."""
        kinds = [VIBRATION] * int(rng.integers(1, 4)) + [WALK] * int(rng.integers(1, 3))
        weights = [rng.exponential() for _ in kinds]
        bumps = int(rng.poisson(1.5 * span)) if rng.random() < 0.7 else 0
        kinds += [BUMP] * bumps
        weights += [2.0 * rng.exponential() for _ in range(bumps)]
        low, high = np.log(kinds).T
        frequencies = np.exp(rng.uniform(low, high))
        # Pitch is largest in most cases, because roads are uneven along the direction of travel.
        axes = rng.normal(size=(len(kinds), 3)) * rng.choice(
            [(1, 0.4, 0.3), (1, 1, 0.5), (0.4, 1, 0.3)]
        )
        first = len(kinds) - bumps
        starts = np.concatenate([np.full(first, -np.inf), rng.uniform(-0.3, span, bumps)])
        decays = np.concatenate([np.full(first, np.inf), rng.uniform(*DECAYS, bumps)])
        # Faster oscillations have smaller amplitudes.
        far = np.array(weights) / np.sqrt(1 + (frequencies / 8) ** 2)
        amplitudes = axes * far[:, None]
        return cls(frequencies, rng.uniform(0, 2 * np.pi, len(kinds)), amplitudes, starts, decays)

    def angles(self, times: np.ndarray) -> np.ndarray:
        """Return rotation vectors at ``times`` (N, s), N x 3, rad, of the camera in the world."""
        since = times[:, None] - self.starts
        going = np.where(since < 0, 0.0, np.exp(-np.where(
            np.isfinite(since), np.maximum(since, 0.0), 0.0) / self.decays))
        # A bump begins at rest.
        phases = np.where(np.isfinite(self.starts), 0.0, self.phases)
        turns = np.where(np.isfinite(self.starts), since, times[:, None]) * self.frequencies
        return (going * np.sin(2 * np.pi * turns + phases)) @ self.amplitudes

    def scaled(self, factor: float) -> 'Shake':
        """Return the shake with scaled amplitudes."""
        return Shake(
            self.frequencies, self.phases, self.amplitudes * factor, self.starts, self.decays
        )



@dataclass(frozen=True)
class ShakenCamera:
    """
    A camera that shakes while it takes frames, at the times 0, 1, 2, ... (in frame periods).

    ``focal`` (pixels) and ``middle`` (principal point x, y, pixels) describe a pinhole camera.
    ``period`` is the frame period, s.
    """

    shake: Shake
    focal: float
    middle: np.ndarray
    period: float

    @classmethod
    def draw(
        cls, rng: np.random.Generator, frames: int, size: int, share: float
    ) -> 'ShakenCamera':
        """Return a random camera for ``frames`` of ``size``; ``share`` is the exposure."""
        period = 1 / float(rng.choice(RATES))
        shake = Shake.draw(rng, (frames + 1) * period)
        focal = float(np.exp(rng.uniform(*np.log(FOCAL))))
        camera = cls(shake, focal, size / 2 + rng.uniform(-300, 300, 2), period)
        blur = rng.uniform(0, LITTLE_BLUR) if rng.random() < LITTLE else rng.exponential(BLUR)
        times = np.arange(frames)[:, None]
        exposures = camera._places((times + share * np.linspace(-0.5, 0.5, 17)).ravel())
        extents = np.linalg.norm(np.ptp(exposures.reshape(frames, 17, 2), 1), axis=1)
        steps = np.linalg.norm(np.diff(camera._places(times[:, 0].astype(float)), axis=0), axis=1)
        factor = min(
            blur / max(float(np.median(extents)), 1e-9), MOST_BLUR / max(extents.max(), 1e-9),
            MOST_MOTION / max(steps.max(), 1e-9),
        )
        return cls(camera.shake.scaled(factor), camera.focal, camera.middle, period)

    def view(self, time: float) -> np.ndarray:
        """Return the homography (3 x 3) from the picture at ``time`` to one without shake."""
        matrix = np.array([
            [self.focal, 0, self.middle[0]], [0, self.focal, self.middle[1]], [0, 0, 1],
        ])
        [turn] = rotations(self._angles(np.array([time])))
        return matrix @ turn @ np.linalg.inv(matrix)

    def see(
        self, picture: np.ndarray, time: float, interpolation: int = cv2.INTER_CUBIC,
        rows: slice = slice(None),
    ) -> np.ndarray:
        """Return the view of ``picture`` (H x W x 3) at ``time``, or some rows of it."""
        height, width = picture.shape[:2]
        first, last, _ = rows.indices(height)
        down = np.array([[1, 0, 0], [0, 1, first], [0, 0, 1]])
        return cv2.warpPerspective(
            picture, self.view(time) @ down, (width, last - first),
            flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT,
        )

    def expose(
        self, picture: np.ndarray, time: float, share: float, gamma: float, readout: float = 0.0
    ) -> np.ndarray:
        """
        Return ``picture`` (uint8 H x W x 3) exposed for ``share`` of the frame period.

        The average is over values to the power ``gamma``. Returns float32, 0..255. ``readout`` is
        the time from the first row to the last (rolling shutter), as a share of the frame period.
        """
        height = picture.shape[0]
        light = cv2.LUT(picture, (np.arange(256, dtype=np.float32) / 255) ** np.float32(gamma))
        parts = []
        for top in range(0, height, BAND if readout else height):
            rows = slice(top, min(top + BAND, height) if readout else height)
            middle = time + readout * ((rows.start + rows.stop - 1) / 2 / (height - 1) - 0.5)
            moved = self.extent(middle, share)
            count = int(np.clip(moved + 1, *MOMENTS)) | 1
            # Cubic interpolation takes three times as long, and a blur hides the difference.
            interpolation = cv2.INTER_LINEAR if moved > QUICK else cv2.INTER_CUBIC
            total = sum(
                self.see(light, moment, interpolation, rows)
                for moment in middle + share * np.linspace(-0.5, 0.5, count)
            )
            parts.append(np.maximum(total / np.float32(count), 0))
        return cv2.pow(np.concatenate(parts), 1 / gamma) * 255

    def extent(self, time: float, share: float) -> float:
        """Return the extent of the motion during an exposure, in pixels."""
        places = self._places(time + share * np.linspace(-0.5, 0.5, 17))
        return float(np.linalg.norm(np.ptp(places, 0)))

    def rates(self, frames: int) -> np.ndarray:
        """
        Return the angular rates about the camera's axes, S x 3, rad/s.

        There are ``SAMPLES`` per frame period, from ``STILL_BEFORE`` frame periods before the first
        frame to ``STILL_BEFORE`` after the last.
        """
        count = int((frames - 1 + 2 * STILL_BEFORE) * SAMPLES) + 1
        times = np.arange(count) / SAMPLES - STILL_BEFORE
        little = 0.02 / SAMPLES
        before, after = (rotations(self._angles(times + shift)) for shift in (-little, little))
        turns = np.swapaxes(before, -1, -2) @ after
        cross = (turns - np.swapaxes(turns, -1, -2)) / 2  # the vector of a small rotation
        vectors = np.stack([cross[:, 2, 1], cross[:, 0, 2], cross[:, 1, 0]], -1)
        return vectors / (2 * little * self.period)

    def _angles(self, times: np.ndarray) -> np.ndarray:
        return self.shake.angles((times + STILL_BEFORE) * self.period)

    def _places(self, times: np.ndarray) -> np.ndarray:
        """Return the approximate position of the picture's middle, N x 2, pixels."""
        return self.focal * self._angles(times)[:, 1::-1] * np.array([-1.0, 1.0])


def rotations(vectors: np.ndarray) -> np.ndarray:
    """Return rotation matrices N x 3 x 3 for rotation vectors N x 3, rad."""
    return np.stack([cv2.Rodrigues(vector)[0] for vector in vectors])
