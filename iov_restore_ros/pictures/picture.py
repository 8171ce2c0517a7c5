"""A picture with its alpha and colour profile, and the error of one that cannot be read."""

from dataclasses import dataclass

import cv2
import numpy as np

from iov_restore_ros.pictures.sixteen_bits import to_eight_bits


class PictureError(ValueError):
    """A picture cannot be read or written; the message is one line, without the file name."""


@dataclass(frozen=True)
class Picture:
    """The content of a picture file, rotated upright."""

    pixels: np.ndarray  # uint8 or uint16, H x W or H x W x 3, RGB
    alpha: np.ndarray | None = None  # H x W, of the same type
    profile: bytes = b''  # ICC, of the colours

    def rgb(self) -> np.ndarray:
        """Return uint8 H x W x 3, without alpha."""
        pixels = to_eight_bits(self.pixels)
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.ndim == 2 else pixels

    def grey(self) -> np.ndarray:
        """Return uint8 H x W, without alpha."""
        pixels = to_eight_bits(self.pixels)
        return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def check_alone(count: int) -> None:
    """Raise ``PictureError`` for a file of several pictures: all but one would be lost."""
    if count > 1:
        raise PictureError(f'{count} pictures in one file; only files with one are supported')
