"""
Find and fill drops and dirt on the glass, which stay in place while the scene moves.

    cleaner = Cleaner(load_glass())
    clear = cleaner.clear(frame)  # a still
    found = cleaner.find(frame, before, memory)  # the next frame of a camera
    flow = found.flow(flow)  # flow under drops and dirt is filled from around
    clear, memory = cleaner.fill(frame, before, flow, found)

The memory of a camera holds averages for each cell of a small picture. An average covers the frames
in which the scene moved in that cell. A small network finds the covered cells from these averages.
A covered cell is filled from the warped previous output if the scene was seen there before,
otherwise smoothly from the surrounding cells. A frame without a certain cell is returned unchanged.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch

from iov_restore_ros.compute.cpu import compute, on_one_thread
from iov_restore_ros.model.glass import Glass
from iov_restore_ros.pictures.warp import move
from iov_restore_ros.video.flow import Flow
from iov_restore_ros.video.wiper import Bar, find_bar, sweeps

SIDE = 320  # pixels of the longer side of the small picture
STEP = 8  # its sides are multiples of this
CELL = 2  # side of a cell, in pixels of the small picture
LASTING = 12.0  # frames in an average, at most
MOVING = 0.010  # mean change from frame to frame (0..1) around a moving cell
AROUND = 9  # side of the square of cells for that mean
LEAST = 1e-3  # offset in logarithms and denominators
# Where there are drops, there are more: on a soiled glass less certainty is enough. Each pair is
# for a clean glass and for a soiled one.
SOILED = 0.005, 0.015  # share of the cells that surely lie under something
SURE = 0.5  # output of the network in these cells; UNMOVED[0] more where nothing has moved
STEADY = 0.3  # weight of the newest frame in that share
DOUBTFUL = 0.6, 0.45  # remove nothing below
CERTAIN = 0.9, 0.75  # remove all above
UNMOVED = 0.4, 0.0  # added to both where nothing has moved yet, as in a still
NEAR = np.ones((3, 3), np.uint8)  # cells around one that the previous frame must confirm
SMEARED = np.ones((5, 5), np.uint8)  # cells around a wiper, which moves during the exposure
FADING = 0.97  # factor on ``seen`` per frame, because flows are never exact


class Memory(NamedTuple):
    """
    The memory of the glass after a frame, for each cell; float32 rows x columns.

    - ``grey``: the last frame, 0..1.
    - ``weight``: the number of frames with motion in the cell, at most ``LASTING``.
    - ``averages`` (x 5) over these frames: fine detail, change from frame to frame, fine structure,
      its absolute value, and the absolute difference from the warped previous frame.
    - ``seen``: whether the scene was ever seen there, 0..1.
    - ``displacement`` (x 2): the flow to the previous frame, in pixels of the small picture; None
      without one.
    - ``share``: the network's output, and ``cover``: the share that was filled, both 0..1.
    - ``soiled``: the share of all cells that surely lie under something, smoothed over frames.
    - ``bar``: a possible wiper.
    """

    grey: np.ndarray
    weight: np.ndarray
    averages: np.ndarray
    seen: np.ndarray
    displacement: np.ndarray | None
    share: np.ndarray
    cover: np.ndarray
    soiled: float = 0.0
    bar: Bar | None = None


class Found(NamedTuple):
    """
    The drops and dirt that were found in a frame. ``small`` is the frame after ``shrink``.

    ``memory`` belongs to this frame, ``before`` to the previous frame.
    """

    small: np.ndarray
    memory: Memory
    before: Memory | None

    @property
    def nothing(self) -> bool:
        """Whether the frame needs no change."""
        return not self.memory.cover.any()

    def flow(self, flow: Flow) -> Flow:
        """Return ``flow`` with covered cells filled from the surrounding cells."""
        if self.nothing:
            return flow
        known = 1 - cv2.resize(self.memory.cover, flow.displacement.shape[1::-1])
        known *= LEAST + flow.trust[..., 1]
        return Flow(filled(flow.displacement, known), filled(flow.trust, known))


class Cleaner:
    """Removes drops and dirt that a network finds. One object serves any number of cameras."""

    def __init__(self, glass: Glass) -> None:
        """Take ``glass``. It runs on the CPU, wherever the generators run."""
        self._glass = glass.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def clear(self, frame: np.ndarray) -> np.ndarray:
        """Return a still (uint8 H x W x 3, RGB) without the drops and dirt on the glass."""
        return self.fill(frame, None, None, self.find(frame, None, None))[0]

    def find(
        self, frame: np.ndarray, before: np.ndarray | None, memory: Memory | None
    ) -> Found:
        """
        Find drops and dirt in ``frame`` (uint8 H x W x 3, RGB).

        ``before`` is the restored previous frame and ``memory`` its memory. Each may be None.
        """
        small, expected = shrink(frame), None
        if memory is not None and memory.grey.shape != tuple(n // CELL for n in small.shape[:2]):
            memory = None  # of another size
        if before is not None and memory is not None:
            expected = shrink(before)
            if memory.displacement is not None:
                expected = move(expected, memory.displacement)
        planes, new = observe(small, expected, memory)
        new = new._replace(share=compute(on_one_thread, self._look, planes))
        (cover, soiled), bar = covered(new, memory), None
        if expected is not None and memory is not None:
            bar = find_bar(new.grey, _cells(_grey(expected), *new.grey.shape))
            if bar is not None and sweeps(memory.bar, bar):
                cover = cv2.max(cover, cv2.dilate(bar.cells, SMEARED).astype(np.float32))
        return Found(small, new._replace(cover=cover, soiled=soiled, bar=bar), memory)

    def fill(
        self, frame: np.ndarray, before: np.ndarray | None, flow: Flow | None, found: Found
    ) -> tuple[np.ndarray, Memory]:
        """
        Return ``frame`` with covered cells, as ``found``, replaced by the scene, and the memory.

        ``flow`` leads to the previous frame. ``before`` is the restored previous frame, whose
        covered cells are filled. It is None if that frame was not restored and so still shows the
        drops and dirt.
        """
        memory, cover = found.memory, found.memory.cover
        height, width = frame.shape[:2]
        rows, columns = cover.shape
        seen, displacement = 1 - cover, None
        carried = None
        if flow is not None:
            scale = columns * CELL / width, rows * CELL / height, 0.0, 0.0
            size = columns * CELL, rows * CELL
            displacement = cv2.multiply(cv2.resize(flow.displacement, size), scale)
            if before is not None and found.before is not None and not found.nothing:
                coarse = cv2.resize(displacement, (columns, rows), interpolation=cv2.INTER_AREA)
                cells = coarse / CELL
                trust = cv2.resize(flow.trust, (columns, rows))
                carried = move(found.before.seen, cells) * trust[..., 0] * trust[..., 1] * FADING
                seen = cv2.max(seen, carried)
        memory = memory._replace(seen=seen, displacement=displacement)
        if found.nothing:
            return frame, memory
        around = filled(
            found.small.astype(np.float32), 1 - cv2.resize(cover, found.small.shape[1::-1])
        )
        there = cv2.resize(cover, (width, height))
        scene = cv2.resize(around.clip(0, 255).astype(np.uint8), (width, height))
        if carried is not None and before is not None and flow is not None:
            full = cv2.resize(flow.displacement, (width, height))
            known = cv2.resize(carried, (width, height))
            scene = cv2.blendLinear(move(before, full), scene, known, 1 - known)
        return cv2.blendLinear(scene, frame, there, 1 - there), memory

    @torch.inference_mode()
    def _look(self, planes: np.ndarray) -> np.ndarray:
        return torch.sigmoid(self._glass(torch.from_numpy(planes)[None]))[0].numpy()


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
    Return the network's input for a frame, float32 PLANES x rows x columns, and the new memory.

    ``small`` is the frame after ``shrink``. ``expected`` (the same shape) is the restored previous
    frame after ``shrink``, warped onto this frame; None without one.
    """
    full = _grey(small)
    rows, columns = full.shape[0] // CELL, full.shape[1] // CELL
    fine = cv2.absdiff(full, cv2.GaussianBlur(full, (0, 0), 1.2))
    grey, detail = (_cells(plane, rows, columns) for plane in (full, fine))
    structure = grey - cv2.GaussianBlur(grey, (0, 0), 3)
    nothing = np.zeros_like(grey)
    apart = nothing if expected is None else grey - _cells(_grey(expected), rows, columns)
    change = nothing if memory is None else cv2.absdiff(grey, memory.grey)
    new = cv2.merge([detail, change, structure, np.abs(structure), np.abs(apart)])
    weight, averages = nothing, new
    if memory is not None:
        moving = (cv2.blur(change, (AROUND, AROUND)) / MOVING - 0.5).clip(0, 1)
        weight = cv2.min(memory.weight + moving, LASTING)
        rate = moving / cv2.max(weight, 1.0)
        averages = memory.averages + rate[..., None] * (new - memory.averages)
    lasting = cv2.split(averages)
    planes = np.stack([
        *_pixels(small),
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
    ])
    return planes, Memory(grey, weight, averages, nothing, None, nothing, nothing)


def covered(memory: Memory, before: Memory | None) -> tuple[np.ndarray, float]:
    """
    Return the share of each cell to fill, float32 rows x columns, 0..1, and ``Memory.soiled``.

    ``memory`` belongs to this frame and has the network's output, ``before`` to the previous frame.
    """
    share, still = memory.share, 1 - cv2.min(memory.weight, 1.0)
    if before is not None:  # a cover that moves may be a road user
        share = cv2.min(share, cv2.dilate(before.share, NEAR))
    soiled = float((share > SURE + UNMOVED[0] * still).mean())
    if before is not None:
        soiled = before.soiled + STEADY * (soiled - before.soiled)
    doubtful, certain, unmoved = (
        float(np.interp(soiled, SOILED, ends)) for ends in (DOUBTFUL, CERTAIN, UNMOVED)
    )
    return ((share - unmoved * still - doubtful) / (certain - doubtful)).clip(0, 1), soiled


def filled(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """
    Return ``values`` where they are ``known``, else values from the surroundings.

    ``values`` are float32 h x w x C, C from 2 to 4; ``known`` is float32 h x w, 0..1.
    """
    if min(known.shape) <= 2:
        total = max(float(known.sum()), LEAST)
        return np.zeros_like(values) + (values * known[..., None]).sum((0, 1)) / total
    size = -(-known.shape[1] // 2), -(-known.shape[0] // 2)
    weight = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    half = cv2.resize(values * known[..., None], size, interpolation=cv2.INTER_AREA)
    around = filled(half / (weight + LEAST**2)[..., None], cv2.min(2 * weight, 1.0))
    around = cv2.resize(around, known.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return around + known[..., None] * (values - around)


def _pixels(small: np.ndarray) -> list[np.ndarray]:
    """Return separate R, G and B planes for each pixel of a cell, relative to mid-grey."""
    values = cv2.multiply(small, (1 / 255,) * 4, dtype=cv2.CV_32F) - np.float32(0.5)
    return [
        values[y::CELL, x::CELL, colour]
        for y in range(CELL) for x in range(CELL) for colour in range(3)
    ]


def _cells(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_AREA)


def _grey(small: np.ndarray) -> np.ndarray:
    return cv2.multiply(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), 1 / 255, dtype=cv2.CV_32F)


def _logarithm(plane: np.ndarray) -> np.ndarray:
    return np.log(plane + LEAST) / 3 + 1.5
