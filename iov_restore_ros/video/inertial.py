"""
What a camera knows of its own turning: a gyroscope beside it, as far as that can be believed.

    inertial = Inertial(gyroscope)
    inertial.camera = Camera(matrix, rotation)       # as soon as they are known
    gyroscope.add(stamp, x, y, z)                    # whenever a sample comes
    turn = inertial.turn(flow, size, stamp, took)    # between two frames
    path = inertial.path(size, stamp, exposure)      # while the shutter was open
"""

import numpy as np

from iov_restore_ros.video.camera_path import TAU, Camera, Gyroscope, turned
from iov_restore_ros.video.flow import Flow


class Inertial:
    """
    One camera's gyroscope, which several cameras may share. Not thread-safe.

    ``offset``: s, as it is known by now: the gyroscope's stamp of a moment is the camera's plus
    that (Kalibr's convention). ``trusted``: whether it agrees with what is seen; ``reason`` says
    why not, or why there is no path at the moment; empty if all is well.
    """

    def __init__(
        self, gyroscope: Gyroscope, camera: Camera | None = None, offset: float = 0.0
    ) -> None:
        """Begin; ``offset`` (s) is where the search for it starts."""
        self.gyroscope = gyroscope
        self.camera = camera
        self.offset = offset
        self.bias = np.zeros(3)  # rad/s, in the IMU's frame
        self.trusted = True
        self.reason = ''

    def forget(self) -> None:
        """Begin anew, after a jump in time."""

    def turn(
        self, flow: Flow, size: tuple[int, int], stamp: float, took: float
    ) -> np.ndarray | None:
        """
        Return what of ``flow`` comes from the camera's turning: float32 rows x columns x 2.

        ``flow`` is that of a picture of ``size`` (height, width), taken at ``stamp`` s, to one
        ``took`` s before. None where it is not known, or the gyroscope does not agree with what is
        seen.
        """
        turns = self._turned(size, stamp, np.array([-took]))
        return None if turns is None else turns[:, :, 0]

    def path(self, size: tuple[int, int], stamp: float, exposure: float) -> np.ndarray | None:
        """
        Return ``Blurring.path`` of a picture of ``size``, exposed ``exposure`` s about ``stamp``.

        None as for ``turn``.
        """
        return self._turned(size, stamp, TAU * exposure)

    def _turned(
        self, size: tuple[int, int], stamp: float, offsets: np.ndarray
    ) -> np.ndarray | None:
        if self.camera is None or not self.trusted:
            return None
        where = size, stamp + self.offset, offsets, self.bias
        turns = turned(self.gyroscope, self.camera, *where)
        if turns is None:
            self.reason = 'no samples'
        return turns
