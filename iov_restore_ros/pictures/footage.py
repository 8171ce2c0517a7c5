"""Blurred pairs from consecutive frames of videos, made like GOPRO."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from iov_restore_ros.pictures.degradations.blur import GAMMA
from iov_restore_ros.pictures.files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    DataError,
    cut_at_random,
    detail,
    files_below,
    flip_at_random,
    read_frames,
    read_image,
    side_to_shrink,
    to_tensor,
    video_length,
)
from iov_restore_ros.pictures.warp import move

STRETCH = 13  # greatest M of Eq. 2; GOPRO has 7 to 13
MAX_BLUR = 30.0  # pixels, for 95 % of a crop
CROP_MARGIN = 48  # pixels around a crop, from which interpolated frames move into it
CROPS_PER_MOMENT = 4  # seeking in a video takes longer than everything else
ATTEMPTS = 40
CANDIDATES = 4  # candidates; the one with the strongest edges is used, as sky and road show no blur

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footage:
    """A video file, or a folder of consecutive frames."""

    path: Path
    length: int  # frames
    files: tuple[Path, ...] = ()  # of a folder, in order

    def read(self, first: int, count: int = STRETCH) -> np.ndarray:
        """Return ``count`` frames from number ``first``, uint8 count x H x W x 3, RGB."""
        if not self.files:
            return np.stack(read_frames(self.path, first, count))
        frames = [read_image(path) for path in self.files[first : first + count]]
        if len({frame.shape for frame in frames}) > 1:
            raise DataError(f'{self.path}: frames differ in size from {self.files[first].name} on')
        return np.stack(frames)


def list_footage(root: Path) -> list[Footage]:
    """
    Return every video and folder of frames of ``files_below(root)``; or the video ``root`` itself.

    It warns about videos that can't be read, and leaves out those with fewer than ``STRETCH``
    frames. Raises ``DataError`` if nothing is left.
    """
    if not root.exists():
        raise DataError(f'{root}: neither a folder of videos or frames nor a video')
    found = []
    folders: dict[Path, list[Path]] = {}
    for path in files_below(root) if root.is_dir() else [root]:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            folders.setdefault(path.parent, []).append(path)
        elif path.suffix.lower() in VIDEO_SUFFIXES or path == root:
            try:
                found.append(Footage(path, video_length(path)[0]))
            except DataError as error:
                log.warning('%s, skipped', error)
    found += [Footage(folder, len(files), tuple(files)) for folder, files in folders.items()]
    found = [footage for footage in found if footage.length >= STRETCH]
    if not found:
        raise DataError(
            f'{root}: no footage found (looked for {" ".join(sorted(VIDEO_SUFFIXES))} and for '
            f'folders of images, of {STRETCH} frames and more)'
        )
    return found


class FootageCrops(Dataset):
    """
    Crop number i of a random moment: the average of an exposure, and the frame at its middle.

    Frames too far apart to be averaged are first interpolated along the optical flow (see
    ``expose``). Half of the crops are averaged in linear light (Eq. 1), half in gamma-encoded
    values. Scene cuts and places where the flow fails are skipped.

    An item is a function of (seed, i) alone: (blurred, sharp), both uint8 3 x size x size, RGB.
    """

    def __init__(self, root: Path, size: int, count: int, seed: int) -> None:
        """Serve ``count`` crops of ``size`` from the videos and folders of frames at ``root``."""
        self.footage = list_footage(root)
        self.size, self.count, self.seed = size, count, seed
        starts = np.array([footage.length - STRETCH + 1 for footage in self.footage], float)
        self.probabilities = starts / starts.sum()
        self.latest: dict[tuple[int, int], np.ndarray | None] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        outer = self.size + 2 * CROP_MARGIN
        for attempt in range(ATTEMPTS):
            frames = self._moment(index // CROPS_PER_MOMENT, attempt // CROPS_PER_MOMENT)
            if frames is None:
                continue
            side = side_to_shrink(frames, outer, rng)
            places = [cut_at_random(frames, side, rng) for _ in range(CANDIDATES)]
            best = max(places, key=lambda place: detail(_inner(place[STRETCH // 2])))
            exposure = rng.uniform(0.2, STRETCH - 1)
            reach = math.ceil(exposure / 2)
            both = expose(
                shrink(best[STRETCH // 2 - reach : STRETCH // 2 + reach + 1], outer),
                exposure=exposure,
                max_blur=MAX_BLUR * rng.uniform(0.1, 1),
                gamma=GAMMA if rng.random() < 0.5 else 1.0,
            )
            if both is not None:
                crops = to_tensor(flip_at_random(both, rng, upside_down=0.25))
                return crops[0], crops[1]
        raise DataError(
            f'no usable moment in {ATTEMPTS} attempts (cuts, no detail or too fast motion), '
            f'{len(self.footage)} videos and folders, first {self.footage[0].path}'
        )

    def _moment(self, number: int, attempt: int) -> np.ndarray | None:
        """Return the frames of a moment, kept for the next crops; None if they can't be read."""
        key = number, attempt
        if key not in self.latest:
            self.latest = {kept: v for kept, v in self.latest.items() if kept[0] == number}
            rng = np.random.default_rng((self.seed, number, attempt))
            footage = self.footage[int(rng.choice(len(self.footage), p=self.probabilities))]
            try:
                self.latest[key] = footage.read(int(rng.integers(footage.length - STRETCH + 1)))
            except DataError as error:
                log.warning('%s, skipped', error)
                self.latest[key] = None
        return self.latest[key]


def expose(
    frames: np.ndarray, exposure: float, max_blur: float, gamma: float
) -> np.ndarray | None:
    """
    Average ``frames`` over an exposure around the middle one (Eqs. 2, 3).

    ``frames`` is uint8 M x H x W x 3, M odd. ``exposure`` is in frames, and is shortened so that
    95 % of the picture move by ``max_blur`` pixels at most. Frames that are at most a pixel apart,
    as in high-speed footage, are averaged directly. Otherwise frames less than a pixel apart are
    interpolated between them, along the optical flow.

    Returns (blurred, middle frame) as uint8 2 x (H - 2 CROP_MARGIN) x (W - 2 CROP_MARGIN) x 3;
    None if there is no detail, or if the flow doesn't explain the next frame (a cut, or too fast
    motion).
    """
    middle = len(frames) // 2
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    flows = {middle: _flow(grey[middle], grey[middle + 1])}
    pace = _pace(flows[middle])
    steps = max(1, math.ceil(pace))  # from a frame to the next
    reach = int(steps * min(exposure, max_blur / max(pace, 1e-6), len(frames) - 1) / 2)
    times = range(middle * steps - reach, middle * steps + reach + 1)
    early = times[0] // steps
    late = max(middle + 1, math.ceil(times[-1] / steps))
    for number in range(early, late):
        if number not in flows:
            flows[number] = _flow(grey[number], grey[number + 1])
        if not _explains(flows[number], grey[number], grey[number + 1]):
            return None
    light = (np.arange(256, dtype=np.float32) / 255) ** gamma
    lit = {number: light[frames[number]] for number in range(early, late + 1)}
    total = np.zeros_like(_inner(lit[middle]))
    for number, step in (divmod(time, steps) for time in times):
        if step:
            total += _between(lit[number], lit[number + 1], flows[number], step / steps)
        else:
            total += _inner(lit[number])
    blurred = (total / len(times)) ** (1 / gamma) * 255
    return np.stack([blurred.round().astype(np.uint8), _inner(frames[middle])])


def flow_pace(frame: np.ndarray, after: np.ndarray) -> float:
    """Return the 95th percentile of the displacement (pixels) from ``frame`` to the next one."""
    grey, grey_after = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (frame, after))
    return _pace(_flow(grey, grey_after))


def shrink(frames: np.ndarray, side: int) -> np.ndarray:
    """Shrink M x H x W x 3 to M x side x side x 3."""
    if frames.shape[1] == side:
        return frames
    return np.stack([
        cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames
    ])


def _flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the optical flow from one grey frame to the next, H x W x (x, y) in pixels."""
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    return dis.calc(first, second, None)


def _pace(flow: np.ndarray) -> float:
    return float(np.percentile(np.hypot(*np.moveaxis(_inner(flow), -1, 0)), 95))


def _explains(flow: np.ndarray, first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether the second frame, warped back along the flow, equals the first one."""
    back = _move(second, flow, 1.0)
    smooth = cv2.GaussianBlur(_inner(first), (0, 0), 1).astype(np.float32)
    contrast = float(smooth.std())
    off = float(np.abs(smooth - cv2.GaussianBlur(back, (0, 0), 1)).mean())
    # Measured: real neighbours 0.3 to 2.7 grey levels, failing flow from 4.7, cuts from 16.
    return contrast > 4 and off < 1 + 0.07 * contrast


def _between(first: np.ndarray, second: np.ndarray, flow: np.ndarray, share: float) -> np.ndarray:
    """Return the frame interpolated at ``share`` (0..1) between the first and the second."""
    early, late = _move(first, flow, -share), _move(second, flow, 1 - share)
    return (1 - share) * early + share * late


def _move(image: np.ndarray, flow: np.ndarray, share: float) -> np.ndarray:
    """Return the inner part of ``image``, warped along ``share`` of the flow."""
    corner = CROP_MARGIN, CROP_MARGIN
    return move(image, _inner(flow), share, first=corner, border=cv2.BORDER_REFLECT)


def _inner(image: np.ndarray) -> np.ndarray:
    return image[CROP_MARGIN:-CROP_MARGIN, CROP_MARGIN:-CROP_MARGIN]
