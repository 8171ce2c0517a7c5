"""The IMU of a simulated camera: from a synthetic shake, or from a CSV file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from iov_restore_ros.pictures.degradations.blur import GAMMA
from iov_restore_ros.pictures.shaking import STILL_BEFORE, Shake, ShakenCamera, rotations
from iov_restore_ros.tools.file_imu import read_rates

SPAN = 120.0  # s with bumps; vibrations continue
EXPOSURE = 0.02  # s, of a shaken picture
MOMENTS = 11  # pictures that are averaged for it
FOCAL = 1.2  # of the width
LITTLE = 1e-4  # s, step of the numerical derivative for the rates
SEED = 3


@dataclass(frozen=True)
class ImuBeside:
    """
    An IMU with the axes of the camera: x right, y down, z forward.

    ``rates``: from a time (s, of the stamps) to the angular rates, 3, rad/s. ``camera``: fx, fy,
    cx, cy, pixels. ``exposure``: s; a frame is complete only at its end.
    """

    rates: Callable[[float], np.ndarray]
    camera: tuple[float, ...]
    exposure: float


def played(path: Path, length: float, camera: tuple[float, ...], exposure: float) -> ImuBeside:
    """
    Return an IMU with the rates of a CSV file, which repeat every ``length`` s.

    Raises ``OSError`` and ``ValueError``.
    """
    stamps, rates = read_rates(path)
    return ImuBeside(
        lambda time: np.array([
            np.interp(time % length, stamps, axis, period=length) for axis in rates.T
        ]), camera, exposure,
    )


def shaken(
    picture: Callable[[int], np.ndarray | None], fps: float, start: float, far: float
) -> tuple[Callable[[int], np.ndarray | None], ImuBeside]:
    """
    Return the pictures of a source as a camera on a bad road sees them, and its IMU.

    ``start``: s, of the first stamp. ``far``: median blur of the frames, pixels. A picture moves as
    a whole and is exposed for ``EXPOSURE`` s. A missing picture (None) stays None.
    """
    number = round(start * fps)
    while (first := picture(number)) is None:
        number += 1
    height, width = first.shape[:2]
    focal, middle = FOCAL * width, np.array([width - 1, height - 1]) / 2
    # The frame period is 1 s here, so that any time may be requested.
    camera = ShakenCamera(Shake.draw(np.random.default_rng(SEED), SPAN), focal, middle, 1.0)
    extents = [camera.extent(time / 4, EXPOSURE) for time in range(80)]
    shake = camera.shake.scaled(far / float(np.median(extents)))
    camera = ShakenCamera(shake, focal, middle, 1.0)

    linear = (np.arange(256, dtype=np.float32) / 255) ** np.float32(GAMMA)

    def exposed(number: int) -> np.ndarray | None:
        if (seen := picture(number)) is None:
            return None
        sharp, total = cv2.LUT(seen, linear), np.zeros((height, width, 3), np.float32)
        for moment in number / fps - start + EXPOSURE * np.linspace(-0.5, 0.5, MOMENTS):
            cv2.accumulate(cv2.warpPerspective(
                sharp, camera.view(moment), (width, height),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT,
            ), total)
        return cv2.convertScaleAbs(cv2.pow(total / MOMENTS, 1 / GAMMA), alpha=255)

    def rates(time: float) -> np.ndarray:
        before, after = rotations(shake.angles(
            np.array([-LITTLE, LITTLE]) / 2 + time - start + STILL_BEFORE
        ))
        return cv2.Rodrigues(before.T @ after)[0].ravel() / LITTLE

    return exposed, ImuBeside(rates, (focal, focal, *middle.tolist()), EXPOSURE)
