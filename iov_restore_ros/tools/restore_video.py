"""Restore one video: all frames at their times; other streams are kept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from rich.progress import Progress

from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.pictures.movie_writer import CRF, MovieWriter, check_written
from iov_restore_ros.pictures.movies import Movie, MovieError
from iov_restore_ros.tools.file_imu import FileImu
from iov_restore_ros.video.rehearsal import rehearse
from iov_restore_ros.whole import whole

STEADY = 0.9  # least share of equal intervals between frames for a constant frame rate


@dataclass(frozen=True)
class Restored:
    """The numbers of written and missed frames, the reasons, and other differences."""

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

    ``check`` is called before every frame, and may raise. ``imu``: the gyroscope of the camera.
    ``target`` gets its name when all written frames can be read from it again. Raises
    ``MovieError``, ``RestoreError``, ``OSError`` and ``cv2.error``; then there is no ``target``.
    """
    try:
        if imu is not None:
            with Movie(source) as movie:
                rehearse(history, _received(movie, history, imu), task, check)
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
                told.append(f'{movie.retimed} frames were not later than their previous one: moved')
            if (missing := dropped(ticks) - movie.lost) > 0:
                told.append(f'about {missing} frames are missing in between, by their times')
            return Restored(len(ticks), movie.lost + movie.resized, movie.troubles(), told)
    except av.FFmpegError as error:  # of the writer: no space, or unsupported by H.264
        raise MovieError(f'cannot write {target}: {error.strerror or error}') from error


def _received(
    movie: Movie, history: History, imu: FileImu
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the times (s) and pixels of a video's frames; prepare ``history`` for each."""
    for shot in movie.shots():
        imu.advance(history, shot.time, shot.pixels.shape[:2])
        yield shot.time, shot.pixels


def dropped(ticks: list[int]) -> int:
    """Return the number of missing frames at a constant frame rate; 0 for other rates."""
    steps = np.diff(ticks)
    usual = float(np.median(steps)) if len(steps) else 0.0
    off = np.rint(steps / usual) - 1 if usual else np.zeros(0)
    alike = np.abs(steps - usual) <= max(1.0, usual / 10)
    return int(off.sum()) if len(off) and alike.mean() >= STEADY else 0
