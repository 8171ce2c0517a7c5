"""Where a command may write: never over its inputs, and only over what it made before."""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path


class OutputError(Exception):
    """An output would overwrite an input or a foreign file; the message says what to do."""


def keep_apart(
    targets: Iterable[Path], inputs: Iterable[Path], output: Path | None = None
) -> None:
    """
    Raise ``OutputError`` if a target is, contains, or lies in an input; links are followed.

    Targets may lie in an input that contains the folder ``output``, if ``found_outside`` leaves
    that folder out of the inputs.
    """
    real = {path.resolve(): path for path in inputs}
    holding = {folder: path for own, path in real.items() for folder in (own, *own.parents)}
    closed = real.keys() - set(output.resolve().parents if output else ())
    for target in targets:
        place = target.resolve()
        lies_in = [real[folder] for folder in place.parents if folder in closed]
        for path in [holding[place]] if place in holding else lies_in:
            raise OutputError(
                f'{target} would overwrite {path}, or lie in it; give another --output'
            )


def found_outside(output: Path, given: Path, found: Iterable[Path]) -> list[Path]:
    """Return what was ``found`` in ``given``, without what lies in the folder ``output``."""
    own = output.resolve()
    if given.resolve() not in own.parents:
        return list(found)
    return [path for path in found if own not in (path.resolve(), *path.resolve().parents)]


class Record:
    """The files that ``command`` made in a folder: a hidden file there has names and sizes."""

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.command, self.file = folder, command, folder / f'.{command}'
        self._sizes: dict[str, int] = {}
        if self.file.is_file():
            for line in self.file.read_text(encoding='utf-8', errors='replace').splitlines():
                with contextlib.suppress(ValueError, TypeError):  # a truncated line
                    name, size = json.loads(line)
                    self._sizes[name] = size

    def add(self, file: Path) -> None:
        """Record ``file`` with its current size."""
        name, size = file.relative_to(self.folder).as_posix(), file.stat().st_size
        self._sizes[name] = size
        with self.file.open('a', encoding='utf-8') as lines:
            lines.write(json.dumps([name, size]) + '\n')

    def check(self, file: Path) -> None:
        """Raise ``OutputError`` if ``file`` exists and is not the recorded one."""
        size = self._sizes.get(file.relative_to(self.folder).as_posix())
        made = file.is_file() and not file.is_symlink() and file.stat().st_size == size
        if os.path.lexists(file) and not made:
            raise OutputError(
                f'{file} exists, and {self.command} has no record of making it: move it away, or '
                'give another --output'
            )

    def check_all(self) -> None:
        """Raise ``OutputError`` if the folder contains anything that is not recorded."""
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(f'{self.folder} is a file; give another --output')
        for path in self.folder.rglob('*'):
            if path != self.file:
                self.check(path)
