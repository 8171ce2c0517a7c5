"""
How a picture moved since the one before: OpenCV's DIS flow, and where it can be trusted.

Source of the flow: Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016. What
pays was measured on driving footage in rain and on blurred video (docs/video.md): half of the size
and a flow in steps of four pixels, of large pictures half of both; streaks taken off before; the
frame before as it was restored.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np

SHRINK = 2, 4  # the flow is found at half of the size, at a quarter
LARGE = 960  # if a side is longer than this
CELL = 4  # the flow is kept for cells of 4x4 pixels
SMALLEST = 32  # pixels on a side, below which no flow is looked for
STREAK = np.ones((1, 3), np.uint8)  # what is bright and thinner than this is taken off
REFINED = 2  # variational iterations on each scale; the default of 5 gained 0.05 dB in the end
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


def look(picture: np.ndarray, rain: bool) -> np.ndarray:
    """
    Return what the flow is looked for in: grey, smaller than ``picture``, a little smoothed.

    ``picture`` is uint8 H x W x 3, RGB, of ``SMALLEST`` pixels or more on a side; with ``rain``
    bright streaks are taken off, as they fall and the scene does not. Returns uint8, H and W
    divided by ``SHRINK``.
    """
    height, width = picture.shape[:2]
    shrink = SHRINK[max(height, width) > LARGE]
    size = width // shrink, height // shrink
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)  # first: then there is a third to shrink
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    if rain:
        grey = cv2.morphologyEx(grey, cv2.MORPH_OPEN, STREAK)
    return cv2.GaussianBlur(grey, (0, 0), SMOOTHING)


def find_flow(now: np.ndarray, before: np.ndarray, height: int, width: int) -> Flow:
    """Return the flow between what ``look`` gave for two pictures of ``height`` x ``width``."""
    return judge(*search(now, before), now, before, (height, width))


def same_scene(flow: Flow, now: np.ndarray, before: np.ndarray) -> bool:
    """
    Tell whether two pictures, as ``look`` gave them, show one scene.

    A flow that makes their large shapes less alike is a wrong one. Between those of a cut no flow
    fits. None fits in a downpour either, but there the large shapes are alike.
    """
    alike = _correlation(now, before)
    if _correlation(now, _moved(before, flow.way)) < alike - WORSE:
        return False
    # Measured: 0.5 to 1.5 between neighbours, in a downpour down to 0.29; at cuts 0 to 0.37.
    _, agreement, likeness, _ = cv2.mean(flow.trust)
    return agreement + likeness / 2 >= CUT or alike >= ALIKE


def _moved(before: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Return a small picture, each place taken from where ``Flow.way`` leads."""
    rows, columns = before.shape
    scale = np.array([columns / way.shape[1], rows / way.shape[0]], np.float32) / CELL
    where = places(rows, columns) + cv2.resize(way, (columns, rows)) * scale
    return cv2.remap(before, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _correlation(now: np.ndarray, before: np.ndarray) -> float:
    """Return how two pictures correlate (-1..1) when so small that no rain is left in them."""
    one, other = (
        cv2.resize(picture, TINY, interpolation=cv2.INTER_AREA).astype(np.float32)
        for picture in (now, before)
    )
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
    there: np.ndarray, back: np.ndarray, now: np.ndarray, before: np.ndarray,
    size: tuple[int, int],
) -> Flow:
    """Return what the flows ``there`` and ``back`` are worth, for pictures of ``size``."""
    rows, columns = now.shape
    where = cv2.add(places(rows, columns), there)
    x, y = cv2.split(where)
    inside = (x > -0.5) & (y > -0.5) & (x < columns - 0.5) & (y < rows - 0.5)

    def moved(image: np.ndarray) -> np.ndarray:
        return cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    apart_x, apart_y = cv2.split(there + moved(back))
    agreement = inside / (1 + apart_x**2 + apart_y**2)
    apart = cv2.blur(cv2.absdiff(now, moved(before)).astype(np.float32), (5, 5))
    likeness = inside / (1 + (apart / DIFFERENT) ** 2)
    trust = cv2.merge([inside.astype(np.float32), agreement, likeness])
    height, width = size
    cells = -(-width // CELL), -(-height // CELL)
    # Between two sizes, of which one divides the other by 2 or 1, linear is the mean of its part.
    scale = np.array([width / columns, height / rows], np.float32)
    return Flow(
        cv2.resize(there, cells, interpolation=cv2.INTER_LINEAR) * scale,
        cv2.resize(trust, cells, interpolation=cv2.INTER_LINEAR),
    )


@functools.lru_cache(maxsize=16)
def places(height: int, width: int) -> np.ndarray:
    """Return x and y of all pixels of a picture, float32 height x width x 2; not to be changed."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.merge([x, y])
