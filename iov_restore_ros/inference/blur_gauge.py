"""
Which frames need no deblurring because they are sharp already, without a network.

The idea is filter-DeblurGAN's (a sharpness measure in front of the generator). The measure is
another: the variance of the Laplacian follows the scene more than the blur.
"""

import cv2
import numpy as np

STRIDE = 8  # only every eighth row and column is looked at
EDGE = 24  # grey levels over four pixels that make an edge
MIN_EDGES = 0.0005  # share of the samples that must be edges
SHARE = 0.9  # of its camera's reference from which a frame is sharp
FLOOR = 0.42  # what is less sharp is never called sharp and teaches nothing
START = 0.7  # the reference before the first frame: rather restore than miss
RISE = 0.1  # share of the way that the reference takes to a sharper frame
FALL = 0.0005  # and to a less sharp one


def sharpness(image: np.ndarray) -> float:
    """
    Return how steep the edges of ``image`` (uint8, H x W x 3) are, from 0.25 (ramps) to 1 (steps).

    An edge rises by more than ``EDGE`` over four pixels; its steepness is the share of the rise
    that the steepest of the four pixels brings. Measured along rows and along columns of the
    green channel: the smaller of both counts, because motion blurs in one direction. 0 when one
    of the directions has too few edges to tell.
    """
    rows = np.ascontiguousarray(image[::STRIDE, :, 1])
    columns = np.ascontiguousarray(image[:, ::STRIDE, 1].T)
    return min(_steepness(rows), _steepness(columns))


def _steepness(lines: np.ndarray) -> float:
    """Return the mean steepness of the edges along the lines (uint8, N x length)."""
    if lines.shape[1] < 5:
        return 0.0
    steps = cv2.absdiff(lines[:, 1:], lines[:, :-1])
    pairs = cv2.max(steps[:, 1:], steps[:, :-1])
    steepest = cv2.max(pairs[:, 2:], pairs[:, :-2])
    rise = cv2.absdiff(lines[:, 4:], lines[:, :-4])
    _, edges = cv2.threshold(rise, EDGE, 255, cv2.THRESH_BINARY)
    if cv2.countNonZero(edges) < MIN_EDGES * edges.size:
        return 0.0
    # In noise the steepest step may exceed the rise.
    return min(1.0, cv2.mean(steepest, edges)[0] / cv2.mean(rise, edges)[0])


class BlurGauge:
    """Tells sharp frames of one camera from blurred ones, by what is usual for that camera."""

    def __init__(self) -> None:
        self._reference = START

    def is_sharp(self, image: np.ndarray) -> bool:
        """Return whether ``image`` (uint8, H x W x 3) is sharp, and learn from it."""
        return self.judge(sharpness(image))

    def judge(self, value: float) -> bool:
        """Return whether ``value``, a frame's ``sharpness``, is that of a sharp one, and learn."""
        if value < FLOOR:
            return False
        pull = RISE if value > self._reference else FALL
        self._reference += pull * (value - self._reference)
        return value >= SHARE * self._reference
