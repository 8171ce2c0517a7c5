"""What one frame knows of the one before."""

from typing import NamedTuple

import numpy as np

from iov_restore_ros.video.flow import Flow


class Before(NamedTuple):
    """
    The frame before another one.

    ``pixels``: uint8 H x W x 3, RGB, where it saw them; ``flow``: from the frame to it;
    ``motion``: float32 ceil(H / 4) x ceil(W / 4) x 3, how far each cell moved while the shutter was
    open (x before y, pixels), and whether the shutter is known; None where the blur is of no
    interest.
    """

    pixels: np.ndarray
    flow: Flow
    motion: np.ndarray | None
