"""
The work of restore_fleet's workers: restore a piece of a drive, join pieces, publish drives.

The pieces of a folder of frames or of a bag lie in `.fleet` below the output folder until they are
joined. Every file there is complete, because it gets its name last.
"""

import hashlib
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pyarrow import fs
from rich.progress import Progress
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer

from iov_restore_ros.inference import History, RestoreError, Restorer
from iov_restore_ros.outputs import OutputError
from iov_restore_ros.tools.bag_imu import AS_FOUND, BagImu, ImuOptions
from iov_restore_ros.tools.bag_metadata import METADATA
from iov_restore_ros.tools.bag_reader import Bag, open_bag
from iov_restore_ros.tools.bag_writer import BAG_VERSION, add_topic, new_bag
from iov_restore_ros.tools.fleet_drives import (
    Drive,
    Piece,
    fetch,
    fetch_frame,
    frames_of,
    is_local,
    place,
)
from iov_restore_ros.tools.restore_bag import (
    IMAGE_FAILURES,
    Beside,
    copy_bag,
    imu_of,
    left_alone,
    new_topics,
    restore_images,
    to_restore,
)
from iov_restore_ros.tools.restore_files import RATE, FileError, restore_picture
from iov_restore_ros.tools.restore_video import restore_video
from iov_restore_ros.whole import whole

STATE = '.fleet'  # folder of unfinished work, and of the outcomes of finished drives
MANIFEST = 'manifest.jsonl'
WORK = 'work'  # files being written; useless for another run
TOLD = 20  # failures of a drive that the manifest names
DONE, SHORT, FAILED = 'done', 'short', 'failed'  # states of a drive

Outcome = dict[str, Any]  # a line of the manifest


class Restored(NamedTuple):
    """The outcome of a drive or of a piece."""

    frames: int  # that were read
    failures: list[str]  # a line for each frame that could not be restored
    expected: int | None = None  # frames that the drive declares; None: unknown
    short: Sequence[str] = ()  # lines about other declared data that could not be read
    left: Mapping[str, str] = {}  # image topics that are not restored, and why


@dataclass(frozen=True)
class Settings:
    """How drives are restored; ``output`` is a path or URI."""

    output: str
    task: str
    model: str
    weights: str  # a file
    sha256: str  # of that
    device: str
    precision: str
    shutter: float
    imu: ImuOptions = AS_FOUND  # of bags
    finders: tuple[tuple[str, str, str], ...] = ()  # name, file and its SHA-256 of each

    def key(self) -> str:
        """Return a name for all settings that change the results."""
        what = (
            self.task, self.model, self.sha256, self.precision, self.shutter, self.imu,
            [sha256 for _, _, sha256 in self.finders],
        )
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]


class DriveStore:
    """The output folder: finished drives and the parts of unfinished ones."""

    def __init__(self, settings: Settings) -> None:
        """Open it; folders are created when they are needed."""
        self.settings = settings
        self.system, self.path = place(settings.output)
        self.local = is_local(settings.output)
        self.state = f'{self.path}/{STATE}/{settings.key()}'

    def outcome(self, drive: Drive) -> Outcome | None:
        """
        Return the outcome of a finished drive; None if it is not finished.

        Raises ``FileError`` if its output was made by other settings or another program.
        """
        note = f'{self.state}/{drive.name}.json'
        noted = self.system.get_file_info(note).is_file
        outcome = json.loads(self._read(note)) if noted else None
        last = f'{self.path}/{drive.name}' + (f'/{outcome["last"]}' if outcome else '')
        if self.system.get_file_info(last.rstrip('/')).type == fs.FileType.NotFound:
            return None
        if outcome is None:
            raise FileError(
                f'{self.path}/{drive.name} exists already, and was not made by this command with '
                'these settings; give another --output'
            )
        return outcome

    def part(self, piece: Piece) -> Path:
        """Return the folder of a restored piece; only for local outputs."""
        end = 'end' if piece.end is None else piece.end
        return Path(self.state, piece.drive.name, f'{piece.begin}-{end}')

    @contextmanager
    def work(self) -> Iterator[Path]:
        """Yield a temporary folder to write to."""
        parent = Path(self.path, STATE, WORK) if self.local else None
        if parent:
            parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as name:
            yield Path(name)

    def keep(self, made: Path, part: Path) -> None:
        """Rename ``made`` to ``part``; if another worker did it first, its result is the same."""
        part.parent.mkdir(parents=True, exist_ok=True)
        if not part.exists():
            made.rename(part)

    def publish(self, made: Path, outcome: Outcome, drive: Drive) -> None:
        """
        Put ``made``, a file or folder, completely into the output folder.

        Locally it is renamed at once. In an object store complete files appear one by one.
        ``outcome`` is written first and names the last file, which marks the drive as done.
        """
        files = [made] if made.is_file() else sorted(p for p in made.rglob('*') if p.is_file())
        files.sort(key=lambda file: file.name == METADATA)  # without it a folder is no bag
        outcome['last'] = '' if made.is_file() else files[-1].relative_to(made).as_posix()
        note = f'{self.state}/{drive.name}.json'
        target = f'{self.path}/{drive.name}'
        self._write(note, json.dumps(outcome))
        if self.local:
            self.keep(made, Path(target))
            return
        for file in files:
            self._write(
                target if made.is_file() else f'{target}/{file.relative_to(made).as_posix()}', file
            )

    def write_manifest(self, outcomes: list[Outcome]) -> None:
        """Write one line of JSON for each drive."""
        text = ''.join(json.dumps(outcome) + '\n' for outcome in outcomes)
        self._write(f'{self.path}/{MANIFEST}', text)

    def check(self) -> None:
        """Raise ``OutputError`` if the manifest is from another program."""
        path = f'{self.path}/{MANIFEST}'
        if self.system.get_file_info(path).type == fs.FileType.NotFound:
            return
        try:
            lines = [json.loads(line) for line in self._read(path).splitlines()]
            ours = all({'source', 'output'} <= line.keys() for line in lines)
        except (ValueError, AttributeError):
            ours = False
        if not ours:
            raise OutputError(
                f'{path} exists, and restore_fleet did not make it: move it away, or give another '
                '--output'
            )

    def tidy(self) -> None:
        """Remove the unfinished files of killed workers."""
        if self.local:
            shutil.rmtree(Path(self.path, STATE, WORK), ignore_errors=True)

    def _read(self, path: str) -> str:
        with self.system.open_input_stream(path) as stream:
            return stream.read().decode()

    def _write(self, path: str, content: str | Path) -> None:
        """Write a file that is complete or absent."""
        with ExitStack() as stack:
            # What goes into an object store is whole there or not at all, anyway.
            part = stack.enter_context(whole(Path(path))) if self.local else path
            stream = stack.enter_context(self.system.open_output_stream(str(part)))
            if isinstance(content, str):
                stream.write(content.encode())
            else:
                shutil.copyfileobj(stack.enter_context(content.open('rb')), stream, 1 << 20)


class Worker:
    """A process that Ray starts once for many pieces; it has one ``Restorer``."""

    def __init__(self, settings: Settings) -> None:
        """Load the weights. Raises the errors of ``Restorer``."""
        self.settings = settings
        self.store = DriveStore(settings)
        self.imu: BagImu | None = None  # of the bag that is being restored
        self.told: list[str] = []  # of the video
        task = settings.task
        files = {name: path for name, path, _ in settings.finders}
        self.restorer = Restorer(
            settings.model, {task: settings.weights, **files}, settings.device,
            settings.precision, [task], find=files,
        )
        wanted = {task: settings.sha256} | {name: sha256 for name, _, sha256 in settings.finders}
        for name, sha256 in wanted.items():
            if self.restorer.sha256[name] != sha256:
                path = self.restorer.weights[name]
                raise ValueError(f'{path} is another file on {platform.node()}')

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        """Restore the piece in ``row`` (JSON); returns its outcome, or the error (JSON)."""
        piece = Piece.from_row(json.loads(row['piece']))
        started = time.monotonic()
        try:
            outcome = self._restore(piece, started)
        except Exception as error:  # noqa: BLE001  whatever is broken in a drive, others go on
            outcome = {'error': f'{type(error).__name__}: {error}'}
        return {'piece': row['piece'], 'outcome': json.dumps(outcome)}

    def _restore(self, piece: Piece, started: float) -> Outcome:
        with self.store.work() as work:
            made = work / PurePosixPath(piece.drive.name).name
            restore = {'bag': self._bag, 'video': self._video, 'frames': self._frames}
            self.imu, self.told = None, []
            restored = restore[piece.drive.kind](piece, work, made)
            outcome = outcome_of(
                self.settings, piece.drive, restored, time.monotonic() - started
            )
            if self.imu is not None:
                outcome['gyroscope'] = self.imu.accounts()
            if self.told:
                outcome['told'] = self.told
            if piece.pieces == 1:
                self.store.publish(made, outcome, piece.drive)
            else:
                (made / 'outcome.json').write_text(
                    json.dumps({**outcome, 'failures': restored.failures})
                )
                self.store.keep(made, self.store.part(piece))
        return outcome

    def _bag(self, piece: Piece, work: Path, made: Path) -> Restored:
        settings = self.settings
        with open_bag(fetch(piece.drive.source, work / 'in')) as bag:
            left = left_alone(bag)
            names = new_topics(bag, (), left)
            whole = piece.pieces == 1
            span = (None, None) if whole else (piece.warm_up, piece.end)
            self.imu = imu_of(bag, names, self.restorer, settings.task, settings.imu, *span)
            beside = restore_images(
                bag, names, self.restorer, settings.task, settings.shutter, self.imu, span[0]
            )
            if whole:
                return rewrite(bag, made, names, left, beside)
            made.mkdir()
            return restore_part(bag, piece, made / 'images', names, beside)

    def _video(self, piece: Piece, work: Path, made: Path) -> Restored:
        video = fetch(piece.drive.source, work / 'in')
        restored = restore_video(
            self.restorer, self.settings.task, video, made, History(shutter=self.settings.shutter),
            Progress(disable=True), lambda: None,
        )
        self.told = restored.told
        missed = max(1, restored.missed) if restored.failures else 0  # 1: not told
        return Restored(restored.frames, [], restored.frames + missed, restored.failures)

    def _frames(self, piece: Piece, work: Path, made: Path) -> Restored:
        history = History(shutter=self.settings.shutter)
        paths, failures = frames_of(piece.drive.source)[: piece.end], []
        for number in range(piece.warm_up, len(paths)):
            own = number >= piece.begin
            target = (made if own else work / 'warm_up') / PurePosixPath(paths[number]).name
            picture = fetch_frame(piece.drive.source, paths[number], work / 'in')
            try:
                restore_picture(
                    self.restorer, self.settings.task, picture, target.with_suffix('.png'), history,
                    (number + 1) / RATE,
                )
            except (FileError, RestoreError) as error:
                if own:
                    failures.append(f'{paths[number]}: {error}')
            if work in picture.parents:
                picture.unlink()
        if not made.exists():
            raise FileError(f'none of the frames could be restored; {failures[0]}')
        frames = len(paths) - piece.begin
        return Restored(frames, failures, frames)


def restore_part(
    bag: Bag, piece: Piece, target: Path, names: Mapping[str, str], beside: Beside
) -> Restored:
    """
    Write the restored images of a piece of an open bag, and nothing else, into a new bag.

    ``names``: see ``new_topics``. A failed image is written without content.
    """
    images = to_restore(bag, names)
    frames, reasons = 0, []
    with Writer(target, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
        targets = {c.id: add_topic(writer, c, c.topic) for c in images}
        for connection, when, data in bag.messages(images, piece.warm_up, piece.end):
            reason = ''
            try:
                new = beside(connection, when, data)
            except IMAGE_FAILURES as error:
                new, reason = b'', str(error)
            if when >= piece.begin:
                frames += 1
                writer.write(targets[connection.id], when, new)
                if reason:
                    reasons.append(reason)
    return Restored(frames, reasons)


def rewrite(
    bag: Bag, target: Path, names: Mapping[str, str], left: Mapping[str, str], beside: Beside
) -> Restored:
    """Write a bag as restore_bag does; ``names``, ``left``: see ``new_topics``."""
    with new_bag(target, bag, bag.storage) as writer:
        written, failures, short = copy_bag(bag, bag.messages(), writer, names, beside)
    expected = sum(connection.msgcount for connection in to_restore(bag, names))
    return Restored(written.total() + len(failures), failures, expected, short, left)


def join(settings: Settings, pieces: list[Piece]) -> Outcome:
    """Join the pieces of a drive, which must all exist; return its outcome."""
    store, drive = DriveStore(settings), pieces[0].drive
    parts = [store.part(piece) for piece in pieces]
    outcomes = [json.loads((part / 'outcome.json').read_text()) for part in parts]
    failures = [failure for outcome in outcomes for failure in outcome['failures']]
    with store.work() as work:
        made = work / PurePosixPath(drive.name).name
        if drive.kind == 'bag':
            with open_bag(Path(place(drive.source)[1])) as bag:
                left = left_alone(bag)
                names = new_topics(bag, (), left)
                restored = rewrite(bag, made, names, left, _from_parts(parts, failures))
        else:
            frames = sum(outcome['frames'] for outcome in outcomes)
            restored = Restored(frames, failures, frames)
            made.mkdir()
            for picture in (file for part in parts for file in part.glob('*.png')):
                link_or_copy(picture, made / picture.name)
        outcome = outcome_of(
            settings, drive, restored, sum(outcome['seconds'] for outcome in outcomes),
            len(pieces),
        )
        if gyroscopes := [one['gyroscope'] for one in outcomes if 'gyroscope' in one]:
            outcome['gyroscope'] = together(gyroscopes)
        store.publish(made, outcome, drive)
    shutil.rmtree(parts[0].parent)
    return outcome


def link_or_copy(file: Path, name: Path) -> None:
    """Link ``file`` to another ``name``, or copy it if the share has no hard links."""
    try:
        name.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, name)


def outcome_of(
    settings: Settings, drive: Drive, restored: Restored, seconds: float, pieces: int = 1
) -> Outcome:
    """Return the line of the manifest; ``seconds`` is the sum of all workers' time."""
    frames, failures, expected, short, left = restored
    return {
        'source': drive.source, 'output': drive.name, 'state': SHORT if short else DONE,
        'expected': expected, 'frames': frames,
        'restored': frames - len(failures), 'passed': len(failures), 'failures': failures[:TOLD],
        'short': list(short), 'left': dict(left),
        'seconds': round(seconds, 3), 'pieces': pieces, 'task': settings.task,
        'weights_sha256': settings.sha256, 'node': platform.node(),
    }


def together(gyroscopes: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Merge the gyroscope accounts of a drive's pieces, by image topic."""
    return {
        topic: {
            **last,
            **{key: sum(one[topic][key] for one in gyroscopes) for key in ('frames', 'used')},
        }
        for topic, last in gyroscopes[-1].items()
    }


def as_row(piece: Piece) -> dict[str, str]:
    """Return a piece in the form that ``Worker`` takes."""
    return {'piece': json.dumps(asdict(piece))}


def _from_parts(parts: list[Path], reasons: list[str]) -> Beside:
    def images() -> Iterator[tuple[str, bytes]]:
        for part in parts:
            with open_bag(part / 'images') as bag:
                for connection, _, data in bag.messages():
                    yield connection.topic, data

    restored, why = images(), iter(reasons)

    def beside(connection: Connection, _: int, data: bytes) -> bytes:
        topic, new = next(restored, ('', b''))
        if topic != connection.topic:
            raise ValueError(f'the pieces have {topic or "no more"} where {connection.topic} comes')
        if not new:
            raise RestoreError(next(why))
        return new

    return beside
