"""The outcomes of a camera's frames: each frame is counted once."""

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from math import inf, nan
from typing import NamedTuple

import numpy as np

TIMINGS_KEPT = 300


class Outcome(Enum):
    """The possible outcomes of a received frame."""

    RESTORED = 'restored'
    PASSED = 'passed through'
    PASSED_SHARP = 'passed, sharp already'
    PASSED_AFTER_ERROR = 'passed through after an error'
    DROPPED_FOR_NEWER = 'dropped: newer frame'
    DROPPED_MALFORMED = 'dropped: malformed'
    DROPPED_ENCODING = 'dropped: encoding'
    DROPPED_AFTER_ERROR = 'dropped: error'
    DROPPED_STOPPING = 'dropped: stopping'


PUBLISHED = (
    Outcome.RESTORED, Outcome.PASSED, Outcome.PASSED_SHARP, Outcome.PASSED_AFTER_ERROR
)


class Timing(NamedTuple):
    """Durations of a published frame, in s; NaN if unknown."""

    latency: float  # since its stamp, by the ROS clock: negative if the clock jumped back
    in_node: float  # from receiving to publishing
    restoring: float  # its batch in the restorer; NaN if it passed unchanged
    aligning: float = nan  # finding the optical flow; NaN without a previous frame


@dataclass(frozen=True)
class Account:
    """A camera's frames: in total, and recent ones (``late_``, since the previous report)."""

    received: int
    outcomes: dict[Outcome, int]
    late_received: int
    late_outcomes: dict[Outcome, int]
    lost: int = 0  # before they were received, by the publisher's numbers of its frames
    lost_on_the_way: int = 0  # as the middleware reports
    late_lost_on_the_way: int = 0
    timings: list[Timing] = field(default_factory=list)
    age: float = inf  # s since the last frame came; infinite before the first
    late_unstamped: int = 0
    # Restored frames, by the reason to have no previous frame; empty reason: they had one.
    pasts: dict[str, int] = field(default_factory=dict)
    late_pasts: dict[str, int] = field(default_factory=dict)
    # Deblurred frames, by the reason to have no gyroscope; empty reason: they had one.
    turns: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the account: received = ... + ..."""
        ends = ' + '.join(f'{count} {outcome.value}' for outcome, count in self.outcomes.items())
        return f'{self.received} received = {ends or 0}'

    def late_published(self) -> int:
        """Return how many frames were published since the previous report."""
        return sum(self.late_outcomes.get(outcome, 0) for outcome in PUBLISHED)

    def percentile(self, timing: str, percent: float) -> float:
        """Return a percentile (0..100) of a field of the latest timings, s; NaN if empty."""
        values = np.array([getattr(t, timing) for t in self.timings])
        values = values[~np.isnan(values)]
        return float(np.percentile(values, percent)) if values.size else nan


class Statistics:
    """The counts of one camera. The receiving and the restoring thread write them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._unstamped = 0
        self._lost = self._lost_on_the_way = 0
        self._last_received = -inf
        self._outcomes: Counter[Outcome] = Counter()
        self._timings: deque[Timing] = deque(maxlen=TIMINGS_KEPT)
        self._pasts: Counter[str] = Counter()
        self._turns: Counter[str] = Counter()
        self._reported = 0, 0, 0, Counter[Outcome](), Counter[str]()

    def receive(self, stamped: bool = True) -> None:
        """Count a received frame, and whether it has a stamp."""
        with self._lock:
            self._received += 1
            self._unstamped += not stamped
            self._last_received = time.monotonic()

    def lose(self, count: int) -> None:
        """Count frames that were published, but not received."""
        with self._lock:
            self._lost += count

    def lose_on_the_way(self, count: int) -> None:
        """Count frames that the middleware lost."""
        with self._lock:
            self._lost_on_the_way += count

    def look_back(self, reason: str) -> None:
        """Count a restored frame by its reason to have no previous frame; empty: it has one."""
        with self._lock:
            self._pasts[reason] += 1

    def turn(self, reason: str) -> None:
        """Count a deblurred frame by its reason to have no gyroscope; empty: it had one."""
        with self._lock:
            self._turns[reason] += 1

    def end(self, outcome: Outcome, timing: Timing | None = None) -> None:
        """Count the outcome of a frame and, if it was published, its timing."""
        with self._lock:
            self._outcomes[outcome] += 1
            if timing is not None:
                self._timings.append(timing)

    def report(self) -> Account:
        """Return the counts and start the next period."""
        with self._lock:
            received, lost, unstamped, outcomes, pasts = self._reported
            report = Account(
                self._received, dict(self._outcomes),
                self._received - received, dict(self._outcomes - outcomes),
                self._lost, self._lost_on_the_way, self._lost_on_the_way - lost,
                list(self._timings), time.monotonic() - self._last_received,
                self._unstamped - unstamped, dict(self._pasts), dict(self._pasts - pasts),
                dict(self._turns),
            )
            self._reported = (
                self._received, self._lost_on_the_way, self._unstamped, self._outcomes.copy(),
                self._pasts.copy(),
            )
            return report
