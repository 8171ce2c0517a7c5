"""Restoring pictures of 16 bits per channel with a network that sees 8 bits."""

import cv2
import numpy as np

SIXTEEN_TO_EIGHT = 257  # 65535 / 255


def to_eight_bits(samples: np.ndarray) -> np.ndarray:
    """Round uint16 samples of either byte order to uint8; uint8 ones stay as they are."""
    if samples.dtype == np.uint8:
        return samples
    native = np.ascontiguousarray(samples, np.uint16)
    rounded = cv2.convertScaleAbs(native, alpha=1 / SIXTEEN_TO_EIGHT)
    return rounded.reshape(samples.shape)


def corrected(original: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """
    Add the change of the 8-bit picture to uint16 ``original``; ``restored`` is its new 8-bit one.

    So unchanged samples keep their lower bits. Returns the type of ``original``.
    """
    change = restored.astype(np.int32) - to_eight_bits(original)
    return (original + SIXTEEN_TO_EIGHT * change).clip(0, 65535).astype(original.dtype)
