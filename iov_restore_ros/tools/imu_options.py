"""The options that say how an IMU is mounted beside a camera, and how the camera is read out."""

import argparse
from math import isfinite
from typing import NamedTuple

from iov_restore_ros.video.calibration import rotation_of


class Mounting(NamedTuple):
    """
    How an IMU sits beside a camera, as far as somebody said.

    ``readout``: s from the first row to the last; ``offset``: s, the IMU's stamp of a moment is the
    camera's plus that; ``rotation``: quaternion x, y, z, w from the IMU's frame to the camera's,
    empty if nobody said.
    """

    readout: float = 0.0
    offset: float = 0.0
    rotation: tuple[float, ...] = ()


def add_mounting_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``mounting_of`` reads."""
    parser.add_argument(
        '--readout', type=_seconds, default=0.0, metavar='S',
        help='s from the first row of a picture to the last, of a rolling shutter (default: 0)',
    )
    parser.add_argument(
        '--imu-time-offset', type=_seconds, default=0.0, metavar='S',
        help="the IMU's stamp of a moment less the camera's, where the search begins (default: 0)",
    )
    parser.add_argument(
        '--imu-rotation', type=_quaternion, default=(), metavar='"X Y Z W"',
        help="quaternion from the IMU's frame to the camera's (x right, y down, z ahead)",
    )


def mounting_of(options: argparse.Namespace) -> Mounting:
    """Return what the options say."""
    return Mounting(options.readout, options.imu_time_offset, options.imu_rotation)


def _seconds(text: str) -> float:
    if not isfinite(float(text)):
        raise ValueError
    return float(text)


def _quaternion(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.replace(',', ' ').split())
        rotation_of(values)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no quaternion, four numbers x y z w that are not all 0'
        ) from None
    return values
