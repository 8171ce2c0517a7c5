"""Warping pictures along an optical flow."""

import functools

import cv2
import numpy as np


def move(
    image: np.ndarray, flow: np.ndarray, times: float = 1.0, *,
    first: int = 0, border: int = cv2.BORDER_REPLICATE,
) -> np.ndarray:
    """
    Return ``image`` warped: each pixel is taken from the displacement ``times`` x ``flow``.

    ``flow`` is float32 H x W x 2, pixels, x before y. It may cover a part of ``image`` that begins
    at row and column ``first``; then that part is returned. ``border``: OpenCV's border mode.
    """
    there = cv2.scaleAdd(flow, times, places(*flow.shape[:2], first))
    return cv2.remap(image, there, None, cv2.INTER_LINEAR, borderMode=border)


@functools.lru_cache(maxsize=16)
def places(height: int, width: int, first: int = 0) -> np.ndarray:
    """
    Return the coordinates x, y of pixels, starting at (``first``, ``first``).

    float32 height x width x 2. Do not modify it: it is cached.
    """
    x, y = (np.arange(first, first + side, dtype=np.float32) for side in (width, height))
    return cv2.merge(np.meshgrid(x, y))
