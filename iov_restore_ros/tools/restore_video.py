"""Restore one video: all its frames at their times, beside what else is in the file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from rich.progress import Progress

from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.pictures.movie_writer import CRF, MovieWriter, check_written
from iov_restore_ros.pictures.movies import Movie, MovieError
from iov_restore_ros.tools.file_imu import FileImu
from iov_restore_ros.whole import whole

STEADY = 0.9  # share of the times between two frames that are alike, at a constant rate


@dataclass(frozen=True)
class Restored:
    """How many frames are written and missed, why, and what else is not as it was."""

    frames: int
    missed: int
    failures: list[str]
    told: list[str]


def restore_video(
    restorer: Restorer, task: str, source: Path, target: Path, history: History, progress: Progress,
    check: Callable[[], None], imu: FileImu | None = None, crf: int | None = CRF,
) -> Restored:
    """
    Restore one video frame by frame into ``target``, see ``MovieWriter``.

    ``check`` is called before every frame, and may raise; ``imu``: the gyroscope beside the camera.
    ``target`` gets its name when all frames that were written are read from it again. Raises
    ``MovieError``, ``RestoreError``, ``OSError`` and ``cv2.error``, and then there is none.
    """
    try:
        with Movie(source, accurate=True) as movie, whole(target) as part:
            bar = progress.add_task(source.name, total=movie.length or None)
            ticks = []
            try:
                with MovieWriter(part, movie, crf) as writer:
                    for shot in movie.shots(writer.copy):
                        check()
                        if imu is not None:
                            imu.advance(history, shot.time, shot.pixels.shape[:2])
                        pixels = restore_next(restorer, history, shot.pixels, shot.time, task)
                        writer.write(pixels, shot)
                        progress.advance(bar)
                        ticks.append(shot.ticks)
            finally:
                progress.remove_task(bar)
            if not ticks:
                raise MovieError('no frame could be read')
            check_written(part, len(ticks))
            told = writer.told
            if movie.retimed:
                told.append(f'{movie.retimed} frames came no later than the one before: now later')
            if (missing := dropped(ticks) - movie.lost) > 0:
                told.append(f'about {missing} frames are missing in between, as their times show')
            return Restored(len(ticks), movie.lost + movie.resized, movie.troubles(), told)
    except av.FFmpegError as error:  # of the writer: no room, or what H.264 cannot hold
        raise MovieError(f'cannot write {target}: {error.strerror or error}') from error


def dropped(ticks: list[int]) -> int:
    """Return how many frames are missing between others of a constant rate; 0 for other rates."""
    steps = np.diff(ticks)
    usual = float(np.median(steps)) if len(steps) else 0.0
    off = np.rint(steps / usual) - 1 if usual else np.zeros(0)
    alike = np.abs(steps - usual) <= max(1.0, usual / 10)
    return int(off.sum()) if len(off) and alike.mean() >= STEADY else 0
