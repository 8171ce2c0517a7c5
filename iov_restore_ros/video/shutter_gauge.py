"""
For which share of the time between two frames the shutter is open, found in blurred video.

A blur along a straight line leaves a dip in a window's cepstrum, as far from its middle as the
blur is long, along its direction. Where the flow says how far and in which direction a window
moved from frame to frame, the dips of all windows of all frames of a camera lie at one share of it:
added up they stand out, though no single one does.

Source of the dip: Rom, On the cepstrum of two-dimensional functions, IEEE Trans. IT, 1975.
"""

import cv2
import numpy as np

from iov_restore_ros.video.flow import CELL

WINDOW = 64  # pixels on a side
WINDOWS = 24, 6  # looked at in a frame while the share is unknown, and when it is known
MOVED = 6.0, 40.0  # pixels between two frames: less hides the dip in the middle, more leaves none
CONTRAST = 8.0  # grey levels; flat windows say nothing
DISTANCES = 3.0, 30.0  # pixels from the middle at which a dip can be told
SHARES = np.linspace(0.1, 1.3, 49, dtype=np.float32)
BIAS = 0.06  # by which dips of known blurs were found too far out
ENOUGH = 16  # windows before anything is said
CLEAR = 0.006  # depth of the dip
CERTAIN = 4.0  # times its standard error that it is deep
SPREAD = 1e-6  # least variance of the depths, where few windows happen to agree
NEAR = 0.12  # between the deepest dip and the most certain one, if both are one
FORGETTING = 0.98  # of what was seen, with every frame: exposure times change
FLOOR = 50.0  # added to the power, of which the logarithm is taken
WEIGHTS = np.outer(np.hanning(WINDOW), np.hanning(WINDOW)).astype(np.float32)


class ShutterGauge:
    """Adds up what the frames of one camera say about its shutter."""

    def __init__(self) -> None:
        self._dips = np.zeros(len(SHARES))
        self._squares = np.zeros(len(SHARES))
        self._windows = np.zeros(len(SHARES))
        self._turn = 0

    def watch(self, frame: np.ndarray, moving: np.ndarray, steps: float) -> None:
        """
        Look at ``frame`` (uint8 H x W x 3) as it was received, and how far it moves.

        ``moving`` is what ``aligner.speed`` returns, for so many frame times as ``steps``.
        """
        for sums in (self._dips, self._squares, self._windows):
            sums *= FORGETTING
        height, width = frame.shape[:2]
        if min(height, width) < WINDOW:
            return
        # Other places in each frame.
        rng = np.random.default_rng(self._turn)
        self._turn += 1
        count = WINDOWS[self.share() > 0]
        for top, left in zip(
            rng.integers(0, height - WINDOW + 1, count),
            rng.integers(0, width - WINDOW + 1, count), strict=True,
        ):
            rows, columns = (slice(side // CELL, (side + WINDOW) // CELL) for side in (top, left))
            ways = moving[rows, columns].reshape(-1, 2) / steps
            way = np.median(ways, 0)
            length = float(np.hypot(*way))
            apart = float(np.abs(ways - way).mean())
            if not MOVED[0] < length < MOVED[1] or apart > 0.15 * length + 0.5:
                continue
            window = cv2.cvtColor(
                frame[top : top + WINDOW, left : left + WINDOW], cv2.COLOR_RGB2GRAY
            ).astype(np.float32)
            mean, deviation = (value.item() for value in cv2.meanStdDev(window))
            if deviation >= CONTRAST:
                self._add(window - mean, way / length, length)

    def share(self) -> float:
        """Return the share, 0..1; 0 while it is not known."""
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
        # Of what is real and even, there and back are the same.
        flags = cv2.DFT_COMPLEX_OUTPUT | cv2.DFT_SCALE
        cepstrum = np.fft.fftshift(cv2.dft(cv2.log(power + FLOOR), flags=flags)[..., 0])
        distances = SHARES * length
        seen = (distances > DISTANCES[0]) & (distances < DISTANCES[1])
        # The cepstrum of the scene itself falls in all directions: across the motion it is alone.
        across = np.array([-along[1], along[0]])
        directions = np.stack([along, -along, across, -across]).astype(np.float32)
        x, y = (WINDOW // 2 + directions[:, i, None] * distances for i in range(2))
        ahead, behind, left, right = cv2.remap(cepstrum, x, y, cv2.INTER_LINEAR)
        dip = (ahead + behind - left - right) / 2
        self._dips[seen] += dip[seen]
        self._squares[seen] += dip[seen] ** 2
        self._windows[seen] += 1
