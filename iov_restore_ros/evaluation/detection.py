"""How well a detector sees: what it finds matched with what is there; recall, precision, AP."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iov_restore_ros.evaluation.boxes import Boxes, iou
from iov_restore_ros.evaluation.detector import Detector
from iov_restore_ros.evaluation.labels import Labels

SCORE = 0.5  # from which on a find counts, where nothing else is said
MATCH = 0.5  # IoU from which on a find is one of what is there


@dataclass(frozen=True)
class Finding:
    """What was found in a picture (best first), and what is there."""

    found: Boxes
    truth: Boxes
    which: np.ndarray  # int64, for each of ``found`` its number in ``truth``; -1: it is wrong

    def counts(self, score: float) -> tuple[int, int]:
        """Return how many finds of ``score`` and more are right, and how many are wrong."""
        right = self.which[self.found.scores >= score] >= 0
        return int(right.sum()), int((~right).sum())


@dataclass(frozen=True)
class Figures:
    """How well a detector sees in some pictures, 0..1; NaN where there is nothing to see."""

    boxes: int  # that are there
    recall: float
    precision: float
    ap: float


class Judge:
    """A detector, from which score on it counts, and what is there."""

    def __init__(self, detector: Detector, score: float, labels: Labels | None = None) -> None:
        """
        Judge by ``detector``.

        Without ``labels`` that is there which it finds in the sharp picture at ``score``.
        """
        self.detector, self.score, self.labels = detector, score, labels

    def truth(self, name: str, sharp: np.ndarray) -> Boxes:
        """Return what is there in the picture ``name``, which is uint8 H x W x 3 RGB if sharp."""
        if self.labels is not None:
            return self.labels.read(name, *sharp.shape[:2])
        found = self.detector.find(sharp)
        return found[found.scores >= self.score]

    def look(self, picture: np.ndarray, truth: Boxes) -> Finding:
        """Look for ``truth`` in a picture, uint8 H x W x 3, RGB."""
        return match(self.detector.find(picture), truth)

    def facts(self) -> dict[str, str | float]:
        """Return what its figures hang on."""
        return {
            'file': str(self.detector.path), 'layout': self.detector.layout.name,
            'classes': ', '.join(self.detector.classes), 'score': self.score,
            'truth': str(self.labels.folder) if self.labels else 'what it finds in sharp pictures',
        }


def open_judge(
    detector: Path, classes: Sequence[str] | None = None, score: float = SCORE,
    labels: Path | None = None,
) -> Judge:
    """Load a detector, and judge by it; raises ``DetectorError``."""
    loaded = Detector(detector, classes)
    return Judge(loaded, score, Labels(labels, loaded.kinds) if labels else None)


def match(found: Boxes, truth: Boxes) -> Finding:
    """
    Match as COCO does.

    The best find first takes the box of its kind that it overlaps most, by ``MATCH`` at least and
    if no other has taken it.
    """
    overlap = iou(found.corners, truth.corners)
    overlap[found.kinds[:, None] != truth.kinds[None]] = 0
    which = np.full(len(found), -1)
    for number, row in enumerate(overlap):
        if len(row) and row.max() >= MATCH:
            which[number] = row.argmax()
            overlap[:, which[number]] = 0
    return Finding(found, truth, which)


def figures(findings: Sequence[Finding], score: float) -> Figures:
    """Return the figures of all pictures and kinds together; recall and precision at ``score``."""
    there = sum(len(finding.truth) for finding in findings)
    right, wrong = np.sum([finding.counts(score) for finding in findings], 0)
    return Figures(
        there, _share(right, there), _share(right, right + wrong),
        average_precision(
            np.concatenate([finding.found.scores for finding in findings]),
            np.concatenate([finding.which >= 0 for finding in findings]), there,
        ),
    )


def average_precision(scores: np.ndarray, right: np.ndarray, there: int) -> float:
    """
    Return the area under precision against recall, as PASCAL VOC has it since 2010.

    Of N finds with ``scores``, which are ``right`` or not, beside ``there`` boxes. At each recall
    the best precision counts that this recall or a higher one has. NaN where nothing is there.
    """
    if not there:
        return math.nan
    right = right[np.argsort(-scores, kind='stable')]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[right].sum() / there)


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else math.nan
