"""What is known beside a frame: the one before it, how it was blurred, and it without its veil."""

from typing import NamedTuple

import numpy as np

from iov_restore_ros.video.flow import Flow


class Blurring(NamedTuple):
    """
    How a frame was blurred, for each cell of 4x4 pixels: rows = ceil(H / 4), columns = ceil(W / 4).

    ``motion``: float32 rows x columns x 2, how far it moved while the shutter was open, straight,
    as far as the optical flow tells (x before y, pixels, towards the past); ``path``: float32
    rows x columns x ``MOMENTS`` x 2, where it was at the moments of the exposure, seen from its
    middle: by the camera's turning, or without a gyroscope by the same straight motion; ``told``:
    whether the time that the shutter was open is known, and whether the path is a gyroscope's.
    """

    motion: np.ndarray
    path: np.ndarray
    told: tuple[float, float]


class Before(NamedTuple):
    """
    What is known beside a frame.

    ``pixels``: uint8 H x W x 3, RGB, the frame before, where it saw them; ``flow``: from the frame
    to it; both None if there is none. ``blurring``: None where it is of no interest, or not known.
    ``clear``: uint8 H x W x 3, RGB, the frame itself without its veil, which is to be restored in
    its place; None where nobody looked for one.
    """

    pixels: np.ndarray | None
    flow: Flow | None
    blurring: Blurring | None
    clear: np.ndarray | None = None

    def planes(self) -> dict[str, np.ndarray]:
        """Return what is known by the names of `model.fusion.gather`, rows x columns x ...."""
        planes = {}
        if self.flow is not None:
            planes['way'], planes['trust'] = self.flow
        if self.blurring is not None:
            motion, path, told = self.blurring
            planes['motion'] = motion
            planes['path'] = path.reshape(*path.shape[:2], -1)
            planes['told'] = np.array(told, np.float32).reshape(1, 1, 2)
        return planes
