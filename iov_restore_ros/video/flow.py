"""
How a picture moved since the one before: OpenCV's DIS flow, and where it can be trusted.

Source of the flow: Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016. What
pays was measured on driving footage in rain and on blurred video (docs/video.md): half of the size
and a flow in steps of four pixels, of large pictures half of both; streaks taken off before; in
rain the frame before as it was restored, of blurred frames both as they came.
"""

from typing import NamedTuple

import cv2
import numpy as np

from iov_restore_ros.pictures.warp import move, places

HALVED = 1, 2  # times: the flow is found at half of the size, at a quarter
LARGE = 960  # if a side is longer than this
CELL = 4  # the flow is kept for cells of 4x4 pixels
SMALLEST = 32  # pixels on a side, below which no flow is looked for
STREAK = np.ones((1, 3), np.uint8)  # what is bright and thinner than this is taken off
REFINED = 1  # variational iterations on each scale; the default of 5 gained 0.05 dB in the end
STRIDE_BACK = 6  # pixels between patches; by default 4
DIFFERENT = 12.0  # grey levels, on the mean, that make pictures half alike
SMOOTHING = 0.8  # sigma, pixels of the small picture
CUT = 0.42  # of how well two pictures fit, below which they may not show one scene
ALIKE = 0.8  # correlation; neighbours in a downpour have 0.89 and more, at cuts it is 0.64 at most
WORSE = 0.01  # correlation that a flow may cost; right ones cost 0.002 at most, most of them gain
TINY = 40, 23  # width and height, pixels


class Flow(NamedTuple):
    """
    Where the places of a picture were in the one before.

    ``way``: float32 ceil(H / 4) x ceil(W / 4) x 2: from the middle of each cell of 4x4 pixels to
    where it was, x before y, in pixels. ``trust``: float32 ceil(H / 4) x ceil(W / 4) x 3: whether
    the flow stays within the picture, how well the flows there and back agree, and how alike the
    pictures are along it; all 0..1.
    """

    way: np.ndarray
    trust: np.ndarray


def look(picture: np.ndarray, streaks: bool) -> np.ndarray:
    """
    Return what the flow is looked for in: grey, smaller than ``picture``, a little smoothed.

    ``picture`` is uint8 H x W x 3, RGB, of ``SMALLEST`` pixels or more on a side; with ``streaks``
    bright streaks are taken off, as they fall and the scene does not. Returns uint8, H and W
    halved as often as ``HALVED`` says.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)  # first: then there is a third to shrink
    for _ in range(HALVED[max(grey.shape) > LARGE]):  # OpenCV is fast at halves
        height, width = grey.shape
        grey = cv2.resize(grey, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    if streaks:
        grey = cv2.morphologyEx(grey, cv2.MORPH_OPEN, STREAK)
    return cv2.GaussianBlur(grey, (0, 0), SMOOTHING)


def find_flow(
    now: np.ndarray, before: np.ndarray, height: int, width: int, *,
    restored: np.ndarray | None = None,
) -> Flow | None:
    """
    Return the flow between what ``look`` gave for two pictures of ``height`` x ``width``.

    None if they do not show one scene. A flow that makes their large shapes less alike is a wrong
    one. Between those of a cut no flow fits. None fits in a downpour either, but there the large
    shapes are alike. ``restored`` is a look at the one before as it was restored, if that isn't
    ``before``: how alike the pictures are is said of it.
    """
    there, back = search(now, before)
    moved = move(before, there)
    beside = moved if restored is None or restored is before else move(restored, there)
    flow = judge(there, back, now, beside, (height, width))
    here, then, after = (_large_shapes(picture) for picture in (now, before, moved))
    alike = _correlation(here, then)
    if _correlation(here, after) < alike - WORSE:
        return None
    # Measured: 0.5 to 1.5 between neighbours, in a downpour down to 0.29; at cuts 0 to 0.37.
    _, agreement, likeness, _ = cv2.mean(flow.trust)
    return flow if agreement + likeness / 2 >= CUT or alike >= ALIKE else None


def _large_shapes(picture: np.ndarray) -> np.ndarray:
    """Return a small picture so much smaller that no rain is left in it."""
    return cv2.resize(picture, TINY, interpolation=cv2.INTER_AREA).astype(np.float32)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return how two pictures of one size correlate, -1..1."""
    return float(cv2.matchTemplate(one, other, cv2.TM_CCOEFF_NORMED)[0, 0])


def search(now: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each place of a small picture is in the other, there and back: h x w x 2."""
    there = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    there.setVariationalRefinementIterations(REFINED)
    # The way back only has to tell whether it contradicts: a quick look will do.
    back = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    back.setPatchStride(STRIDE_BACK)
    for dis in (there, back):
        dis.setFinestScale(1)  # by default 2: that would be eighths
    return there.calc(now, before, None), back.calc(before, now, None)


def judge(
    there: np.ndarray, back: np.ndarray, now: np.ndarray, moved: np.ndarray,
    size: tuple[int, int],
) -> Flow:
    """
    Return what the flows ``there`` and ``back`` are worth, for pictures of ``size``.

    ``moved`` is the picture before moved along ``there``.
    """
    rows, columns = now.shape
    where = cv2.add(places(rows, columns), there)
    x, y = cv2.split(where)
    inside = (x > -0.5) & (y > -0.5) & (x < columns - 0.5) & (y < rows - 0.5)
    apart_x, apart_y = cv2.split(there + move(back, there))
    agreement = inside / (1 + apart_x**2 + apart_y**2)
    apart = cv2.blur(cv2.absdiff(now, moved).astype(np.float32), (5, 5))
    likeness = inside / (1 + (apart / DIFFERENT) ** 2)
    trust = cv2.merge([inside.astype(np.float32), agreement, likeness])
    height, width = size
    cells = -(-width // CELL), -(-height // CELL)
    # Between two sizes, of which one divides the other by 2 or 1, linear is the mean of its part.
    scale = width / columns, height / rows, 0.0, 0.0
    return Flow(
        cv2.multiply(cv2.resize(there, cells, interpolation=cv2.INTER_LINEAR), scale),
        cv2.resize(trust, cells, interpolation=cv2.INTER_LINEAR),
    )
