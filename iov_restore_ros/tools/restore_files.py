"""
Restore pictures, folders of pictures and videos.

    python -m iov_restore_ros.tools.restore_files INPUT... --output DIR --task deblur
    python -m iov_restore_ros.tools.restore_files FRAMES --video --output DIR --task derain

The frames of a video are one sequence: each is restored with what the one before shows. So are,
with --video, the pictures of each folder, in the order of their names (2 before 10).
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import Progress

from iov_restore_ros.inference import PRECISIONS, Past, RestoreError, Restorer
from iov_restore_ros.model import PRESETS, TASKS, WeightsError
from iov_restore_ros.pictures.files import by_number

PICTURES = {'.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp'}
VIDEOS = {'.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v'}
RATE = 30.0  # frames per second, where the source does not tell


class FileError(Exception):
    """A file that cannot be read or written, with the reason."""


def find_files(inputs: list[Path]) -> Iterator[tuple[Path, Path]]:
    """
    Yield (file, its path without suffix below the output folder) for files and folders.

    A folder is searched to its bottom and its structure kept; its files come in the order of their
    names and numbers. What a folder holds beside pictures and videos is left out; a file that was
    named is always tried.
    """
    for given in inputs:
        if not given.is_dir():
            yield given, Path(given.stem)
            continue
        for path in sorted(given.rglob('*'), key=lambda p: (p.parent, by_number(p))):
            if path.suffix.lower() in PICTURES | VIDEOS:
                yield path, path.relative_to(given).with_suffix('')


def restore_picture(
    restorer: Restorer, task: str, source: Path, target: Path, past: Past, stamp: float
) -> None:
    """Restore the picture that comes at ``stamp`` s; an alpha channel is kept; or ``FileError``."""
    image = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise FileError('not a readable picture' if source.exists() else 'there is no such file')
    if image.dtype != np.uint8:
        raise FileError(f'{image.dtype} pixels; only pictures of 8 bits per channel are restored')
    alpha = image[..., 3] if image.ndim == 3 and image.shape[2] == 4 else None
    if image.ndim == 2:
        frame = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    else:
        frame = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB)
    restored = past.restore(restorer, frame, stamp, task)
    if image.ndim == 2:
        pixels = cv2.cvtColor(restored, cv2.COLOR_RGB2GRAY)
    else:
        pixels = cv2.cvtColor(restored, cv2.COLOR_RGB2BGR)
    if alpha is not None:
        pixels = np.dstack([pixels, alpha])
    target.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(target), pixels):
        raise FileError(f'cannot write {target}')


def restore_video(
    restorer: Restorer, task: str, source: Path, target: Path, past: Past, progress: Progress
) -> None:
    """Restore one video frame by frame into an MP4 of the same size and rate, without sound."""
    reader = cv2.VideoCapture(str(source))
    size = tuple(int(reader.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if not reader.isOpened() or not all(size):
        raise FileError('not a readable video')
    target.parent.mkdir(parents=True, exist_ok=True)
    rate = reader.get(cv2.CAP_PROP_FPS) or RATE
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*'mp4v'), rate, size)
    if not writer.isOpened():
        raise FileError(f'cannot write {target}')
    bar = progress.add_task(source.name, total=reader.get(cv2.CAP_PROP_FRAME_COUNT) or None)
    count = 0
    try:
        while (read := reader.read())[0]:
            frame = cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
            restored = past.restore(restorer, frame, count / rate, task)
            writer.write(cv2.cvtColor(restored, cv2.COLOR_RGB2BGR))
            progress.advance(bar)
            count += 1
    finally:
        writer.release()
        reader.release()
        progress.remove_task(bar)
    if not count:
        target.unlink()
        raise FileError('no frame could be read')


def restore_all(
    restorer: Restorer, task: str, inputs: list[Path], output: Path, suffix: str,
    video: bool = False, shutter: float = 0.0,
) -> list[str]:
    """
    Restore ``inputs`` into ``output``; return a line for every file that failed.

    With ``video`` the pictures of a folder are consecutive frames. ``shutter``: see ``Past``.
    """
    files = list(find_files(inputs))
    failures = [] if files else [f'{", ".join(map(str, inputs))}: no picture or video in there']
    written: set[Path] = set()
    past, folder, frames = Past(shutter=shutter), None, 0
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(task, total=len(files))
        for source, stem in files:
            is_video = source.suffix.lower() in VIDEOS
            target = output / stem.with_name(stem.name + ('.mp4' if is_video else suffix))
            try:
                if target in written or target.resolve() == source.resolve():
                    raise FileError(f'{target} would be overwritten; give another --output')
                written.add(target)
                if is_video:
                    restore_video(restorer, task, source, target, Past(shutter=shutter), progress)
                    continue
                if not video or source.parent != folder:
                    past, folder, frames = Past(shutter=shutter), source.parent, 0
                # A frame that fails is a frame that is missing.
                frames += 1
                restore_picture(restorer, task, source, target, past, frames / RATE)
            except (FileError, RestoreError, OSError, cv2.error) as error:
                failures.append(f'{source}: {error}')
            finally:
                progress.advance(bar)
    return failures


def add_restorer_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to restore."""
    parser.add_argument('--task', choices=TASKS, required=True)
    parser.add_argument('--model', choices=PRESETS, default='fast')
    parser.add_argument('--weights', type=Path, help='a .safetensors file (default: the shipped)')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument(
        '--precision', default='auto', choices=('auto', *PRECISIONS),
        help='auto: the fastest here, by measuring; name one where every run has to give the same',
    )
    parser.add_argument(
        '--shutter', type=share, default=0.0, metavar='SHARE',
        help='of the time between two frames that the shutter is open, 0..1 (default: found out)',
    )


def share(text: str) -> float:
    """Return a number from 0 to 1. Raises ``ValueError`` for another text."""
    if not 0 <= float(text) <= 1:
        raise ValueError
    return float(text)


def restorer_of(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Restorer:
    """Return the restorer that the options ask for; the parser reports what is wrong with them."""
    try:
        weights = {options.task: options.weights} if options.weights else None
        return Restorer(options.model, weights, options.device, options.precision, [options.task])
    except (WeightsError, ValueError) as error:
        parser.error(str(error))


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description='Restore pictures, folders and videos.')
    parser.add_argument('input', nargs='+', type=Path, help='a picture, a video or a folder')
    parser.add_argument('--output', type=Path, required=True, help='folder for the results')
    add_restorer_options(parser)
    parser.add_argument(
        '--video', action='store_true', help='pictures of a folder are consecutive frames'
    )
    parser.add_argument('--format', default='png', help='of pictures: png, jpg, ...')
    options = parser.parse_args()
    suffix = '.' + options.format.lower().lstrip('.')
    if suffix not in PICTURES:
        parser.error(f'--format {options.format}: choose one of {", ".join(sorted(PICTURES))}')
    restorer = restorer_of(options, parser)
    failures = restore_all(
        restorer, options.task, options.input, options.output, suffix, options.video,
        options.shutter,
    )
    for line in failures:
        print(f'failed: {line}', file=sys.stderr)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
