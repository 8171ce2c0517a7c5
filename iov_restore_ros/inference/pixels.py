"""What happens to pixels on the device, whichever it is, and what is made of them before."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from iov_restore_ros.model import Evidence, Generator
from iov_restore_ros.model.cpu import compute
from iov_restore_ros.model.fusion import ALONG, CELL, CUES, LUMA, MOTION_UNIT, path_cues
from iov_restore_ros.model.wiener import deconvolve
from iov_restore_ros.pictures.warp import move
from iov_restore_ros.video.before import Before

Window = tuple[slice, slice]  # rows and columns


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

    def cut(self, window: Window) -> 'Gathered':
        """Return a part; the window begins on multiples of 4."""
        cells = tuple(slice(side.start // CELL, -(-side.stop // CELL)) for side in window)
        return Gathered(
            self.frame[window], self.before[window], self.along[window], self.cues[cells]
        )


def gather(frame: np.ndarray, before: Before | None) -> Gathered:
    """
    Return what `model.fusion.gather` does, on the CPU by OpenCV, several times as fast.

    With ``before`` None the frame stands for it, and nothing is known.
    """
    height, width = frame.shape[:2]
    rows, columns = -(-height // CELL), -(-width // CELL)
    along = np.broadcast_to(np.float32(0), (height, width, ALONG))  # costs no memory
    cues = np.zeros((rows, columns, CUES), np.float32)
    if before is None:
        return Gathered(frame, frame, along, cues)
    if before.blurring is not None:
        motion, moments, told = before.blurring
        path = torch.from_numpy(moments).permute(2, 3, 0, 1)[None]
        cues[..., 3:5] = motion / MOTION_UNIT
        cues[..., 5:-2] = path_cues(path)[0].permute(1, 2, 0).numpy()
        cues[..., -2:] = told
        along = steer(frame, motion, path)
    if before.flow is None or before.pixels is None:
        return Gathered(frame, frame, along, cues)
    way, trust = before.flow
    cues[..., :3] = trust
    return Gathered(frame, move(before.pixels, enlarge(way, height, width)), along, cues)


def steer(frame: np.ndarray, motion: np.ndarray, path: Tensor) -> np.ndarray:
    """Return what `model.fusion.steer` does, for one frame, as float32 H x W x ALONG."""
    image = frame.astype(np.float32) / np.float32(255)
    luma = cv2.transform(image, np.array([LUMA], np.float32))
    across, down = (
        cv2.Sobel(luma, cv2.CV_32F, dx, dy, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
        for dx, dy in ((1, 0), (0, 1))
    )
    way = enlarge(motion, *luma.shape)
    slope = across * way[..., 0] + down * way[..., 1]
    undone = compute(deconvolve, torch.from_numpy(image).permute(2, 0, 1)[None], path)
    return cv2.merge([
        move(luma, way) - luma, move(luma, way, -1) - luma,
        -move(slope, way, 0.5), move(slope, way, -0.5),
        cv2.merge([*undone[0].numpy()]) - image,
    ])


def enlarge(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return values of cells for each pixel, as `model.fusion.enlarge` does."""
    size = cells.shape[1] * CELL, cells.shape[0] * CELL
    return cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR)[:height, :width]


@torch.inference_mode()
def restore_gathered(
    inputs: list[Gathered], generator: Generator, device: torch.device
) -> tuple[np.ndarray, bool]:
    """Restore frames of one size on ``device`` and wait: uint8 N x H x W x 3, and if finite."""
    def batch(name: str) -> Tensor:
        arrays = np.stack([getattr(one, name) for one in inputs])
        return torch.from_numpy(arrays).to(device).permute(0, 3, 1, 2)

    evidence = None
    if generator.fusion is not None:
        evidence = Evidence(to_image(batch('before')), batch('along'), batch('cues'))
    restored, finite = restore_pixels(batch('frame'), generator, evidence)
    return restored.cpu().numpy(), bool(finite)


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
