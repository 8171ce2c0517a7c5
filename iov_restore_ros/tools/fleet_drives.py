"""The drives of restore_fleet: how they are found, fetched, and cut into pieces."""

from __future__ import annotations  # Piece names itself

import math
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs

from iov_restore_ros.outputs import found_outside, keep_apart
from iov_restore_ros.pictures.files import DataError, by_number, files_below, video_length
from iov_restore_ros.tools.bag_metadata import METADATA
from iov_restore_ros.tools.bag_reader import open_bag
from iov_restore_ros.tools.restore_bag import left_alone, new_topics, to_restore
from iov_restore_ros.tools.restore_files import PICTURES, VIDEOS
from iov_restore_ros.tools.sqlite_file import JOURNALS
from iov_restore_ros.video.history import LONGEST_GAP

BAGS = {'.mcap', '.db3', '.bag'}  # .bag is ROS 1, which is reported on opening
# Frames before a piece that are restored and discarded; docs/fleet.md has the remaining error.
WARM_UP = 60


class FleetError(Exception):
    """Drives cannot be found, or their outputs clash; the message says what to do."""


@dataclass(frozen=True)
class Drive:
    """A bag, a video or a folder of frames (``kind``), and its ``name`` below the output folder."""

    source: str  # a path or URI
    kind: str
    name: str


@dataclass(frozen=True)
class Piece:
    """
    A part of a drive that one worker restores at a time.

    ``begin``, ``end`` (None: the end of the drive) and ``warm_up``, where restoring starts, are ns
    in a bag and numbers of frames in a folder. ``frames`` is the approximate number of frames; 0:
    unknown.
    """

    drive: Drive
    pieces: int  # of this drive
    begin: int
    end: int | None
    warm_up: int
    frames: int

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Piece:
        """Return the piece with the fields of ``row``, which ``asdict`` made."""
        return cls(**{**row, 'drive': Drive(**row['drive'])})


def place(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a local path or a URI (s3://, gs://, ...), and the path in it."""
    if '://' in uri:
        return fs.FileSystem.from_uri(uri)
    return fs.LocalFileSystem(), str(Path(uri).absolute())


def is_local(uri: str) -> bool:
    """Return whether ``uri`` is a path on this machine or on a mounted share."""
    return place(uri)[0].type_name == 'local'


def find_drives(sources: Iterable[str], output: str) -> list[Drive]:
    """
    Return the drives in ``sources``, which are drives themselves or folders with drives.

    A folder is searched completely, and the names keep its structure. If the folder ``output`` lies
    in a source, it is left out. Raises ``FleetError`` if a source has no drives or if outputs
    clash, ``OutputError`` if an output would overwrite a source, and ``OSError`` for sources that
    cannot be reached.
    """
    drives: dict[str, Drive] = {}
    for source in sources:
        found = list(_find(source))
        places = [real(drive.source) for drive in found]
        outside = set(found_outside(real(output), real(source), places))
        found = [d for d, place in zip(found, places, strict=True) if place in outside]
        if not found:
            raise FleetError(f'{source}: contains no bag, video or picture')
        for drive in found:
            other = drives.setdefault(drive.name, drive)
            if other.source != drive.source:
                raise FleetError(
                    f'{drive.source} and {other.source} would both become {drive.name}: '
                    'rename one, or give them an --output each'
                )
    for name, drive in drives.items():
        for folder in PurePosixPath(name).parents:
            if outer := drives.get(str(folder)):
                raise FleetError(
                    f'{drive.source} lies among the frames of {outer.source}, and so would its '
                    'output: move one of them'
                )
    keep_apart(
        (real(output) / name for name in drives),
        map(real, (*sources, *(drive.source for drive in drives.values()))), real(output),
    )
    return list(drives.values())


def real(uri: str) -> Path:
    """Return a path for comparisons, also of places in an object store."""
    system, path = place(uri)
    return Path(path).resolve() if is_local(uri) else Path(f'/{system.type_name}:', path)


def plan(drive: Drive, frames: int, split: bool) -> list[Piece]:
    """
    Cut a drive into pieces of about ``frames`` frames, or into one piece if not ``split``.

    Videos stay whole, because joining pieces would compress them twice. Raises the readers' errors
    for a broken drive.
    """
    if drive.kind == 'frames':
        count = len(frames_of(drive.source))
        return _cut(drive, range(0, count), count, frames if split else count, WARM_UP)
    if not is_local(drive.source):
        return [Piece(drive, 1, 0, None, 0, 0)]
    path = Path(place(drive.source)[1])
    if drive.kind == 'video':
        try:
            count, _ = video_length(path)
        except DataError:  # unknown length, or unreadable: the worker reports it
            count = 0
        return [Piece(drive, 1, 0, None, 0, count)]
    with open_bag(path) as bag:
        counts = [c.msgcount for c in to_restore(bag, new_topics(bag, (), left_alone(bag)))]
        span = range(bag.start_time, max(bag.end_time, bag.start_time + 1))
    # The warm-up is measured in frames of the slowest camera, but frames further apart than
    # LONGEST_GAP have no previous frame anyway.
    slowest = min(len(span) / max(1, min(counts, default=1)), LONGEST_GAP * 1e9)
    share = frames / max(1, max(counts, default=1)) if split else 1.0
    return _cut(drive, span, sum(counts), len(span) * share, round(WARM_UP * slowest))


def frames_of(source: str) -> list[str]:
    """Return the paths of the pictures in a folder in order, without the file system's prefix."""
    system, path = place(source)
    files = [info.path for info in system.get_file_info(fs.FileSelector(path)) if info.is_file]
    pictures = [f for f in files if _suffix(f) in PICTURES and PurePosixPath(f).name[0] != '.']
    return sorted(pictures, key=lambda file: by_number(Path(file)))


def fetch(source: str, folder: Path) -> Path:
    """Return the local path of a bag or video: itself, or a copy in ``folder``."""
    system, path = place(source)
    if system.type_name == 'local':
        return Path(path)
    folder.mkdir()
    copy = folder / PurePosixPath(path).name
    if system.get_file_info(path).is_file:
        for end in ('', *JOURNALS):
            if system.get_file_info(path + end).is_file:
                _download(system, path + end, copy.with_name(copy.name + end))
        return copy
    copy.mkdir()
    for info in system.get_file_info(fs.FileSelector(path)):
        if info.is_file:
            _download(system, info.path, copy / PurePosixPath(info.path).name)
    return copy


def fetch_frame(source: str, path: str, folder: Path) -> Path:
    """Return the local path of one of ``frames_of(source)``: itself, or a copy in ``folder``."""
    system, _ = place(source)
    if system.type_name == 'local':
        return Path(path)
    folder.mkdir(exist_ok=True)
    copy = folder / PurePosixPath(path).name
    _download(system, path, copy)
    return copy


def _cut(drive: Drive, span: range, frames: int, length: float, warm_up: int) -> list[Piece]:
    pieces = max(1, math.ceil(len(span) / max(1.0, length)))
    ends = [span.start + len(span) * n // pieces for n in range(pieces + 1)]
    return [
        Piece(
            drive, pieces, begin, None if end == span.stop else end,
            max(span.start, begin - warm_up), frames * (n + 1) // pieces - frames * n // pieces,
        )
        for n, (begin, end) in enumerate(pairwise(ends))
    ]


def _find(source: str) -> Iterable[Drive]:
    system, path = place(source)
    own = PurePosixPath(path).name
    info = system.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise FleetError(f'{source}: there is no such file or folder')
    if info.is_file:
        if kind := _kind(path):
            yield Drive(source, kind, _name(PurePosixPath(own), kind))
        return
    folders: defaultdict[PurePosixPath, list[str]] = defaultdict(list)
    for file in _files_below(system, path):
        folders[PurePosixPath(file).relative_to(path).parent].append(file)
    bags = {folder for folder, files in folders.items()
            if any(PurePosixPath(file).name == METADATA for file in files)}
    for folder, files in sorted(folders.items()):
        uri = _below(source, folder)
        name = str(folder) if folder.parts else own
        if folder in bags:
            yield Drive(uri, 'bag', name)
        if bags & {folder, *folder.parents}:
            continue
        if any(_suffix(file) in PICTURES for file in files):
            yield Drive(uri, 'frames', name)
        for file in sorted(files):
            if kind := _kind(file):
                below = PurePosixPath(file).relative_to(path)
                yield Drive(_below(source, below), kind, _name(below, kind))


def _files_below(system: fs.FileSystem, path: str) -> list[str]:
    """Return the result of ``files_below``, also for an object store."""
    if system.type_name == 'local':
        return [str(file) for file in files_below(Path(path))]
    files = system.get_file_info(fs.FileSelector(path, recursive=True))
    return [
        info.path for info in files if info.is_file
        and not any(part[0] == '.' for part in PurePosixPath(info.path).relative_to(path).parts)
    ]


def _below(source: str, path: PurePosixPath) -> str:
    base, mark, query = source.partition('?') if '://' in source else (source, '', '')
    return f'{base.rstrip("/")}/{path}{mark}{query}' if path.parts else source


def _kind(file: str) -> str:
    return 'bag' if _suffix(file) in BAGS else 'video' if _suffix(file) in VIDEOS else ''


def _name(path: PurePosixPath, kind: str) -> str:
    return str(path.with_suffix('.mp4' if kind == 'video' else ''))


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()


def _download(system: fs.FileSystem, path: str, copy: Path) -> None:
    with system.open_input_stream(path) as source, copy.open('wb') as target:
        shutil.copyfileobj(source, target, 1 << 20)
