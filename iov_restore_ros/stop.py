"""Ending a long command between two pieces of its work, on SIGINT or SIGTERM."""

import signal
from collections.abc import Iterable, Iterator
from typing import TypeVar

INTERRUPTED = 130  # exit status, as shells give it after Ctrl-C


Piece = TypeVar('Piece')


class Stopped(Exception):  # noqa: N818  it is no error
    """A signal asked to stop."""


class Stop:
    """Whether SIGINT or SIGTERM (which job queues send) arrived; a second one ends at once."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def check(self) -> None:
        """Raise ``Stopped`` if a signal arrived."""
        if self.asked:
            raise Stopped

    def _ask(self, number: int, _: object) -> None:
        self.asked = True
        signal.signal(number, signal.SIG_DFL)


def until(stop: Stop, pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield ``pieces``; raises ``Stopped`` before the next one when ``stop`` is asked."""
    for piece in pieces:
        stop.check()
        yield piece
