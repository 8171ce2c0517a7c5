"""Pre- and post-processing of frames for the generator, on any device."""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from iov_restore_ros.compute.cpu import compute, on_one_thread
from iov_restore_ros.model import Evidence, Generator
from iov_restore_ros.model.fusion import CELL, CUES, MOTION_UNIT, path_cues
from iov_restore_ros.model.wiener import deconvolve, noise_of, reach, strips_of
from iov_restore_ros.pictures.warp import move
from iov_restore_ros.video.before import Before

Window = tuple[slice, slice]  # rows and columns


class RestoreError(Exception):
    """Frames could not be restored; the message gives the reason."""


class Input(NamedTuple):
    """
    A frame to restore, or a ``window`` of it, with its side information.

    ``frame``: uint8 H x W x 3, RGB.
    ``window``: starts at multiples of 4, and ends at multiples of 4 or at the end of the frame.
    ``noise``: what ``noise_in`` returns for the frame; needed with a window only.
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
    A frame and its ``Evidence``, as arrays with the channels last.

    ``frame`` and ``before``: uint8 H x W x 3; ``undone``: float32 H x W x 3; ``cues``: float32
    ceil(H / 4) x ceil(W / 4) x CUES.
    """

    frame: np.ndarray
    before: np.ndarray
    undone: np.ndarray
    cues: np.ndarray


def make_evidence(
    frame: np.ndarray, before: Before | None, window: Window | None = None,
    noise: Tensor | None = None,
) -> Gathered:
    """
    Compute what `model.fusion.make_evidence` computes, with OpenCV on the CPU.

    OpenCV is several times as fast there.

    If ``before`` is None, the frame itself takes its place, and all other evidence is 0. With a
    ``window`` (see ``Input``), return that part of the result for the whole frame. This needs only
    the memory of the part.
    """
    height, width = frame.shape[:2]
    window = window or (slice(0, height), slice(0, width))
    part, cells = frame[window], cells_of(window)
    rows, columns = (side.stop - side.start for side in cells)
    undone = np.broadcast_to(np.float32(0), part.shape)  # costs no memory
    cues = np.zeros((rows, columns, CUES), np.float32)
    if before is None:
        return Gathered(part, part, undone, cues)
    # Wiener's filter needs more than the window, and the previous frame there.
    near = window if before.blurring is None else _near(window, (height, width))
    moved = None
    if before.flow is not None and before.pixels is not None:
        displacement, trust = before.flow
        cues[..., :3] = trust[cells]
        first = near[0].start, near[1].start
        moved = move(before.pixels, enlarge(displacement, near), first=first)
    if before.blurring is not None:
        motion, moments, told = before.blurring
        cues[..., 3:5] = motion[cells] / MOTION_UNIT
        path = torch.from_numpy(moments[cells]).permute(2, 3, 0, 1)[None]
        cues[..., 5:-2] = path_cues(path)[0].permute(1, 2, 0).numpy()
        cues[..., -2:] = told
        undone = undo(frame, moments, near, noise, moved)[inside(window, near)]
    return Gathered(part, part if moved is None else moved[inside(window, near)], undone, cues)


def undo(
    frame: np.ndarray, moments: np.ndarray, near: Window, noise: Tensor | None,
    prior: np.ndarray | None,
) -> np.ndarray:
    """
    Return the change of a window by ``deconvolve``: float32 H x W x 3.

    ``prior`` is uint8 H x W x 3, RGB, or None without a previous frame.
    """
    image = _tensor(frame[near])
    path = torch.from_numpy(moments[cells_of(near)]).permute(2, 3, 0, 1)[None]
    filled = None if prior is None else _tensor(prior)
    undone = compute(deconvolve, image, path, noise, _inverse, filled)
    return cv2.merge([*(undone - image)[0].numpy()])


def _tensor(pixels: np.ndarray) -> Tensor:
    """Return uint8 H x W x 3 as float32 1 x 3 x H x W, 0..1."""
    return torch.from_numpy(pixels.astype(np.float32) / np.float32(255)).permute(2, 0, 1)[None]


def _near(window: Window, size: tuple[int, int]) -> Window:
    """Return the wider window that makes each pixel of the result as in the whole frame."""
    rows, columns = (
        reach(side.start, side.stop, length) for side, length in zip(window, size, strict=True)
    )
    return rows, columns


def noise_in(one: Input) -> Tensor | None:
    """Return the noise of a frame, as ``make_evidence`` estimates it from a whole frame."""
    if one.before is None or one.before.blurring is None:
        return None
    return compute(noise_of, (_tensor(one.frame[rows]) for rows in strips_of(one.size[0])))


def enlarge(cells: np.ndarray, window: Window) -> np.ndarray:
    """Interpolate cells to the pixels of a window, as `model.fusion.enlarge` does."""
    # One more cell on each side, for the interpolation at the border of the window.
    rows, columns = map(_wider, cells_of(window), (1, 1), cells.shape[:2])
    part = cells[rows, columns]
    size = part.shape[1] * CELL, part.shape[0] * CELL
    pixels = cv2.resize(part, size, interpolation=cv2.INTER_LINEAR)
    wide = slice(rows.start * CELL, None), slice(columns.start * CELL, None)
    return pixels[inside(window, wide)]


def cells_of(window: Window) -> Window:
    """Return the cells of 4x4 pixels of a window that starts at multiples of 4."""
    rows, columns = (slice(side.start // CELL, -(-side.stop // CELL)) for side in window)
    return rows, columns


def inside(window: Window, wide: Window) -> Window:
    """Return the position of a window inside a wider window."""
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
    Restore frames or windows of one size on ``device``, and wait for them.

    Returns uint8 H x W x 3, RGB, for each. Raises ``RestoreError`` if the output of the network is
    not finite.
    """
    gathered = [make_evidence(*one) for one in inputs]

    def batch(name: str) -> Tensor:
        arrays = np.stack([getattr(one, name) for one in gathered])
        return torch.from_numpy(arrays).to(device).permute(0, 3, 1, 2)

    evidence = None
    if generator.fusion is not None:
        evidence = Evidence(to_image(batch('before')), batch('undone'), batch('cues'))
    restored, finite = restore_pixels(batch('frame'), generator, evidence)
    return checked(restored.cpu().numpy(), bool(finite))


def checked(restored: np.ndarray, finite: bool) -> list[np.ndarray]:
    """Return the restored frames; raise ``RestoreError`` if the output was not ``finite``."""
    if not finite:
        raise RestoreError('the output of the network is not finite')
    return list(restored)


def to_image(pixels: Tensor) -> Tensor:
    """Convert uint8 0..255 to float32 0..1."""
    return pixels.to(torch.float32).div_(255)


def restore_pixels(
    pixels: Tensor, generator: Generator, evidence: Evidence | None = None
) -> tuple[Tensor, Tensor]:
    """
    Restore uint8 N x 3 x H x W, RGB, on the device; return uint8 N x H x W x 3, RGB.

    The second result says whether the output was finite. It is a tensor, so that nothing waits for
    the device here.
    """
    # A permuted N x H x W x 3 is already channels_last. The conversion keeps that.
    restored = generator(to_image(pixels), evidence)
    finite = torch.isfinite(restored.sum())
    restored = restored.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return restored.permute(0, 2, 3, 1).contiguous(), finite


def _wider(side: slice, by: int, length: int) -> slice:
    return slice(max(0, side.start - by), min(side.stop + by, length))


def _inverse(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute ``irfft2`` on one thread: its last bits depend on the number of threads."""
    return compute(on_one_thread, torch.fft.irfft2, spectrum, size)
