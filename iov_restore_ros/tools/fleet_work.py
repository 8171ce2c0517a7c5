"""The state of one run over a fleet's drives: remaining pieces and outcomes."""

import time
from typing import Any

import ray

from iov_restore_ros.tools.fleet_drives import Drive, Piece, is_local, plan
from iov_restore_ros.tools.fleet_worker import FAILED, DriveStore, Outcome, Settings, join


class Account:
    """The outcomes of the drives so far. The thread that shows the progress reads it."""

    def __init__(self, drives: int) -> None:
        self.drives = drives
        self.outcomes: list[Outcome] = []
        self.frames = 0
        self.to_do = 0
        self._started = time.monotonic()

    def __str__(self) -> str:
        rate = self.frames / (time.monotonic() - self._started)
        left = max(0, self.to_do - self.frames) / rate if rate else float('nan')
        done = f'{len(self.outcomes)} of {self.drives} drives, {self.frames} of {self.to_do} frames'
        return f'{done}, {rate:.1f} frames/s, ' + (f'{left / 60:.0f} min left' if rate else 'begun')


class Work:
    """
    The drives of a run, each cut into pieces.

    Call ``begin``. While ``pieces`` returns some, call ``take`` with the outcome of each. At the
    end call ``finish``. When all pieces of a drive are done they are joined, while other pieces are
    still being restored.
    """

    def __init__(self, drives: list[Drive], settings: Settings) -> None:
        self.drives, self.settings = drives, settings
        self.store = DriveStore(settings)
        self.account = Account(len(drives))
        self._planned: dict[str, list[Piece]] = {}  # by the name of the drive
        self._missing: dict[str, list[Piece]] = {}  # of these, not restored yet
        self._joins: dict[Any, str] = {}  # Ray's reference of a join: name of the drive

    def begin(self, split: int) -> None:
        """Cut the drives that are not done into pieces of about ``split`` frames; 0: no cuts."""
        self.store.check()
        self.store.tidy()
        for drive in self.drives:
            try:
                outcome = self.store.outcome(drive)
                if outcome is not None:
                    self.account.outcomes.append(outcome)
                    continue
                cut = bool(split) and self.store.local and is_local(drive.source)
                pieces = plan(drive, split, cut)
            except Exception as error:  # noqa: BLE001  of any kind: the others continue
                self._end(drive, {'error': f'{type(error).__name__}: {error}'})
                continue
            self._planned[drive.name] = pieces
            missing = [p for p in pieces if p.pieces == 1 or not self.store.part(p).exists()]
            self._missing[drive.name] = missing
            self.account.to_do += sum(p.frames for p in missing)
            if not missing:  # an earlier run ended before it joined them
                self._join(drive.name)

    def pieces(self) -> list[Piece]:
        """Return the pieces that are not restored yet."""
        return [piece for of_drive in self._missing.values() for piece in of_drive]

    def take(self, piece: Piece, outcome: Outcome) -> None:
        """Record the outcome of ``piece``."""
        missing = self._missing[piece.drive.name]
        self.account.frames += outcome.get('frames', piece.frames)
        if piece not in missing:
            return  # another piece of this drive is broken
        missing.remove(piece)
        if 'error' in outcome or piece.pieces == 1:
            missing.clear()
            self._end(piece.drive, outcome)
        elif not missing:
            self._join(piece.drive.name)
        if self._joins:
            self._collect(0)

    def finish(self, why: str) -> None:
        """Wait for the joins; drives with missing pieces have failed, for the reason ``why``."""
        if self._joins:
            self._collect(None)
        for missing in self._missing.values():
            if missing:
                self._end(missing[0].drive, {'error': why})
        self.store.tidy()
        self.store.write_manifest(self.account.outcomes)

    def _end(self, drive: Drive, outcome: Outcome) -> None:
        named = {'source': drive.source, 'output': drive.name, **outcome}
        if 'error' in outcome:
            named['state'] = FAILED
        self.account.outcomes.append(named)
        self.store.write_manifest(self.account.outcomes)

    def _join(self, name: str) -> None:
        task = ray.remote(num_cpus=0)(join)
        self._joins[task.remote(self.settings, self._planned[name])] = name

    def _collect(self, timeout: float | None) -> None:
        """Record finished joins; wait ``timeout`` s for all, or without limit if None."""
        ready, _ = ray.wait(list(self._joins), num_returns=len(self._joins), timeout=timeout)
        for reference in ready:
            name = self._joins.pop(reference)
            try:
                outcome = ray.get(reference)
            except Exception as error:  # noqa: BLE001  as in `begin`
                outcome = {'error': f'joining failed: {error}'}
            self._end(self._planned[name][0].drive, outcome)
