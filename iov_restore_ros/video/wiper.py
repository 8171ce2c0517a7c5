"""
A wiper that passes before the lens, told from road users and poles by how it turns.

    bar = find_bar(grey, expected)
    if sweeps(earlier, bar): ...  # bar.cells are the wiper

A wiper is a long, dark bar where the frame before shows something brighter, and from one frame to
the next it turns about a place below the picture. Poles and vehicles that pass near are as dark and
as large, but they move on without turning. So the first frame of a sweep is never found.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

DARK = 0.25  # brightness (0..1) of a wiper, at most
DARKER = 0.05  # than what is expected there, at least
HIDING = 0.4  # share of what is expected that it hides, at least
LEAST = 40  # cells of a bar
LONG = 0.3  # heights of the picture
SLIM = 0.3  # its width, a share of its length, at most
SOLID = 0.65  # its cells, a share of those of a rectangle as long and as wide
TURN = math.radians(8)  # from frame to frame, at least
JOINED = np.ones((3, 3), np.uint8)


class Bar(NamedTuple):
    """
    A straight dark bar before a frame.

    ``cells``: uint8 rows x columns, 1 where it is; ``middle`` and ``along``: float64 2, x before y,
    in cells, and its direction, of length 1.
    """

    cells: np.ndarray
    middle: np.ndarray
    along: np.ndarray


def find_bar(grey: np.ndarray, expected: np.ndarray) -> Bar | None:
    """
    Return the longest dark bar that touches the border of the picture on the left, right or below.

    ``grey`` is a frame and ``expected`` the frame before, moved, both float32 rows x columns, 0..1.
    """
    rows, columns = grey.shape
    hidden = expected - grey
    dark = (grey < DARK) & (hidden > DARKER) & (hidden > HIDING * expected)
    joined = cv2.morphologyEx(dark.astype(np.uint8), cv2.MORPH_CLOSE, JOINED)
    _, labels, sizes, _ = cv2.connectedComponentsWithStats(joined)
    longest, bar = LONG * rows, None
    for number, (left, top, width, height, area) in enumerate(sizes):
        inside = left > 1 and left + width < columns - 1 and top + height < rows - 1
        if number == 0 or area < LEAST or inside or math.hypot(width, height) < longest:
            continue
        cells = labels == number
        places = np.argwhere(cells)[:, ::-1]
        spread, ways = np.linalg.eigh(np.cov(places.T))
        wide, long = np.sqrt(12 * spread.clip(0.01))  # of a rectangle that spreads as they do
        if long >= longest and wide < SLIM * long and area > SOLID * wide * long:
            longest, bar = long, Bar(cells.astype(np.uint8), places.mean(0), ways[:, 1])
    return bar


def sweeps(before: Bar | None, now: Bar | None) -> bool:
    """Return whether ``now`` is ``before``, of one frame before, turned about a place below."""
    if before is None or now is None:
        return False
    (ax, ay), (bx, by) = before.along, now.along
    turned = ax * by - ay * bx  # sine of the angle
    if abs(turned) < math.sin(TURN):
        return False
    rows, columns = now.cells.shape
    off_x, off_y = now.middle - before.middle
    x, y = before.middle + before.along * (off_x * by - off_y * bx) / turned
    return bool(0.9 * rows < y < 2 * rows and -0.5 * columns < x < 1.5 * columns)
