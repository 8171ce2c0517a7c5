"""The side information of a frame: its previous frame, its blur, and the frame without veil."""

from typing import NamedTuple

import numpy as np

from iov_restore_ros.video.flow import Flow


class Blurring(NamedTuple):
    """
    The blur of a frame for each cell of 4x4 pixels: rows = ceil(H / 4), columns = ceil(W / 4).

    ``motion``: float32 rows x columns x 2, the straight displacement during the exposure from the
    optical flow (x before y, pixels, towards the past). ``path``: float32 rows x columns x
    ``MOMENTS`` x 2, the positions at the moments of the exposure, relative to its middle: from the
    camera's rotation, or without a gyroscope from the same straight motion. ``told``: whether the
    exposure is known, and whether the path is from a gyroscope.
    """

    motion: np.ndarray
    path: np.ndarray
    told: tuple[float, float]


class Before(NamedTuple):
    """
    The side information of a frame.

    ``pixels``: uint8 H x W x 3, RGB, the previous frame, not warped. ``flow``: from the frame to
    it. Both are None without a previous frame. ``blurring``: None if the task does not use it, or
    if it is unknown. ``clear``: uint8 H x W x 3, RGB, the frame itself without its veil, which is
    restored in its place; None if no veil was looked for.
    """

    pixels: np.ndarray | None
    flow: Flow | None
    blurring: Blurring | None
    clear: np.ndarray | None = None

    def planes(self) -> dict[str, np.ndarray]:
        """Return the planes by the names of `model.fusion.make_evidence`, rows x columns x ...."""
        planes = {}
        if self.flow is not None:
            planes['displacement'], planes['trust'] = self.flow
        if self.blurring is not None:
            motion, path, told = self.blurring
            planes['motion'] = motion
            planes['path'] = path.reshape(*path.shape[:2], -1)
            planes['told'] = np.array(told, np.float32).reshape(1, 1, 2)
        return planes
