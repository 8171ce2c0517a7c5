"""
Reading a .db3 file of a bag in spite of damage.

rosbags ignores journals beside the file, passes a name in which SQLite interprets #, ? and %, and
stops at the first damaged row.
"""

import shutil
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rosbags.interfaces import Connection, ConnectionExtRosbag2

from iov_restore_ros.tools.bag_file import BROKEN, BagError, Note, definition, qos_of, reason

JOURNALS = '-wal', '-journal'  # data that a killed recorder had not moved into the file yet


class SqliteFile:
    """
    A .db3 file.

    ``connections``, by the id of their topic, have the counts of its rows. ``start`` and ``end``
    (ns) are the times of the first and the last message.
    """

    compressed = False
    extras: tuple[str, ...] = ()

    def __init__(self, path: Path, note: Note) -> None:
        """Open it; ``note`` gets a line for each damage. Raises ``BagError`` and ``BROKEN``."""
        self.path, self._note = path, note
        self.start: int | None = None
        self.end: int | None = None
        with ExitStack() as stack:
            self._base = self._connect(stack)
            stack.callback(self._base.close)
            self.connections = self._topics()
            self._count()
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def messages(
        self, topics: Collection[int], start: int, stop: int
    ) -> Iterator[tuple[int, int, bytes]]:
        """
        Yield topic, time (ns) and content of the messages from ``start`` to before ``stop``.

        They are sorted by time. Unreadable messages are left out, and noted.
        """
        marks = ', '.join('?' * len(topics))
        query = (
            'SELECT topic_id, timestamp, data FROM messages '  # noqa: S608  question marks
            f'WHERE id = ? AND topic_id IN ({marks})'
        )
        for number in self._in_order(start, stop):
            try:
                # One row at a time, so that a damaged row costs no other.
                message = self._base.execute(query, (number, *topics)).fetchone()
            except BROKEN as error:
                self._note(f'message {number} cannot be read: {reason(error)}')
                continue
            if message is None:  # of another topic
                continue
            if not isinstance(message[2], bytes):
                self._note(f'message {number} has no content')
                continue
            yield message

    def _in_order(self, start: int, stop: int) -> Iterator[int]:
        """Yield the ids of the messages sorted by time, for which there is an index."""
        try:
            for (number,) in self._base.execute(
                'SELECT id FROM messages WHERE timestamp >= ? AND timestamp < ? '
                'ORDER BY timestamp, id', (start, stop),
            ):
                yield number
        except BROKEN as error:
            self._note(f'the messages from here on cannot be read: {reason(error)}')

    def _connect(self, stack: ExitStack) -> sqlite3.Connection:
        """Open it, or, if there is a journal, a copy: reading the journal changes the file."""
        own = self.path.resolve()
        journals = [own.with_name(own.name + end) for end in JOURNALS]
        there = [file for file in journals if file.exists() and file.stat().st_size]
        if not there:
            return sqlite3.connect(f'{own.as_uri()}?immutable=1', uri=True)
        folder = stack.enter_context(TemporaryDirectory())
        for file in (own, *there):
            shutil.copyfile(file, Path(folder, file.name))
        return sqlite3.connect(Path(folder, own.name))

    def _topics(self) -> dict[int, Connection]:
        if not {'topics', 'messages'} <= {
            row['name'] for row in self._rows("SELECT name FROM sqlite_master WHERE type = 'table'")
        }:
            raise BagError(f'{self.path}: a database without the tables of a bag')
        definitions = {}
        if self._rows("SELECT name FROM sqlite_master WHERE name = 'message_definitions'"):
            definitions = {
                row['topic_type']: definition(row['encoding'], row['encoded_message_definition'])
                for row in self._rows('SELECT * FROM message_definitions')
            }
        return {
            row['id']: Connection(
                row['id'], row['name'], row['type'],
                definitions.get(row['type'], definition('', '')),
                row.get('type_description_hash', ''), 0,
                ConnectionExtRosbag2(
                    row['serialization_format'],
                    qos_of(row.get('offered_qos_profiles', ''), self._note),
                ),
                self,
            )
            for row in self._rows('SELECT * FROM topics ORDER BY id')
        }

    def _count(self) -> None:
        try:
            times = 'SELECT min(timestamp), max(timestamp) FROM messages'
            self.start, self.end = self._base.execute(times).fetchone()
            counts = self._base.execute(
                'SELECT topic_id, count(*) FROM messages GROUP BY topic_id'
            ).fetchall()
        except BROKEN as error:
            self._note(f'its messages cannot be counted: {reason(error)}')
            return
        for topic, count in counts:
            if topic in self.connections:
                self.connections[topic] = self.connections[topic]._replace(msgcount=count)
            else:
                self._note(f'{count} messages of topic {topic}, which has no name')

    def _rows(self, query: str) -> list[dict[str, Any]]:
        """Return the rows by column name: the columns depend on the version of the bag."""
        cursor = self._base.execute(query)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]
