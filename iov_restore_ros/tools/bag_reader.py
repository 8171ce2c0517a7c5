"""
Reading a ROS 2 bag so that every loss is reported.

rosbags follows metadata.yaml: it does not read topics that are missing there, or that have another
QoS there than in the files. This reader takes the topics from the files, and compares their counts
with metadata.yaml. Damage in a file only loses the damaged part, and is reported.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2 import CompressionMode

from iov_restore_ros.tools.bag_file import BROKEN, BagError, reason, zstd
from iov_restore_ros.tools.bag_metadata import METADATA, Metadata, read_metadata
from iov_restore_ros.tools.mcap_file import McapFile
from iov_restore_ros.tools.sqlite_file import SqliteFile

FILES: dict[str, type[McapFile] | type[SqliteFile]] = {'.mcap': McapFile, '.db3': SqliteFile}
STORAGES = {SqliteFile: 'sqlite3', McapFile: 'mcap'}
PACKED = '.zstd'  # suffix of a compressed file
ZSTD = b'\x28\xb5\x2f\xfd'  # first bytes of compressed data
ALWAYS = 2**63 - 1  # ns, the latest time in SQLite
ROS_1 = b'#ROSBAG V2.0'
TOLD = 20  # damages that are reported one by one

Message: TypeAlias = tuple[Connection, int, bytes]  # the number is the record time, ns
Key: TypeAlias = tuple[str, str]  # topic and type


@contextmanager
def open_bag(path: Path) -> Iterator['Bag']:
    """Open a bag, a folder or one of its files. Raises ``BagError``, which names the file."""
    with ExitStack() as stack:
        try:
            bag = Bag(path, stack)
        except BROKEN as error:  # for example a folder that cannot be listed
            raise BagError(f'{path}: {reason(error)}') from error
        yield bag


class Bag:
    """
    A bag that ``open_bag`` opened.

    ``connections`` are its topics, one for each type, with the greatest count that the bag
    declares. ``storage`` is sqlite3 or mcap. ``extras`` names the contents other than messages.
    ``start_time`` and ``end_time`` (ns) are from the first message to just after the last one.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        """Read its topics, not its messages; ``stack`` closes it. Raises ``BagError``."""
        self.path = path
        self._stack = stack
        self._damages: dict[str, None] = {}  # lines, each once
        self._files: list[tuple[McapFile | SqliteFile, dict[int, Connection]]] = []
        self.connections: list[Connection] = []
        metadata = self._metadata()
        folder = path if path.is_dir() else path.parent
        paths = [folder / name for name in metadata.files]
        self.custom_data = metadata.custom_data
        self._by_message = metadata.by_message
        files = self._open_all(paths)
        self.storage = STORAGES[type(files[0])]
        self.extras = [extra for file in files for extra in file.extras]
        self._merge(metadata.topics, files)
        if not path.is_dir():  # without metadata.yaml: no uncompressed message begins like this
            _, _, first = next(self.messages(), (None, 0, b''))
            self._by_message = first.startswith(ZSTD)
        self.compression = self._compression(paths, files)
        self.start_time = min((f.start for f in files if f.start is not None), default=0)
        self.end_time = max((f.end + 1 for f in files if f.end is not None), default=0)

    @property
    def message_count(self) -> int:
        """Number of messages that the bag declares."""
        return sum(connection.msgcount for connection in self.connections)

    def messages(
        self, connections: Collection[Connection] = (), start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[Message]:
        """
        Yield the messages from ``start`` to before ``stop`` (ns), of all topics by default.

        Unreadable messages are left out; ``short`` reports them.
        """
        wanted = {connection.id for connection in connections or self.connections}
        begin, end = 0 if start is None else start, ALWAYS if stop is None else stop
        for file, targets in self._files:
            numbers = [number for number, target in targets.items() if target.id in wanted]
            if not numbers:
                continue
            for number, time, data in file.messages(numbers, begin, end):
                if self._by_message:
                    try:
                        data = zstd.decompress(data)
                    except BROKEN as error:
                        self._note(file.path, f'{targets[number].topic} at {time} ns: '
                                              f'{reason(error)}')
                        continue
                yield targets[number], time, data

    def short(self, copied: Mapping[int, int]) -> list[str]:
        """
        Return a line for each topic with fewer copied messages than declared, and for each damage.

        ``copied`` has the numbers of messages by ``Connection.id``.
        """
        lines = [
            f'{one.topic}: {copied.get(one.id, 0)} of {one.msgcount} messages'
            for one in self.connections if copied.get(one.id, 0) < one.msgcount
        ]
        damages = list(self._damages)
        more = [f'and {len(damages) - TOLD} more damages'] if len(damages) > TOLD else []
        return lines + damages[:TOLD] + more

    def _note(self, path: Path, line: str) -> None:
        self._damages[f'{path}: {line}'] = None

    def _metadata(self) -> Metadata:
        """Return the content of metadata.yaml; a single file has none."""
        if not self.path.is_dir():
            if not self.path.exists():
                raise BagError(f'{self.path}: there is no such file or folder')
            return Metadata([self.path.name], [], False, {})
        there = [file for file in sorted(self.path.iterdir()) if _suffix(file) in FILES]
        reindex = f'run: ros2 bag reindex {self.path}'
        try:
            metadata = read_metadata(
                self.path, lambda line: self._note(self.path / METADATA, line)
            )
        except BROKEN as error:
            way = 'and there is no .mcap or .db3 file beside it'
            if there:
                way = f'give {there[0]} itself, or {reindex}'
            raise BagError(f'{self.path}: {METADATA}: {reason(error)}: {way}') from error
        named = {name.removesuffix(PACKED) for name in metadata.files}
        for file in there:
            if file.name.removesuffix(PACKED) not in named:
                self._note(
                    file, f'not read, as {METADATA} does not list it: move it away, or {reindex}'
                )
        return metadata

    def _open_all(self, paths: list[Path]) -> list[McapFile | SqliteFile]:
        """Open the files; if there are several, one that cannot be opened is only noted."""
        files = []
        for path in paths:
            try:
                files.append(self._open(path))
            except BagError as error:
                if len(paths) == 1:
                    raise
                self._damages[str(error)] = None
        if not files:
            raise BagError(next(iter(self._damages)))
        return files

    def _open(self, path: Path) -> McapFile | SqliteFile:
        try:
            kind = FILES.get(_suffix(path))
            with path.open('rb') as stream:
                if stream.read(len(ROS_1)) == ROS_1:
                    raise BagError(
                        f'{path}: a bag of ROS 1, run: rosbags-convert --src {path} --dst NEW_BAG'
                    )
            if kind is None:
                raise BagError(f'{path}: neither a folder nor a file of a ROS 2 bag, .mcap or .db3')
            there = self._unpacked(path) if path.suffix == PACKED else path
            file = kind(there, lambda line: self._note(path, line))
        except BROKEN as error:
            raise BagError(f'{path}: {reason(error)}') from error
        self._stack.callback(file.close)
        return file

    def _unpacked(self, path: Path) -> Path:
        """Unpack a file that is compressed as a whole to a temporary folder; return the copy."""
        copy = Path(self._stack.enter_context(TemporaryDirectory()), path.stem)
        with copy.open('wb') as target:
            try:
                with zstd.open(path, 'rb') as source:
                    shutil.copyfileobj(source, target)
            except (zstd.ZstdError, EOFError) as error:
                self._note(path, f'it cannot be unpacked completely: {reason(error)}')
        return copy

    def _compression(
        self, paths: list[Path], files: list[McapFile | SqliteFile]
    ) -> CompressionMode:
        if self._by_message:
            return CompressionMode.MESSAGE
        if any(path.suffix == PACKED for path in paths):
            return CompressionMode.FILE
        if any(file.compressed for file in files):
            return CompressionMode.STORAGE
        return CompressionMode.NONE

    def _merge(self, topics: list[Connection], files: list[McapFile | SqliteFile]) -> None:
        """
        Merge all channels of a topic, in the files and in metadata.yaml, into one connection.

        The QoS is that of metadata.yaml (``topics``), as in ROS, else that of all channels.
        """
        named = {(one.topic, one.msgtype): one for one in topics}
        found: defaultdict[Key, list[Connection]] = defaultdict(list)
        for file in files:
            for channel in file.connections.values():
                found[channel.topic, channel.msgtype].append(channel)
        counts = Counter({
            key: sum(channel.msgcount for channel in channels) for key, channels in found.items()
        })
        ids = {}
        for number, key in enumerate({**named, **found}, 1):
            channels = [*([named[key]] if key in named else []), *found[key]]
            ids[key] = self._joined(number, channels, max(counts[key], channels[0].msgcount))
        self.connections = list(ids.values())
        self._files = [
            (file, {n: ids[one.topic, one.msgtype] for n, one in file.connections.items()})
            for file in files
        ]

    def _joined(self, number: int, channels: list[Connection], count: int) -> Connection:
        profiles = []
        for channel in channels:
            assert isinstance(channel.ext, ConnectionExtRosbag2)
            if channel.owner is None and channel.ext.offered_qos_profiles:
                profiles = channel.ext.offered_qos_profiles  # of metadata.yaml
                break
            profiles += [p for p in channel.ext.offered_qos_profiles if p not in profiles]
        text = next((one.msgdef for one in channels if one.msgdef.data), channels[0].msgdef)
        digest = next((one.digest for one in channels if one.digest), '')
        first = channels[0]
        assert isinstance(first.ext, ConnectionExtRosbag2)
        return Connection(
            number, first.topic, first.msgtype, text, digest, count,
            ConnectionExtRosbag2(first.ext.serialization_format, profiles), self,
        )


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(PACKED)).suffix
