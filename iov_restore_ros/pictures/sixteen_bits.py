"""Pictures of 16 bits per channel beside what is restored of them, which has 8."""

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
    Add to uint16 ``original`` what ``restored``, uint8, differs from its 8-bit picture.

    So what was not restored keeps its lower bits. Returns the type of ``original``.
    """
    change = restored.astype(np.int32) - to_eight_bits(original)
    return (original + SIXTEEN_TO_EIGHT * change).clip(0, 65535).astype(original.dtype)
