"""Files that are complete or absent, whatever ends the program that writes them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """
    Yield a path to write to; the file becomes ``target`` on success, and is removed on failure.

    The path lies beside ``target`` and has its suffix, because some writers choose the format by
    the suffix. The bytes are on the disk before the file gets its name. Parent folders are created.
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
