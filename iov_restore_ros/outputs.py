"""Where a command may write: never over its inputs, and over nothing but what it made before."""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path


class OutputError(Exception):
    """An output that would cost an input, or what the command did not make; says what to do."""


def keep_apart(
    targets: Iterable[Path], inputs: Iterable[Path], output: Path | None = None
) -> None:
    """
    Raise ``OutputError`` where a target is, holds, or lies in an input; links are followed.

    Targets may lie in an input that holds the folder ``output``, if that is left out of what is
    found there, see ``found_outside``.
    """
    real = {path.resolve(): path for path in inputs}
    holding = {folder: path for own, path in real.items() for folder in (own, *own.parents)}
    closed = real.keys() - set(output.resolve().parents if output else ())
    for target in targets:
        place = target.resolve()
        lies_in = [real[folder] for folder in place.parents if folder in closed]
        for path in [holding[place]] if place in holding else lies_in:
            raise OutputError(
                f'{path} would be overwritten by {target}, or hold it; give another --output'
            )


def found_outside(output: Path, given: Path, found: Iterable[Path]) -> list[Path]:
    """Return what was ``found`` in ``given``, without the folder ``output`` if that lies there."""
    own = output.resolve()
    if given.resolve() not in own.parents:
        return list(found)
    return [path for path in found if own not in (path.resolve(), *path.resolve().parents)]


class Record:
    """What ``command`` made in a folder: the name and size of each file, in a hidden file there."""

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.command, self.file = folder, command, folder / f'.{command}'
        self._sizes: dict[str, int] = {}
        if self.file.is_file():
            for line in self.file.read_text(encoding='utf-8', errors='replace').splitlines():
                with contextlib.suppress(ValueError, TypeError):  # a line that was cut off
                    name, size = json.loads(line)
                    self._sizes[name] = size

    def add(self, file: Path) -> None:
        """Note that ``file`` was made, as it is now."""
        name, size = file.relative_to(self.folder).as_posix(), file.stat().st_size
        self._sizes[name] = size
        with self.file.open('a', encoding='utf-8') as lines:
            lines.write(json.dumps([name, size]) + '\n')

    def check(self, file: Path) -> None:
        """Raise ``OutputError`` if ``file`` is there and is not what was made."""
        size = self._sizes.get(file.relative_to(self.folder).as_posix())
        made = file.is_file() and not file.is_symlink() and file.stat().st_size == size
        if os.path.lexists(file) and not made:
            raise OutputError(
                f'{file} is there, and not known to be made by {self.command}: move it away, or '
                'give another --output'
            )

    def check_all(self) -> None:
        """Raise ``OutputError`` if there is anything in the folder that was not made."""
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(f'{self.folder} is a file; give another --output')
        for path in self.folder.rglob('*'):
            if path != self.file:
                self.check(path)
