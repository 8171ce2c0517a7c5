"""
Detect a wiper in front of the lens. Its rotation tells it from road users and poles.

    bar = find_bar(grey, expected)
    if sweeps(earlier, bar): ...  # bar.cells are the wiper

A wiper is a long, dark bar where the previous frame is brighter. From one frame to the next it
turns about a point below the picture. Poles and near vehicles can be as dark and as large, but they
move without turning. The test needs two frames, so the first frame of a sweep is never found.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

DARK = 0.25  # greatest brightness (0..1) of a wiper
DARKER = 0.05  # least difference in brightness from the expected frame
HIDING = 0.4  # least share of the expected brightness that it hides
LEAST = 40  # least number of cells of a bar
LONG = 0.3  # least length, in heights of the picture
SLIM = 0.3  # greatest width, as a share of the length
SOLID = 0.65  # least share that its cells fill of a rectangle of its length and width
TURN = math.radians(8)  # least rotation from frame to frame
JOINED = np.ones((3, 3), np.uint8)


class Bar(NamedTuple):
    """
    A straight dark bar in front of the scene.

    ``cells``: uint8 rows x columns, 1 inside the bar; ``middle``: its centre in cells; ``along``:
    its direction, of length 1. Both are float64 2, (x, y).
    """

    cells: np.ndarray
    middle: np.ndarray
    along: np.ndarray


def find_bar(grey: np.ndarray, expected: np.ndarray) -> Bar | None:
    """
    Return the longest dark bar that touches the left, right or lower border; None without one.

    ``grey`` is a frame and ``expected`` the warped previous frame, both float32 rows x columns,
    0..1.
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
        wide, long = np.sqrt(12 * spread.clip(0.01))  # of a rectangle with equal variances
        if long >= longest and wide < SLIM * long and area > SOLID * wide * long:
            longest, bar = long, Bar(cells.astype(np.uint8), places.mean(0), ways[:, 1])
    return bar


def sweeps(before: Bar | None, now: Bar | None) -> bool:
    """Return whether ``now`` is the previous frame's bar turned about a point below."""
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
