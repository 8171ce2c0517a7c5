"""What became of a camera's frames: every one is counted, once."""

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

LATENCIES_KEPT = 300


class Outcome(Enum):
    """The ways a received frame can end."""

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


@dataclass(frozen=True)
class Report:
    """A camera's frames: in all, and of late (since the report before)."""

    received: int
    outcomes: dict[Outcome, int]
    late_received: int
    late_outcomes: dict[Outcome, int]
    latencies: list[float] = field(default_factory=list)  # s, from receiving to publishing

    def late_published(self) -> int:
        """Return how many frames went out since the report before."""
        return sum(self.late_outcomes.get(outcome, 0) for outcome in PUBLISHED)

    def latency(self, percentile: float) -> float:
        """Return a percentile (0..100) of the latest latencies, in s; NaN without any."""
        return float(np.percentile(self.latencies, percentile)) if self.latencies else float('nan')


class Statistics:
    """Counts of one camera, written by the receiving and the restoring thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._reported = 0, Counter[Outcome]()

    def receive(self) -> None:
        """Count a frame that came in."""
        with self._lock:
            self._received += 1

    def end(self, outcome: Outcome, latency: float | None = None) -> None:
        """Count what became of a frame and, if it went out, how long it took (s)."""
        with self._lock:
            self._outcomes[outcome] += 1
            if latency is not None:
                self._latencies.append(latency)

    def report(self) -> Report:
        """Return the counts and begin the next period."""
        with self._lock:
            received, outcomes = self._reported
            report = Report(
                self._received, dict(self._outcomes),
                self._received - received, dict(self._outcomes - outcomes), list(self._latencies),
            )
            self._reported = self._received, self._outcomes.copy()
            return report
