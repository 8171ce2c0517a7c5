"""Warping pictures along an optical flow."""

import functools

import cv2
import numpy as np

MOST_KEPT = 1 << 22  # pixels whose places are remembered, 8 bytes each


def move(
    image: np.ndarray, flow: np.ndarray, times: float = 1.0, *,
    first: tuple[int, int] = (0, 0), border: int = cv2.BORDER_REPLICATE,
) -> np.ndarray:
    """
    Return ``image`` warped: each pixel is taken from the displacement ``times`` x ``flow``.

    ``flow`` is float32 H x W x 2, pixels, x before y. It may cover a part of ``image`` that begins
    at row and column ``first``; then that part is returned. ``border``: OpenCV's border mode.
    """
    there = cv2.scaleAdd(flow, times, places(flow.shape[0], flow.shape[1], *first))
    return cv2.remap(image, there, None, cv2.INTER_LINEAR, borderMode=border)


def places(height: int, width: int, top: int = 0, left: int = 0) -> np.ndarray:
    """
    Return the coordinates x, y of pixels, starting at row ``top`` and column ``left``.

    float32 height x width x 2. Do not modify it: it is cached.
    """
    find = _kept_places if height * width <= MOST_KEPT else _places
    return find(height, width, top, left)


def _places(height: int, width: int, top: int, left: int) -> np.ndarray:
    x, y = (
        np.arange(first, first + side, dtype=np.float32)
        for first, side in ((left, width), (top, height))
    )
    return cv2.merge(np.meshgrid(x, y))


_kept_places = functools.lru_cache(maxsize=16)(_places)
