"""
The optical flow between a picture and its previous one (OpenCV's DIS), and where to trust it.

Source of the flow: Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016. These
choices were measured on driving footage in rain and on blurred video (docs/trials.md): half of the
size and a step of four pixels, for large pictures half of both; streaks removed before; in rain the
restored previous frame, for blurred frames both as received.
"""

from typing import NamedTuple

import cv2
import numpy as np

from iov_restore_ros.pictures.warp import move, places

HALVED = 1, 2  # times: the flow is found at half of the size, or at a quarter
LARGE = 960  # pixels; a quarter if a side is longer
CELL = 4  # the flow is stored for cells of 4x4 pixels
SMALLEST = 32  # least side in pixels for finding a flow
STREAK = np.ones((1, 3), np.uint8)  # bright structures thinner than this are removed
REFINED = 1  # variational iterations on each scale; the default of 5 gained 0.05 dB in the end
STRIDE_BACK = 6  # pixels between patches of the backward flow; by default 4
DIFFERENT = 12.0  # mean difference in grey levels at which the similarity is one half
SMOOTHING = 0.8  # sigma, pixels of the small picture
CUT = 0.42  # fit of two pictures below which they may not show one scene
ALIKE = 0.8  # correlation; consecutive frames in a downpour have 0.89 or more, cuts 0.64 at most
WORSE = 0.01  # largest loss of correlation by a flow; right ones lose 0.002 at most, most gain
TINY = 40, 23  # width and height, pixels


class Flow(NamedTuple):
    """
    The optical flow from a picture to its previous one.

    ``displacement``: float32 ceil(H / 4) x ceil(W / 4) x 2: from the middle of each cell of 4x4
    pixels to its earlier place, x before y, in pixels. ``trust``: float32 ceil(H / 4) x
    ceil(W / 4) x 3: whether the flow stays within the picture, how well the forward and the
    backward flow agree, and how similar the pictures are along it; all 0..1.
    """

    displacement: np.ndarray
    trust: np.ndarray


def flow_picture(picture: np.ndarray, streaks: bool) -> np.ndarray:
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
    Return the flow between two pictures of ``height`` x ``width``, given their ``flow_picture``.

    None if they do not show one scene. A flow that makes their coarse structure less similar is
    wrong. At a cut no flow fits. In a downpour no flow fits either, but the coarse structure is
    similar. ``restored`` is the ``flow_picture`` of the restored previous picture, if that isn't
    ``before``: the similarity is measured against it.
    """
    there, back = search(now, before)
    moved = move(before, there)
    beside = moved if restored is None or restored is before else move(restored, there)
    flow = judge(there, back, now, beside, (height, width))
    here, then, after = (_large_shapes(picture) for picture in (now, before, moved))
    alike = _correlation(here, then)
    if _correlation(here, after) < alike - WORSE:
        return None
    # Measured: 0.5 to 1.5 for consecutive frames, in a downpour down to 0.29; at cuts 0 to 0.37.
    _, agreement, likeness, _ = cv2.mean(flow.trust)
    return flow if agreement + likeness / 2 >= CUT or alike >= ALIKE else None


def _large_shapes(picture: np.ndarray) -> np.ndarray:
    """Return a picture reduced so far that no rain is left in it."""
    return cv2.resize(picture, TINY, interpolation=cv2.INTER_AREA).astype(np.float32)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two pictures of one size, -1..1."""
    return float(cv2.matchTemplate(one, other, cv2.TM_CCOEFF_NORMED)[0, 0])


def search(now: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the forward and the backward flow between two small pictures, h x w x 2 each."""
    there = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    there.setVariationalRefinementIterations(REFINED)
    # The backward flow only checks the forward one, so a coarser search is enough.
    back = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    back.setPatchStride(STRIDE_BACK)
    for dis in (there, back):
        dis.setFinestScale(1)  # by default 2, which would be an eighth of the size
    return there.calc(now, before, None), back.calc(before, now, None)


def judge(
    there: np.ndarray, back: np.ndarray, now: np.ndarray, moved: np.ndarray,
    size: tuple[int, int],
) -> Flow:
    """
    Return the forward flow ``there`` with its trust, for pictures of ``size`` (height, width).

    ``back`` is the backward flow. ``moved`` is the previous picture warped along ``there``.
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
    # For a ratio of 1 or 2 linear interpolation is the mean of a cell.
    scale = width / columns, height / rows, 0.0, 0.0
    return Flow(
        cv2.multiply(cv2.resize(there, cells, interpolation=cv2.INTER_LINEAR), scale),
        cv2.resize(trust, cells, interpolation=cv2.INTER_LINEAR),
    )
