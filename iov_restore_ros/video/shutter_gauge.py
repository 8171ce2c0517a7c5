"""
Estimate the share of the frame time that the shutter is open, from blurred video.

A straight blur leaves a dip in the cepstrum of a window. Its distance from the centre is the blur
length, and its direction that of the blur. The flow gives the displacement of the window between
two frames. The dips of all windows and frames of a camera lie at one share of it. Each dip alone is
too weak, but their sum is clear.

Source of the dip: Rom, On the cepstrum of two-dimensional functions, IEEE Trans. IT, 1975.
"""

import cv2
import numpy as np

from iov_restore_ros.video.flow import CELL

WINDOW = 64  # pixels on a side
WINDOWS = 24, 6  # in each frame, while the share is unknown and when it is known
MOVED = 6.0, 40.0  # pixels between two frames: shorter or longer motion leaves no usable dip
CONTRAST = 8.0  # grey levels; windows with less are not used
DISTANCES = 3.0, 30.0  # pixels from the centre at which a dip can be found
SHARES = np.linspace(0.1, 1.3, 49, dtype=np.float32)
BIAS = 0.06  # by which the share of known blurs was overestimated
ENOUGH = 16  # windows needed for an estimate
CLEAR = 0.006  # least depth of the dip
CERTAIN = 4.0  # least depth of the dip in standard errors
SPREAD = 1e-6  # least variance of the depths, in case few windows agree by chance
NEAR = 0.12  # largest difference between the deepest dip and the most certain one
FORGETTING = 0.98  # factor on the sums with every frame, because exposures change
FLOOR = 50.0  # added to the power before the logarithm
WEIGHTS = np.outer(np.hanning(WINDOW), np.hanning(WINDOW)).astype(np.float32)


class ShutterGauge:
    """Adds up the dips of one camera's frames."""

    def __init__(self) -> None:
        self._dips = np.zeros(len(SHARES))
        self._squares = np.zeros(len(SHARES))
        self._windows = np.zeros(len(SHARES))
        self._turn = 0

    def watch(self, frame: np.ndarray, moving: np.ndarray, steps: float) -> None:
        """
        Add the dips of ``frame`` (uint8 H x W x 3, RGB), as it was received.

        ``moving`` is the result of ``aligner.speed``, the displacement in ``steps`` frame times.
        """
        for sums in (self._dips, self._squares, self._windows):
            sums *= FORGETTING
        height, width = frame.shape[:2]
        if min(height, width) < WINDOW:
            return
        # Other windows in each frame.
        rng = np.random.default_rng(self._turn)
        self._turn += 1
        count = WINDOWS[self.share() > 0]
        for top, left in zip(
            rng.integers(0, height - WINDOW + 1, count),
            rng.integers(0, width - WINDOW + 1, count), strict=True,
        ):
            rows, columns = (slice(side // CELL, (side + WINDOW) // CELL) for side in (top, left))
            ways = moving[rows, columns].reshape(-1, 2) / steps
            displacement = np.median(ways, 0)
            length = float(np.hypot(*displacement))
            apart = float(np.abs(ways - displacement).mean())
            if not MOVED[0] < length < MOVED[1] or apart > 0.15 * length + 0.5:
                continue
            window = cv2.cvtColor(
                frame[top : top + WINDOW, left : left + WINDOW], cv2.COLOR_RGB2GRAY
            ).astype(np.float32)
            mean, deviation = (value.item() for value in cv2.meanStdDev(window))
            if deviation >= CONTRAST:
                self._add(window - mean, displacement / length, length)

    def share(self) -> float:
        """Return the share, 0..1; 0 while it is unknown."""
        known = self._windows > ENOUGH
        if not known.any():
            return 0.0
        windows = np.maximum(self._windows, 1e-9)
        depths = self._dips / windows
        errors = np.sqrt(np.maximum(self._squares / windows - depths**2, SPREAD) / windows)
        certain = np.where(known & (depths < -CLEAR), depths / errors, 0.0)
        surest, deepest = int(certain.argmin()), int(np.where(known, depths, np.inf).argmin())
        if certain[surest] > -CERTAIN or abs(SHARES[surest] - SHARES[deepest]) > NEAR:
            return 0.0
        return float(np.clip(SHARES[surest] - BIAS, 0.05, 1))

    def _add(self, window: np.ndarray, along: np.ndarray, length: float) -> None:
        spectrum = cv2.dft(window * WEIGHTS, flags=cv2.DFT_COMPLEX_OUTPUT)
        power = spectrum[..., 0] ** 2 + spectrum[..., 1] ** 2
        # The log power is real and even, so its forward and inverse transforms are equal.
        flags = cv2.DFT_COMPLEX_OUTPUT | cv2.DFT_SCALE
        cepstrum = np.fft.fftshift(cv2.dft(cv2.log(power + FLOOR), flags=flags)[..., 0])
        distances = SHARES * length
        seen = (distances > DISTANCES[0]) & (distances < DISTANCES[1])
        # The cepstrum of the scene falls in all directions. Across the motion there is no dip.
        across = np.array([-along[1], along[0]])
        directions = np.stack([along, -along, across, -across]).astype(np.float32)
        x, y = (WINDOW // 2 + directions[:, i, None] * distances for i in range(2))
        ahead, behind, left, right = cv2.remap(cepstrum, x, y, cv2.INTER_LINEAR)
        dip = (ahead + behind - left - right) / 2
        self._dips[seen] += dip[seen]
        self._squares[seen] += dip[seen] ** 2
        self._windows[seen] += 1
