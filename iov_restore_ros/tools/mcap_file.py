"""
Reading an MCAP file in spite of damage.

rosbags stops at the first damaged chunk, and reads nothing without the end of the file. This reader
only loses the damaged part. It finds records without an index by reading the whole file.
https://mcap.dev/spec has the format.
"""

import heapq
import struct
from binascii import crc32
from collections import Counter
from collections.abc import Collection, Iterator
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple

import lz4.frame
from rosbags.interfaces import Connection, ConnectionExtRosbag2

from iov_restore_ros.tools.bag_file import (
    BROKEN,
    BagError,
    Note,
    definition,
    qos_of,
    reason,
    zstd,
)

MAGIC = b'\x89MCAP0\r\n'
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK = range(1, 7)
CHUNK_INDEX, ATTACHMENT, STATISTICS, METADATA = 8, 9, 11, 12
RECORD = struct.Struct('<BQ')  # kind, and number of bytes that follow
MESSAGE_HEAD = struct.Struct('<HIQQ')  # channel, sequence, log time and publish time, ns
FOOTER_SIZE = RECORD.size + 20 + len(MAGIC)
RUN = 1 << 20  # bytes of messages outside of chunks that are sorted together
OWN_METADATA = 'rosbag2'  # a copy of metadata.yaml
UNPACK = {'': bytes, 'lz4': lz4.frame.decompress, 'zstd': zstd.decompress}


class Span(NamedTuple):
    """A chunk, or consecutive messages outside of chunks."""

    start: int  # ns, of its first message
    end: int  # ns, of its last
    offset: int  # byte of its first record
    size: int  # bytes
    packed: bool  # whether it is a chunk
    channels: frozenset[int]  # in it; empty: unknown


class McapFile:
    """
    An MCAP file.

    ``connections``, by the number of their channel, have the counts that the file declares.
    ``extras`` names the contents other than messages. ``compressed``: whether chunks are
    compressed. ``start`` and ``end`` (ns) are the times of the first and the last message.
    """

    def __init__(self, path: Path, note: Note) -> None:
        """Open it; ``note`` gets a line for each damage. Raises ``BagError`` and ``BROKEN``."""
        self.path, self._note = path, note
        self.connections: dict[int, Connection] = {}
        self.extras: list[str] = []
        self.compressed = False
        self._schemas: dict[int, tuple[str, str, str]] = {}  # name, encoding, text
        self._spans: dict[int, Span] = {}  # by their first byte
        self._indexed: list[tuple[int, int]] = []  # bytes that a chunk and its index take
        self._counts: Counter[int] | None = None
        self._stream = path.open('rb')
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def messages(
        self, channels: Collection[int], start: int, stop: int
    ) -> Iterator[tuple[int, int, bytes]]:
        """
        Yield channel, time (ns) and content of the messages from ``start`` to before ``stop``.

        They are sorted by time. Unreadable messages are left out, and noted.
        """
        waiting: list[tuple[int, int, int, bytes]] = []
        number, wanted = count(), frozenset(channels)
        for span in sorted(self._spans.values()):
            if span.end < start or span.start >= stop:
                continue
            if span.channels and not span.channels & wanted:
                continue
            while waiting and waiting[0][0] < span.start:
                time, _, channel, data = heapq.heappop(waiting)
                yield channel, time, data
            for channel, time, data in self._readable(span):
                if channel in wanted and start <= time < stop:
                    heapq.heappush(waiting, (time, next(number), channel, data))
        while waiting:
            time, _, channel, data = heapq.heappop(waiting)
            yield channel, time, data

    def _open(self) -> None:
        stream = self._stream
        if stream.read(len(MAGIC)) != MAGIC:
            raise BagError(f'{self.path}: its first bytes are not those of an MCAP file')
        size = stream.seek(0, 2)
        _, begin, behind = next(self._records(len(MAGIC), size))
        profile = _text(self._record(begin, behind))
        if profile not in ('ros2', ''):
            raise BagError(f'{self.path}: a recording of {profile!r}, not of ROS 2')
        summary = self._summary(behind, size)
        for begin, end in sorted(self._indexed):
            self._walk(behind, begin)
            behind = end
        self._walk(behind, summary or size)
        if self._counts is None or self._counts.keys() - self.connections.keys():
            # Only the chunks have the channels. Damaged messages are not counted.
            self._counts = Counter(
                channel for span in self._spans.values() for channel, _, _ in self._readable(span)
            )
        for channel in self._counts.keys() - self.connections.keys():
            self._note(f'{self._counts[channel]} messages of channel {channel}, which has no name')
        self.connections = {
            channel: connection._replace(msgcount=self._counts[channel])
            for channel, connection in self.connections.items()
        }
        for connection in self.connections.values():
            assert isinstance(connection.ext, ConnectionExtRosbag2)
            if connection.ext.serialization_format != 'cdr':
                raise BagError(
                    f'{self.path}: {connection.topic} is written as '
                    f'{connection.ext.serialization_format}, only cdr can be copied'
                )

    @property
    def start(self) -> int | None:
        return min((span.start for span in self._with_messages()), default=None)

    @property
    def end(self) -> int | None:
        return max((span.end for span in self._with_messages()), default=None)

    def _with_messages(self) -> Iterator[Span]:
        return (span for span in self._spans.values() if span.start <= span.end)

    def _summary(self, begin: int, size: int) -> int:
        """Read the summary at the end of the file; return its first byte, 0 without a summary."""
        self._stream.seek(max(begin, size - FOOTER_SIZE))
        footer = self._stream.read()
        if len(footer) != FOOTER_SIZE or not footer.endswith(MAGIC) or footer[0] != FOOTER:
            self._note('it is truncated: only its complete parts are read')
            return 0
        (start,) = struct.unpack_from('<Q', footer, RECORD.size)
        if not start:
            return 0
        try:
            for kind, first, behind in self._records(start, size - FOOTER_SIZE):
                self._take(kind, first, behind)
        except BROKEN as error:
            self._note(f'its index is damaged: {reason(error)}')
            self._indexed, self._spans, self._counts = [], {}, None
            return 0
        return start

    def _walk(self, begin: int, end: int) -> None:
        """Read the records between two bytes of the file, up to the first unreadable one."""
        good = begin
        try:
            for kind, first, behind in self._records(begin, end):
                if kind == FOOTER:
                    return
                self._take(kind, first, behind)
                good = behind
        except BROKEN as error:
            self._note(f'{end - good} bytes from byte {good} on cannot be read: {reason(error)}')

    def _records(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield the kind, the first byte and the end of each record."""
        while begin < end:
            self._stream.seek(begin)
            kind, size = RECORD.unpack(self._stream.read(RECORD.size))
            behind = begin + RECORD.size + size
            if behind > end:
                raise ValueError('a record is truncated')
            yield kind, begin, behind
            begin = behind

    def _record(self, begin: int, behind: int) -> BytesIO:
        self._stream.seek(begin + RECORD.size)
        return BytesIO(self._stream.read(behind - begin - RECORD.size))

    def _take(self, kind: int, begin: int, behind: int) -> None:
        """Process the record that starts at byte ``begin``."""
        if kind in (SCHEMA, CHANNEL):
            self._describe(kind, self._record(begin, behind))
        elif kind == MESSAGE:
            self._stream.seek(begin + RECORD.size)
            _, _, time, _ = _numbers(self._stream, MESSAGE_HEAD.format)
            self._add_message(time, begin, behind)
        elif kind == CHUNK:
            self._stream.seek(begin + RECORD.size)
            start, end, _, _ = _numbers(self._stream, '<QQQI')
            self.compressed |= bool(_text(self._stream))
            self._spans[begin] = Span(start, end, begin, behind - begin, True, frozenset())
        elif kind == CHUNK_INDEX:
            record = self._record(begin, behind)
            start, end, offset, size, table = _numbers(record, '<QQQQI')
            channels = struct.unpack('<' + 'HQ' * (table // 10), record.read(table))[::2]
            (index,) = _numbers(record, '<Q')
            self.compressed |= bool(_text(record))
            self._indexed.append((offset, offset + size + index))
            self._spans[offset] = Span(start, end, offset, size, True, frozenset(channels))
        elif kind == STATISTICS:
            *_, table = _numbers(record := self._record(begin, behind), '<QHIIIIQQI')
            pairs = struct.iter_unpack('<HQ', record.read(table))
            self._counts = Counter(dict(pairs))
        elif kind == ATTACHMENT:
            self._stream.seek(begin + RECORD.size + 16)  # after its two times
            self.extras.append(f'attachment {_text(self._stream)}')
        elif kind == METADATA and (name := _text(self._record(begin, behind))) != OWN_METADATA:
            self.extras.append(f'metadata {name}')

    def _add_message(self, time: int, begin: int, behind: int) -> None:
        """Add a message outside of chunks to the span of those directly before it."""
        last = next(reversed(self._spans.values()), None)
        if last and not last.packed and last.offset + last.size == begin and last.size < RUN:
            self._spans[last.offset] = last._replace(
                start=min(last.start, time), end=max(last.end, time), size=behind - last.offset
            )
        else:
            self._spans[begin] = Span(time, time, begin, behind - begin, False, frozenset())

    def _describe(self, kind: int, record: BytesIO) -> None:
        """Process a schema or a channel."""
        (number,) = _numbers(record, '<H')
        if kind == SCHEMA:
            self._schemas[number] = _text(record), _text(record), _text(record)
            return
        (schema,) = _numbers(record, '<H')
        topic, encoding = _text(record), _text(record)
        (size,) = _numbers(record, '<I')
        pairs = BytesIO(record.read(size))
        more = {}
        while pairs.tell() < size:
            key = _text(pairs)
            more[key] = _text(pairs)
        name, language, text = self._schemas.get(schema, ('', '', ''))
        qos = qos_of(more.get('offered_qos_profiles', ''), self._note)
        self.connections[number] = Connection(
            number, topic, name, definition(language, text), more.get('topic_type_hash', ''), 0,
            ConnectionExtRosbag2(encoding, qos), self,
        )

    def _readable(self, span: Span) -> Iterator[tuple[int, int, bytes]]:
        """Yield channel, time (ns) and content of the readable messages of ``span``, in order."""
        try:
            yield from self._content(span)
        except BROKEN as error:
            self._note(f'damaged at byte {span.offset}, {span.size} bytes: {reason(error)}')

    def _content(self, span: Span) -> Iterator[tuple[int, int, bytes]]:
        self._stream.seek(span.offset)
        data = self._stream.read(span.size)
        if len(data) < span.size:
            raise EOFError('the file ends before')
        if span.packed:
            data = _unpacked(data)
        behind = 0
        while behind < len(data):
            kind, size = RECORD.unpack_from(data, behind)
            begin, behind = behind + RECORD.size, behind + RECORD.size + size
            if behind > len(data):
                raise ValueError('a record is truncated')
            if kind == MESSAGE:
                channel, _, time, _ = MESSAGE_HEAD.unpack_from(data, begin)
                yield channel, time, data[begin + MESSAGE_HEAD.size : behind]
            elif kind in (SCHEMA, CHANNEL):
                self._describe(kind, BytesIO(data[begin:behind]))


def _unpacked(chunk: bytes) -> bytes:
    """Return the records in a chunk; raises one of ``BROKEN``."""
    record = BytesIO(chunk)
    kind, _ = RECORD.unpack(record.read(RECORD.size))
    if kind != CHUNK:
        raise ValueError('there is no chunk')
    _, _, size, checksum = _numbers(record, '<QQQI')
    how = _text(record)
    (packed,) = _numbers(record, '<Q')
    if how not in UNPACK:
        raise ValueError(f'compressed as {how!r}, which is not known')
    data = UNPACK[how](record.read(packed))
    if len(data) != size or (checksum and crc32(data) != checksum):
        raise ValueError('size or checksum are wrong')
    return data


def _numbers(record: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, record.read(struct.calcsize(layout)))


def _text(record: BinaryIO) -> str:
    (size,) = _numbers(record, '<I')
    text = record.read(size)
    if len(text) != size:
        raise EOFError('a text is truncated')
    return text.decode()
