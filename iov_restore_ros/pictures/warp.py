"""Pictures whose pixels are taken from elsewhere in them, along a flow."""

import functools

import cv2
import numpy as np


def move(
    image: np.ndarray, flow: np.ndarray, times: float = 1.0, *,
    first: int = 0, border: int = cv2.BORDER_REPLICATE,
) -> np.ndarray:
    """
    Return ``image``, each pixel taken from ``times`` ``flow`` (H x W x 2, pixels) away.

    The flow is x before y, float32. It may be that of a part of ``image`` which begins ``first``
    rows and columns in: then that part is returned. ``border``: what lies outside of ``image``.
    """
    there = cv2.scaleAdd(flow, times, places(*flow.shape[:2], first))
    return cv2.remap(image, there, None, cv2.INTER_LINEAR, borderMode=border)


@functools.lru_cache(maxsize=16)
def places(height: int, width: int, first: int = 0) -> np.ndarray:
    """
    Return x and y of pixels, from (``first``, ``first``) on; not to be changed.

    float32 height x width x 2.
    """
    x, y = (np.arange(first, first + side, dtype=np.float32) for side in (width, height))
    return cv2.merge(np.meshgrid(x, y))
