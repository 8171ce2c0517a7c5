"""A gyroscope for frames in files: rates from CSV, the frames' times from names or a frame rate."""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iov_restore_ros.tools.imu_options import Mounting
from iov_restore_ros.tools.known_rates import KnownRates
from iov_restore_ros.video.calibration import camera_of, rotation_of
from iov_restore_ros.video.camera_path import FASTEST
from iov_restore_ros.video.history import History

COLUMNS = 't', 'wx', 'wy', 'wz'
SLOWEST = 0.5  # largest plausible interval of samples, s; larger ones are no seconds
TICK = 100_000  # smallest plausible interval of frames, ns; smaller numbers are no times


class FileImu:
    """The gyroscope of a camera whose frames are files."""

    def __init__(self, path: Path, camera: tuple[float, ...], mounting: Mounting) -> None:
        """
        Read the rates from ``path``, see ``read_rates``. Raises ``OSError`` and ``ValueError``.

        ``camera``: focal lengths fx, fy and principal point cx, cy, in pixels of the frames.
        """
        self.rates = KnownRates(path.name, *read_rates(path), mounting.offset)
        self._camera, self._mounting = camera, mounting

    def begins_and_ends(self) -> tuple[float, float]:
        """Return the first and the last time of the rates, s by the camera's clock."""
        first, last = self.rates.stamps[[0, -1]] - self._mounting.offset
        return float(first), float(last)

    def advance(self, history: History, stamp: float, size: tuple[int, int]) -> None:
        """Prepare ``history`` for a frame of ``stamp`` s and ``size`` (height, width)."""
        history.inertial = inertial = self.rates.inertial
        if inertial.camera is None:
            fx, fy, cx, cy = self._camera
            k, turn = (fx, 0, cx, 0, fy, cy, 0, 0, 1), self._mounting.rotation or (0, 0, 0, 1)
            inertial.camera = camera_of(
                size[1], size[0], k, (), '', rotation_of(turn), self._mounting.readout, size
            )
        self.rates.advance(stamp)


def add_file_imu_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a gyroscope for one sequence of frames."""
    parser.add_argument(
        '--imu', type=Path, metavar='CSV', help='angular rates: columns t (s), wx, wy, wz (rad/s)'
    )
    parser.add_argument(
        '--camera', type=camera_numbers, metavar='FX,FY,CX,CY',
        help='focal lengths and principal point in pixels; for --imu',
    )
    parser.add_argument(
        '--fps', type=frame_rate, metavar='F',
        help='frame rate of a folder, first frame at 0 s (default: names are times, s or ns)',
    )


def camera_numbers(text: str) -> tuple[float, ...]:
    """Return focal lengths and principal point; ``ValueError`` for another text."""
    numbers = tuple(float(part) for part in text.split(','))
    if len(numbers) != 4 or not np.isfinite(numbers).all() or min(numbers[:2]) <= 0:
        raise ValueError
    return numbers


def frame_rate(text: str) -> float:
    """Return frames per second; ``ValueError`` for another text."""
    if not 0 < float(text) < np.inf:
        raise ValueError
    return float(text)


def read_rates(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the times (N, s) and angular rates (N x 3, rad/s) of a CSV file.

    Its columns are t, wx, wy, wz, or in any order if the first line names them. Raises ``OSError``,
    and ``ValueError`` with the line.
    """
    with path.open(newline='', encoding='utf-8-sig', errors='replace') as file:
        reader = csv.reader(file, skipinitialspace=True)
        lines = [(reader.line_num, line) for line in reader if any(line)]
    places = list(range(len(COLUMNS)))
    if lines and not any(_is_number(value) for value in lines[0][1]):
        names = [name.strip().lower() for name in lines.pop(0)[1]]
        if missing := [name for name in COLUMNS if name not in names]:
            raise ValueError(f'{path}: no column {", ".join(missing)} among {", ".join(names)}')
        places = [names.index(name) for name in COLUMNS]
    if not lines:
        raise ValueError(f'{path}: no samples')
    table = np.array([_numbers(path, number, line, places) for number, line in lines])
    stamps, rates = table[:, 0], table[:, 1:]
    if (most := float(np.abs(rates).max())) > FASTEST:
        raise ValueError(
            f'{path}: rates up to {most:.0f}: degrees per second? Give rad/s; no gyroscope '
            f'measures more than {FASTEST:.0f} rad/s'
        )
    if len(stamps) > 1 and (step := float(np.median(np.abs(np.diff(stamps))))) > SLOWEST:
        raise ValueError(f'{path}: its samples are {step:g} s apart: t must be in seconds')
    return stamps, rates


def times_of(frames: Sequence[Path], fps: float | None) -> list[float]:
    """
    Return the times (s) of consecutive ``frames``: from ``fps``, starting at 0, else from names.

    A name is seconds with a point, or whole nanoseconds. Raises ``ValueError``.
    """
    if fps:
        return [number / fps for number in range(len(frames))]
    names = [frame.stem for frame in frames]
    if other := next((name for name in names if not _is_number(name)), ''):
        raise ValueError(f'the name {other} is no time in s or ns: give --fps')
    if all(name.isdigit() for name in names):
        numbers = [int(name) for name in names]
        if np.median(np.diff(numbers) if len(numbers) > 1 else numbers) < TICK:
            raise ValueError(f'{names[0]} and so on are frame numbers, not times: give --fps')
        times = [number / 1e9 for number in numbers]
    else:
        times = [float(name) for name in names]
    for one, two, name in zip(times, times[1:], names[1:], strict=False):
        if two <= one:
            raise ValueError(f'{name} is not later than its previous frame: pad with zeros')
    return times


def _numbers(path: Path, number: int, line: list[str], places: list[int]) -> list[float]:
    if len(line) <= max(places):
        wanted = ','.join(COLUMNS)
        raise ValueError(f'{path}, line {number}: {len(line)} columns, expected {wanted}')
    values = [line[place] for place in places]
    if bad := next((value for value in values if not _is_number(value)), None):
        raise ValueError(f'{path}, line {number}: {bad!r} is no number')
    if '' in values:
        raise ValueError(f'{path}, line {number}: an empty column')
    return [float(value) for value in values]


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
