"""
What lies on the glass before the lens stays in its place while the world moves.

A camera's memory of that: for each cell of a small picture averages over the frames in which the
scene moved there. From these a small network finds what is covered; there the frame is filled with
what was seen before it got covered, moved along, or smoothly from around.
"""

from typing import NamedTuple

import cv2
import numpy as np

from iov_restore_ros.pictures.warp import move

SIDE = 320  # pixels of the longer side of the small picture
STEP = 8  # its sides are multiples of it
CELL = 2  # pixels of it on a side of a cell
LASTING = 12.0  # frames that averages are taken over
MOVING = 0.010  # change from frame to frame (0..1) around a cell that moves
AROUND = 9  # cells that are looked at for that
LEAST = 1e-3  # of what logarithms are taken of


class Memory(NamedTuple):
    """
    What stayed in its place up to a frame, for each cell; all are float32 rows x columns.

    ``grey``: the last frame, 0..1; ``weight``: frames in which something moved there, at most
    ``LASTING``; ``averages`` (x 5) over these: fine detail, change from frame to frame, fine
    structure, its size, and how much differed from what the frame before, moved, showed.
    """

    grey: np.ndarray
    weight: np.ndarray
    averages: np.ndarray


def shrink(frame: np.ndarray) -> np.ndarray:
    """Return ``frame`` (uint8 H x W x 3) as the small picture that ``observe`` wants."""
    scale = min(1.0, SIDE / max(frame.shape[:2]))
    height, width = (max(STEP, round(side * scale / STEP) * STEP) for side in frame.shape[:2])
    if frame.shape[:2] == (height, width):
        return frame
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def observe(
    small: np.ndarray, expected: np.ndarray | None, memory: Memory | None
) -> tuple[np.ndarray, Memory]:
    """
    Return what the network sees of a frame, float32 PLANES x rows x columns, and the new memory.

    ``small`` is what ``shrink`` makes of the frame; ``expected`` (the same shape) of the frame
    before, as it was restored, moved to where this frame should have it, None without one.
    """
    full = _grey(small)
    rows, columns = full.shape[0] // CELL, full.shape[1] // CELL
    fine = cv2.absdiff(full, cv2.GaussianBlur(full, (0, 0), 1.2))
    grey, detail = (_cells(plane, rows, columns) for plane in (full, fine))
    structure = grey - cv2.GaussianBlur(grey, (0, 0), 3)
    apart = np.zeros_like(grey)
    if expected is not None:
        apart = grey - _cells(_grey(expected), rows, columns)
    change = np.zeros_like(grey) if memory is None else cv2.absdiff(grey, memory.grey)
    new = cv2.merge([detail, change, structure, cv2.absdiff(structure, 0.0), cv2.absdiff(apart, 0.0)])
    if memory is None:
        weight, averages = np.zeros_like(grey), new
    else:
        moving = (cv2.blur(change, (AROUND, AROUND)) / MOVING - 0.5).clip(0, 1)
        weight = cv2.min(memory.weight + moving, LASTING)
        rate = moving / cv2.max(weight, 1.0)
        averages = memory.averages + rate[..., None] * (new - memory.averages)
    lasting = cv2.split(averages)
    planes = np.stack([
        grey - 0.5,
        8 * structure,
        _logarithm(detail),
        4 * apart,
        _logarithm(change),
        _logarithm(lasting[0]),
        _logarithm(lasting[1]),
        16 * lasting[2],
        16 * lasting[3],
        lasting[2] / (lasting[3] + 0.004),
        _logarithm(lasting[4]),
        weight / LASTING,
        np.full_like(grey, float(expected is not None)),
        small.max(2)[::CELL, ::CELL].astype(np.float32) / 255 - small.min(2)[::CELL, ::CELL].astype(np.float32) / 255,
    ])
    return planes, Memory(grey, weight, averages)


def filled(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """
    Return ``values`` (float32 h x w x C) where they are ``known`` (h x w, 0..1), else from around.
    """
    if min(known.shape) <= 2:
        total = max(float(known.sum()), LEAST)
        return np.zeros_like(values) + (values * known[..., None]).sum((0, 1)) / total
    size = -(-known.shape[1] // 2), -(-known.shape[0] // 2)
    weight = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    half = cv2.resize(values * known[..., None], size, interpolation=cv2.INTER_AREA)
    around = filled(half / (weight + LEAST)[..., None], cv2.min(2 * weight, 1.0))
    around = cv2.resize(around, known.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return around + known[..., None] * (values - around)


def expect(restored: np.ndarray, way: np.ndarray | None) -> np.ndarray:
    """Return a small picture, moved on by the flow ``way`` (its H x W x 2, pixels) of before."""
    return restored if way is None else move(restored, way)


def _cells(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_AREA)


def _grey(small: np.ndarray) -> np.ndarray:
    return cv2.multiply(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), 1 / 255, dtype=cv2.CV_32F)


def _logarithm(plane: np.ndarray) -> np.ndarray:
    return np.log(plane + LEAST) / 3 + 1.5
