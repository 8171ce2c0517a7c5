"""
Restore pictures, folders of pictures and videos.

    python -m iov_restore_ros.tools.restore_files INPUT... --output DIR --task deblur
    python -m iov_restore_ros.tools.restore_files FRAMES --video --output DIR --task derain
    python -m iov_restore_ros.tools.restore_files FRAMES --video --output DIR --task deblur \
        --imu rates.csv --camera 900,900,640,360 --fps 30

The frames of a video are one sequence: each is restored with its previous frame. With --video the
pictures of each folder are one sequence too, in the order of their names (2 before 10). The rates
of the camera's gyroscope help to deblur one such sequence.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import Progress

from iov_restore_ros.compute.precisions import PRECISIONS
from iov_restore_ros.finder_options import add_finder_options, finder_files
from iov_restore_ros.inference import History, RestoreError, Restorer, restore_next
from iov_restore_ros.model import PRESETS, WeightsError
from iov_restore_ros.outputs import OutputError, Record, found_outside, keep_apart
from iov_restore_ros.pictures.files import IMAGE_SUFFIXES as PICTURES
from iov_restore_ros.pictures.files import files_below
from iov_restore_ros.pictures.movie_writer import CRF, movie_suffix
from iov_restore_ros.pictures.movies import VIDEO_SUFFIXES as VIDEOS
from iov_restore_ros.pictures.movies import MovieError, is_movie
from iov_restore_ros.pictures.picture import PictureError
from iov_restore_ros.pictures.read import read_picture
from iov_restore_ros.pictures.sixteen_bits import corrected
from iov_restore_ros.pictures.write import write_picture
from iov_restore_ros.stop import INTERRUPTED, Stop, Stopped
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.tools.file_imu import FileImu, add_file_imu_options, times_of
from iov_restore_ros.tools.imu_options import add_mounting_options, mounting_of
from iov_restore_ros.tools.known_rates import told
from iov_restore_ros.tools.restore_video import restore_video
from iov_restore_ros.video.rehearsal import rehearse

COMMAND = 'restore_files'
RATE = 30.0  # frames per second of pictures with unknown times


class FileError(Exception):
    """A file cannot be read or written; the message has the reason."""


def find_files(inputs: list[Path], output: Path) -> Iterator[tuple[Path, Path]]:
    """
    Yield (file, its path without suffix below the output folder) for files and folders.

    A folder is searched by ``files_below``, and its structure is kept. Files that are no pictures
    or videos are left out, and so is the folder ``output``. A file that is given itself is always
    tried.
    """
    for given in inputs:
        if not given.is_dir():
            yield given, Path(given.stem)
            continue
        for path in found_outside(output, given, files_below(given)):
            if path.suffix.lower() in PICTURES | VIDEOS:
                yield path, path.relative_to(given).with_suffix('')


def restore_picture(
    restorer: Restorer, task: str, source: Path, target: Path, history: History, stamp: float,
    imu: FileImu | None = None,
) -> list[str]:
    """
    Restore the picture of the time ``stamp`` (s). Raises ``FileError``.

    ``imu``: the gyroscope of the camera. Alpha and the colour profile are kept. As in the node,
    16-bit samples change by as much as their 8-bit picture. Returns the parts of the picture that
    the format of ``target`` cannot hold.
    """
    try:
        picture = read_picture(source)
        frame = picture.rgb()
        if imu is not None:
            imu.advance(history, stamp, frame.shape[:2])
        restored = restore_next(restorer, history, frame, stamp, task)
        pixels = restored
        if picture.pixels.ndim == 2:
            pixels = cv2.cvtColor(restored, cv2.COLOR_RGB2GRAY)
        if picture.pixels.dtype == np.uint16:
            pixels = corrected(picture.pixels, pixels)
        return write_picture(target, replace(picture, pixels=pixels))
    except (PictureError, MemoryError, cv2.error) as error:
        raise FileError(str(error) or 'not enough memory') from error


def received(
    times: Mapping[Path, float], history: History, imu: FileImu
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the times (s) and pixels of the readable pictures; prepare ``history`` for each."""
    for source, stamp in times.items():
        try:
            frame = read_picture(source).rgb()
        except (PictureError, cv2.error):
            continue
        imu.advance(history, stamp, frame.shape[:2])
        yield stamp, frame


@dataclass
class Outcomes:
    """The outcomes of the files."""

    restored: int = 0
    kept: int = 0
    lost: Counter[str] = field(default_factory=Counter)  # parts that the format cannot hold
    told: list[str] = field(default_factory=list)  # differences of videos from their sources
    left_out: Counter[str] = field(default_factory=Counter)  # other files in folders, by suffix
    failures: list[str] = field(default_factory=list)


def restore_all(
    restorer: Restorer, task: str, inputs: list[Path], output: Path, suffix: str, stop: Stop,
    report: Outcomes, video: bool = False, shutter: float = 0.0, overwrite: bool = False,
    imu: FileImu | None = None, times: Mapping[Path, float] | None = None, crf: int | None = CRF,
) -> None:
    """
    Restore ``inputs`` into ``output`` and record the outcomes in ``report``.

    With ``video`` the pictures of a folder are consecutive frames. ``shutter``: see ``History``.
    Existing outputs are kept, unless ``overwrite``. A sequence is kept only if all of its frames
    exist, because each frame needs its previous one. ``imu``: the gyroscope of the camera of the
    only sequence. ``times``: of frames (s), if known. ``crf`` of videos: see ``MovieWriter``.
    Raises ``Stopped`` when ``stop`` is asked. Raises ``OutputError``, before anything is written,
    if it would overwrite an input or a file that it did not make.
    """
    files = [
        (source, _target(output, stem, movie_suffix(crf) if is_video(source) else suffix))
        for source, stem in find_files(inputs, output)
    ]
    keep_apart((target for _, target in files), (*inputs, *(source for source, _ in files)), output)
    record = Record(output, COMMAND)
    report.left_out.update(
        path.suffix.lower() for given in inputs if given.is_dir()
        for path in found_outside(output, given, files_below(given))
        if path.suffix.lower() not in PICTURES | VIDEOS
    )
    if not files:
        report.failures.append(f'{", ".join(map(str, inputs))}: contains no picture or video')
    there = {target for _, target in files if not overwrite and target.exists()}
    if video:
        halves = {s.parent for s, target in files if not is_video(s) and target not in there}
        there -= {target for source, target in files if source.parent in halves}
    for _, target in files:
        if target not in there:
            record.check(target)
    videos = {source for source, _ in files if is_video(source)}
    written: dict[Path, Path] = {}
    history, folder, frames = History(shutter=shutter), None, 0
    with Progress(console=Console(stderr=True)) as progress:
        for source, target in progress.track(files, description=task):
            stop.check()
            try:
                if target in written:
                    raise FileError(
                        f'{target} is also the output of {written[target]}; rename one of them'
                    )
                written[target] = source
                if target in there:
                    report.kept += 1
                    continue
                if source in videos:
                    made = restore_video(
                        restorer, task, source, target, History(shutter=shutter), progress,
                        stop.check, imu, crf,
                    )
                    report.told.extend(f'{source}: {line}' for line in made.told)
                    report.failures.extend(f'{source}: {line}' for line in made.failures)
                else:
                    if not video or source.parent != folder:
                        history, folder, frames = History(shutter=shutter), source.parent, 0
                        if imu is not None and times is not None:
                            rehearse(history, received(times, history, imu), task, stop.check)
                    # A frame that fails counts as missing.
                    frames += 1
                    stamp = frames / RATE if times is None else times[source]
                    report.lost.update(restore_picture(
                        restorer, task, source, target, history, stamp, imu
                    ))
                record.add(target)
                report.restored += 1
            except (FileError, MovieError, RestoreError, OSError, cv2.error) as error:
                report.failures.append(f'{source}: {error}')


def is_video(path: Path) -> bool:
    """Return whether ``path`` is a video: by its suffix, or because libav can open it."""
    suffix = path.suffix.lower()
    return suffix in VIDEOS or (suffix not in PICTURES and is_movie(path))


def _target(output: Path, stem: Path, suffix: str) -> Path:
    return output / stem.with_name(stem.name + suffix)


def add_restorer_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of restoring."""
    parser.add_argument('--task', choices=TASKS, required=True, help='what to remove: blur or rain')
    parser.add_argument('--model', choices=PRESETS, default='fast', help='default: fast')
    parser.add_argument('--weights', type=Path, help='.safetensors file (default: the shipped one)')
    add_finder_options(parser)
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument(
        '--precision', default='auto', choices=('auto', *PRECISIONS),
        help='auto: the fastest one, measured at the start; name one to get equal results each run',
    )
    parser.add_argument(
        '--shutter', type=share, default=0.0, metavar='SHARE',
        help='share of the frame time that the shutter is open, 0..1 (default: estimated)',
    )


def share(text: str) -> float:
    """Return a number from 0 to 1. Raises ``ValueError`` for another text."""
    if not 0 <= float(text) <= 1:
        raise ValueError
    return float(text)


def restorer_of(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Restorer:
    """Return the restorer of the options; the parser reports errors."""
    try:
        files = finder_files(options)
        return Restorer(
            options.model, {options.task: options.weights, **files}, options.device,
            options.precision, [options.task], find=files,
        )
    except (WeightsError, ValueError) as error:
        parser.error(str(error))


def sequence_of(
    options: argparse.Namespace
) -> tuple[FileImu | None, dict[Path, float] | None]:
    """
    Return the gyroscope of the only sequence, and the times of its frames if they are files.

    Both are None if the options do not give them. Raises ``OSError`` and ``ValueError`` for wrong
    options.
    """
    if options.imu is None and options.fps is None:
        return None, None
    files = [source for source, _ in find_files(options.input, options.output)]
    frames = [source for source in files if not is_video(source)]
    if frames and not options.video:
        raise ValueError('--imu and --fps are for a sequence: give --video, or a video')
    if len({frame.parent for frame in frames}) + len(files) - len(frames) != 1:
        raise ValueError('--imu and --fps are for one sequence: a folder of frames, or a video')
    times = dict(zip(frames, times_of(frames, options.fps), strict=True)) if frames else None
    if options.imu is None or not TASKS[options.task].blur:
        return None, times
    if options.camera is None:
        raise ValueError('--imu needs --camera fx,fy,cx,cy')
    imu = FileImu(options.imu, options.camera, mounting_of(options))
    first, last = imu.begins_and_ends()
    if times and not any(first <= time <= last for time in times.values()):
        begin, end = min(times.values()), max(times.values())
        raise ValueError(
            f'{options.imu}: its samples are from {first:.3f} to {last:.3f} s, the frames from '
            f'{begin:.3f} to {end:.3f} s: no overlap, see --imu-time-offset'
        )
    return imu, times


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description='Restore pictures, folders and videos.')
    parser.add_argument('input', nargs='+', type=Path, help='a picture, a video or a folder')
    parser.add_argument('--output', type=Path, required=True, help='folder for the results')
    add_restorer_options(parser)
    parser.add_argument(
        '--video', action='store_true', help='pictures of a folder are consecutive frames'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='restore again what this command made before'
    )
    add_file_imu_options(parser)
    add_mounting_options(parser)
    parser.add_argument('--format', default='png', help='format of pictures: png, jpg, ...')
    coding = parser.add_mutually_exclusive_group()
    coding.add_argument(
        '--crf', type=int, choices=range(52), default=CRF, metavar='0..51',
        help=f'quality of H.264 videos: lower is better and larger (default: {CRF})',
    )
    coding.add_argument(
        '--lossless', dest='crf', action='store_const', const=None,
        help='write videos as FFV1 in .mkv, with exactly the restored pixels',
    )
    options = parser.parse_args()
    suffix = '.' + options.format.lower().lstrip('.')
    if suffix not in PICTURES:
        parser.error(f'--format {options.format}: choose one of {", ".join(sorted(PICTURES))}')
    try:
        imu, times = sequence_of(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    restorer = restorer_of(options, parser)
    stop, report, status = Stop(), Outcomes(), 0
    try:
        restore_all(
            restorer, options.task, options.input, options.output, suffix, stop, report,
            options.video, options.shutter, options.overwrite, imu, times, options.crf,
        )
    except OutputError as error:
        parser.error(str(error))
    except Stopped:
        print(f'stopped, {report.restored} restored; the same command continues', file=sys.stderr)
        status = INTERRUPTED
    if imu is not None:
        print(told(imu.rates.account()))
    for line in report.failures:
        print(f'failed: {line}', file=sys.stderr)
    for line in report.told:
        print(line, file=sys.stderr)
    for what, count in sorted(report.lost.items()):
        print(f'{what} lost in {count} pictures: {options.format} cannot hold it', file=sys.stderr)
    if report.left_out:
        kinds = ', '.join(f'{count} {kind or "without suffix"}'
                          for kind, count in sorted(report.left_out.items()))
        print(f'left out, neither pictures nor videos: {kinds}', file=sys.stderr)
    if report.kept:
        print(f'{report.kept} existed already; --overwrite restores them again', file=sys.stderr)
    return status or int(bool(report.failures))


if __name__ == '__main__':
    sys.exit(main())
