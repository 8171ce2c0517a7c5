"""
Find frames that are already sharp and need no deblurring, without a network.

The idea is from filter-DeblurGAN: a sharpness measure before the generator. We use another measure,
because the variance of the Laplacian follows the scene more than the blur.
"""

import cv2
import numpy as np

STRIDE = 8  # only every eighth row and column is used
EDGE = 24  # grey levels over four pixels that make an edge
MIN_EDGES = 0.0005  # share of the samples that must be edges
SHARE = 0.9  # a frame is sharp from this share of the reference of its camera
FLOOR = 0.42  # a frame below this is never sharp, and does not change the reference
START = 0.7  # initial reference: restoring in vain is better than missing a blur
RISE = 0.1  # the reference moves this share of the way to a sharper frame
FALL = 0.0005  # the reference moves this share of the way to a less sharp frame


def sharpness(image: np.ndarray) -> float:
    """
    Return how steep the edges of ``image`` (uint8, H x W x 3) are, from 0.25 (ramps) to 1 (steps).

    An edge rises by more than ``EDGE`` over four pixels. Its steepness is the share of the steepest
    pixel in this rise. It is measured in the green channel, along rows and along columns. The
    smaller of both values counts, because motion blurs in one direction. The result is 0 if one
    direction has too few edges.
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
    """Tells sharp frames from blurred ones, relative to the usual sharpness of one camera."""

    def __init__(self) -> None:
        self._reference = START

    def is_sharp(self, image: np.ndarray) -> bool:
        """Return whether ``image`` (uint8, H x W x 3) is sharp, and update the reference."""
        return self.judge(sharpness(image))

    def judge(self, value: float) -> bool:
        """Return whether a frame of ``sharpness`` ``value`` is sharp, and update the reference."""
        if value < FLOOR:
            return False
        pull = RISE if value > self._reference else FALL
        self._reference += pull * (value - self._reference)
        return value >= SHARE * self._reference
