"""The options for the mounting of an IMU beside a camera, and for the camera's readout."""

import argparse
from math import isfinite
from typing import NamedTuple

from iov_restore_ros.video.calibration import rotation_of


class Mounting(NamedTuple):
    """
    How an IMU is mounted beside a camera, from the options.

    ``readout``: s from the first row to the last. ``offset``: s; the IMU's stamp of a moment is the
    camera's stamp plus this. ``rotation``: quaternion x, y, z, w from the IMU's frame to the
    camera's; empty if not given.
    """

    readout: float = 0.0
    offset: float = 0.0
    rotation: tuple[float, ...] = ()


def add_mounting_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``mounting_of`` reads."""
    parser.add_argument(
        '--readout', type=_seconds, default=0.0, metavar='S',
        help='seconds from the first row to the last of a rolling shutter (default: 0)',
    )
    parser.add_argument(
        '--imu-time-offset', type=_seconds, default=0.0, metavar='S',
        help="IMU's stamp of a moment minus the camera's; the estimate starts there (default: 0)",
    )
    parser.add_argument(
        '--imu-rotation', type=_quaternion, default=(), metavar='"X Y Z W"',
        help="quaternion from the IMU's frame to the camera's (x right, y down, z forward)",
    )


def mounting_of(options: argparse.Namespace) -> Mounting:
    """Return the mounting of the options."""
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
            f'{text!r} is no quaternion: give four numbers x y z w that are not all 0'
        ) from None
    return values
