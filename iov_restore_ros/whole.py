"""Files that are there whole or not at all, whatever ends the program that writes them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """
    Give a path to write a file to, which becomes ``target`` if all goes well, and else is removed.

    It lies beside ``target`` and ends as that does, as some writers go by the end of a name. Its
    bytes are on the disk before the name is. Folders above ``target`` are made.
    """
    part = target.with_name(f'.{target.stem}.part{target.suffix}')
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        with part.open('rb') as file:
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        with contextlib.suppress(OSError):  # what went wrong before is what is to be told
            part.unlink(missing_ok=True)


def write_whole(target: Path, content: str | bytes) -> None:
    """Write ``content``, text as UTF-8, into ``target``."""
    data = content.encode() if isinstance(content, str) else content
    with whole(target) as part:
        part.write_bytes(data)
