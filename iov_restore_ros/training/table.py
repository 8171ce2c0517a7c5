"""log.csv: rows by step, appended one by one."""

import csv
import errno
import io
import os
from pathlib import Path

from iov_restore_ros.whole import write_whole

Row = dict[str, str]


class Table:
    """
    A CSV file with a row for some of the steps of a run.

    A row is there whole or not at all. Rows later than ``step``, written before a run was cut off,
    are taken out: they come again. So is what is left of a row that was being written then.
    """

    def __init__(self, path: Path, step: int) -> None:
        """Go on with ``path``. Raises ``ValueError`` for a file that is no such table."""
        self.path = path
        self.names: list[str] = []  # of the columns
        if path.exists():
            self.names, rows = self._read()
            if self.names and self.names[0] != 'step':
                raise ValueError(f'{path}: not the log of a run; move it away')
            self._replace(self.names, [row for row in rows if int(row['step']) <= step])

    def rows(self) -> list[Row]:
        """Return all rows."""
        return self._read()[1] if self.path.exists() else []

    def append(self, row: Row) -> None:
        """
        Add ``row``, which has 'step' first, then what it has. Raises ``OSError``, on a full disk.

        A column that is new makes the file be written anew; that is once for each.
        """
        names = list(dict.fromkeys([*self.names, *row]))
        if names != self.names or not self.path.exists():
            self._replace(names, [*self.rows(), row])
            self.names = names
            return
        line = _text(names, [row]).encode()
        with self.path.open('ab', buffering=0) as file:
            end = file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                file.truncate(end)
                raise

    def _read(self) -> tuple[list[str], list[Row]]:
        """Return the names of the columns, and the rows that are whole."""
        lines = self.path.read_text(encoding='utf-8', errors='replace').splitlines(keepends=True)
        whole = [line for line in lines if line.endswith('\n') and '\0' not in line]
        names, *rows = list(csv.reader(whole)) or [[]]
        return names, [
            dict(zip(names, row, strict=True)) for row in rows
            if len(row) == len(names) and row[0].isdecimal()
        ]

    def _replace(self, names: list[str], rows: list[Row]) -> None:
        header = dict(zip(names, names, strict=True))
        write_whole(self.path, _text(names, [header, *rows]))


def _text(names: list[str], rows: list[Row]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, names, lineterminator='\n').writerows(rows)
    return text.getvalue()
