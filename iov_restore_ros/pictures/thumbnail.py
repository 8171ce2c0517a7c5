"""The thumbnail in which a veil is found, and the removal of the veil."""

import cv2
import numpy as np

ROWS, COLUMNS = 56, 96  # cells of a frame, whatever its size
CELL = 3  # pixels of the thumbnail on a side of a cell
THUMBNAIL = COLUMNS * CELL, ROWS * CELL  # its width and height
AROUND = np.ones((5, 5), np.uint8)  # cells
THINNEST = 0.15  # least transmission: below it noise would be amplified more than the scene


def shrink(frame: np.ndarray) -> np.ndarray:
    """Return the thumbnail of ``frame`` (uint8 H x W x 3, RGB) for ``describe``."""
    return cv2.resize(frame, THUMBNAIL, interpolation=cv2.INTER_AREA)


def describe(thumbnail: np.ndarray) -> np.ndarray:
    """
    Return float32 10 x ROWS x COLUMNS: the mean, darkest and brightest colour of each cell.

    The last plane is the darkest value of the neighbourhood. A streak of rain brightens the mean
    and the brightest colour of a cell, a veil all three. ``thumbnail`` is uint8, RGB.
    """
    parts = [thumbnail[y::CELL, x::CELL] for y in range(CELL) for x in range(CELL)]
    least, most = parts[0].copy(), parts[0].copy()
    for part in parts[1:]:
        np.minimum(least, part, out=least)
        np.maximum(most, part, out=most)
    mean = cv2.resize(thumbnail, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    black = cv2.erode(darkest(least), AROUND, borderType=cv2.BORDER_REPLICATE)
    cells = np.dstack([mean, least, most, black]).astype(np.float32) / 255
    cells[..., [0, 1, 2, 6, 7, 8]] -= 0.5
    return cells.transpose(2, 0, 1)  # a view: in memory the planes stay last


def darkest(picture: np.ndarray) -> np.ndarray:
    """Return H x W, the minimum of the three channels of each pixel."""
    red, green, blue = cv2.split(picture)
    return cv2.min(cv2.min(red, green), blue)


def unveil(frame: np.ndarray, through: np.ndarray, light: np.ndarray) -> np.ndarray:
    """
    Return the scene J of I = J t + A (1 - t), uint8 H x W x 3, where I is ``frame``.

    ``through`` is the transmission t, float32 ROWS x COLUMNS, 0..1, clipped to ``THINNEST``.
    ``light`` is the airlight A, float32 3, RGB, 0..1.
    """
    gain = cv2.resize(1 / through.clip(THINNEST, 1), frame.shape[1::-1])
    planes = []
    for plane, level in zip(cv2.split(frame), 255 * light, strict=True):
        behind = cv2.subtract(plane, float(level), dtype=cv2.CV_32F)
        planes.append(cv2.add(cv2.multiply(behind, gain), float(level), dtype=cv2.CV_8U))
    return cv2.merge(planes)
