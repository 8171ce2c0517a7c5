"""What is made of frames before and behind the generator, on whichever device it runs."""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from iov_restore_ros.compute.cpu import compute, on_one_thread
from iov_restore_ros.model import Evidence, Generator
from iov_restore_ros.model.fusion import ALONG, CELL, CUES, LUMA, MOTION_UNIT, path_cues
from iov_restore_ros.model.wiener import deconvolve, noise_of, reach, strips_of
from iov_restore_ros.pictures.warp import move
from iov_restore_ros.video.before import Before

Window = tuple[slice, slice]  # rows and columns
# OpenCV moves pixels of floats in blocks so wide; what is left of a row at its end it computes in
# another way, whose last bits may differ.
BLOCK = 128


class RestoreError(Exception):
    """Frames that could not be restored, with the reason."""


class Input(NamedTuple):
    """
    A frame that is to be restored, and what is known beside it; or a ``window`` of it alone.

    ``frame``: uint8 H x W x 3, RGB; ``window`` begins on multiples of 4, and ends on such or at the
    frame's end; ``noise``: what ``noise_in`` returns for the frame, where there is a window.
    """

    frame: np.ndarray
    before: Before | None = None
    window: Window | None = None
    noise: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frame."""
        height, width = self.frame.shape[:2]
        return height, width


@dataclass(frozen=True)
class Gathered:
    """
    A frame and the ``Evidence`` beside it, as arrays with the channels last.

    ``frame`` and ``before``: uint8 H x W x 3; ``along``: float32 H x W x ALONG; ``cues``: float32
    ceil(H / 4) x ceil(W / 4) x CUES.
    """

    frame: np.ndarray
    before: np.ndarray
    along: np.ndarray
    cues: np.ndarray


def make_evidence(
    frame: np.ndarray, before: Before | None, window: Window | None = None,
    noise: Tensor | None = None,
) -> Gathered:
    """
    Return what `model.fusion.make_evidence` does, on the CPU by OpenCV, several times as fast.

    With ``before`` None the frame stands for it, and nothing is known. With a ``window``, see
    ``Input``, that part of what it is for the whole frame, in the memory of the part.
    """
    height, width = frame.shape[:2]
    window = window or (slice(0, height), slice(0, width))
    part, cells = frame[window], cells_of(window)
    rows, columns = (side.stop - side.start for side in cells)
    along = np.broadcast_to(np.float32(0), (*part.shape[:2], ALONG))  # costs no memory
    cues = np.zeros((rows, columns, CUES), np.float32)
    if before is None:
        return Gathered(part, part, along, cues)
    if before.blurring is not None:
        motion, moments, told = before.blurring
        cues[..., 3:5] = motion[cells] / MOTION_UNIT
        path = torch.from_numpy(moments[cells]).permute(2, 3, 0, 1)[None]
        cues[..., 5:-2] = path_cues(path)[0].permute(1, 2, 0).numpy()
        cues[..., -2:] = told
        along = sample_along(frame, motion, moments, window, noise)
    if before.flow is None or before.pixels is None:
        return Gathered(part, part, along, cues)
    displacement, trust = before.flow
    cues[..., :3] = trust[cells]
    first = window[0].start, window[1].start
    moved = move(before.pixels, enlarge(displacement, window), first=first)
    return Gathered(part, moved, along, cues)


def sample_along(
    frame: np.ndarray, motion: np.ndarray, moments: np.ndarray, window: Window,
    noise: Tensor | None,
) -> np.ndarray:
    """Return what `model.fusion.sample_along` does, for a window: float32 H x W x ALONG."""
    # Of a part somewhat more is computed, so that each pixel is computed as in the whole frame.
    (rows, columns), (height, width) = window, frame.shape[:2]
    near = (
        reach(rows.start, rows.stop, height),
        _by_blocks(reach(columns.start, columns.stop, width), width),
    )
    # What is looked at from there at most, and at one more pixel for the slopes.
    far = CELL * (1 + math.ceil(np.abs(motion).max() / CELL))
    seen = _wider(near[0], far, height), _wider(near[1], far, width)
    image = frame[seen].astype(np.float32) / np.float32(255)
    luma = cv2.transform(image, np.array([LUMA], np.float32))
    across, down = (
        cv2.Sobel(luma, cv2.CV_32F, dx, dy, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
        for dx, dy in ((1, 0), (0, 1))
    )
    displacement = enlarge(motion, seen)
    slope = across * displacement[..., 0] + down * displacement[..., 1]
    inner = inside(near, seen)
    displacement, grey, image = displacement[inner], luma[inner], np.ascontiguousarray(image[inner])
    move_near = partial(
        move, first=(near[0].start, near[1].start), origin=(seen[0].start, seen[1].start)
    )
    path = torch.from_numpy(moments[cells_of(near)]).permute(2, 3, 0, 1)[None]
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    undone = compute(deconvolve, planes, path, noise, _inverse)
    along = cv2.merge([
        move_near(luma, displacement) - grey, move_near(luma, displacement, -1) - grey,
        -move_near(slope, displacement, 0.5), move_near(slope, displacement, -0.5),
        cv2.merge([*undone[0].numpy()]) - image,
    ])
    return along[inside(window, near)]


def noise_in(one: Input) -> Tensor | None:
    """Return the noise in a frame, as ``make_evidence`` finds it by itself in a whole one."""
    if one.before is None or one.before.blurring is None:
        return None
    strips = (one.frame[rows] for rows in strips_of(one.size[0]))
    return compute(noise_of, (
        torch.from_numpy(strip.astype(np.float32) / np.float32(255)).permute(2, 0, 1)[None]
        for strip in strips
    ))


def enlarge(cells: np.ndarray, window: Window) -> np.ndarray:
    """Return values of cells for each pixel of a window, as `model.fusion.enlarge` does."""
    # With one more cell on each side, by which those at the window's border are weighed.
    rows, columns = map(_wider, cells_of(window), (1, 1), cells.shape[:2])
    part = cells[rows, columns]
    size = part.shape[1] * CELL, part.shape[0] * CELL
    pixels = cv2.resize(part, size, interpolation=cv2.INTER_LINEAR)
    wide = slice(rows.start * CELL, None), slice(columns.start * CELL, None)
    return pixels[inside(window, wide)]


def cells_of(window: Window) -> Window:
    """Return the cells of 4x4 pixels that a window, beginning on multiples of 4, has."""
    rows, columns = (slice(side.start // CELL, -(-side.stop // CELL)) for side in window)
    return rows, columns


def inside(window: Window, wide: Window) -> Window:
    """Return where a window lies in a wider one."""
    rows, columns = (
        slice(side.start - around.start, side.stop - around.start)
        for side, around in zip(window, wide, strict=True)
    )
    return rows, columns


@torch.inference_mode()
def restore_inputs(
    inputs: list[Input], generator: Generator, device: torch.device
) -> list[np.ndarray]:
    """
    Restore frames, or windows, of one size on ``device`` and wait: uint8 H x W x 3 each.

    Raises ``RestoreError`` where the network's output is not finite.
    """
    gathered = [make_evidence(*one) for one in inputs]

    def batch(name: str) -> Tensor:
        arrays = np.stack([getattr(one, name) for one in gathered])
        return torch.from_numpy(arrays).to(device).permute(0, 3, 1, 2)

    evidence = None
    if generator.fusion is not None:
        evidence = Evidence(to_image(batch('before')), batch('along'), batch('cues'))
    restored, finite = restore_pixels(batch('frame'), generator, evidence)
    return checked(restored.cpu().numpy(), bool(finite))


def checked(restored: np.ndarray, finite: bool) -> list[np.ndarray]:
    """Return restored frames, if the network's output was ``finite``; raises ``RestoreError``."""
    if not finite:
        raise RestoreError('the output of the network is not finite')
    return list(restored)


def to_image(pixels: Tensor) -> Tensor:
    """Return uint8 0..255 as float32 0..1."""
    return pixels.to(torch.float32).div_(255)


def restore_pixels(
    pixels: Tensor, generator: Generator, evidence: Evidence | None = None
) -> tuple[Tensor, Tensor]:
    """
    Map uint8 N x 3 x H x W, RGB, to uint8 N x H x W x 3, on the device.

    Returns with it whether the output was finite, as a tensor, so that nothing waits for it here.
    """
    # A permuted N x H x W x 3 is channels_last as it lies; the conversion keeps that.
    restored = generator(to_image(pixels), evidence)
    finite = torch.isfinite(restored.sum())
    restored = restored.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return restored.permute(0, 2, 3, 1).contiguous(), finite


def _wider(side: slice, by: int, length: int) -> slice:
    return slice(max(0, side.start - by), min(side.stop + by, length))


def _by_blocks(columns: slice, width: int) -> slice:
    """Return columns, widened to whole blocks of OpenCV's."""
    return slice(
        columns.start // BLOCK * BLOCK, min(width, -(-columns.stop // BLOCK) * BLOCK)
    )


def _inverse(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ``irfft2``, whose last bits must not depend on the number of threads."""
    return compute(on_one_thread, torch.fft.irfft2, spectrum, size)
