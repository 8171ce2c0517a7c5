"""Quality of detections: matching with the ground truth, recall, precision, AP."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iov_restore_ros.evaluation.boxes import Boxes, iou
from iov_restore_ros.evaluation.detector import Detector
from iov_restore_ros.evaluation.labels import Labels

SCORE = 0.5  # default score from which a detection counts
MATCH = 0.5  # IoU from which a detection matches a box


@dataclass(frozen=True)
class Finding:
    """The detections in a picture (best first), and the ground truth."""

    found: Boxes
    truth: Boxes
    which: np.ndarray  # int64, for each of ``found`` its number in ``truth``; -1: wrong

    def counts(self, score: float) -> tuple[int, int]:
        """Return the numbers of correct and of wrong detections of ``score`` or more."""
        right = self.which[self.found.scores >= score] >= 0
        return int(right.sum()), int((~right).sum())


@dataclass(frozen=True)
class Figures:
    """The quality of a detector's results in some pictures, 0..1; NaN without boxes."""

    boxes: int  # of the ground truth
    recall: float
    precision: float
    ap: float


class Judge:
    """A detector, the score from which it counts, and the ground truth."""

    def __init__(self, detector: Detector, score: float, labels: Labels | None = None) -> None:
        """
        Use ``detector``.

        Without ``labels`` the ground truth is what it finds in the sharp picture at ``score``.
        """
        self.detector, self.score, self.labels = detector, score, labels

    def truth(self, name: str, sharp: np.ndarray) -> Boxes:
        """Return the ground truth of picture ``name``; ``sharp`` is uint8 H x W x 3, RGB."""
        if self.labels is not None:
            return self.labels.read(name, *sharp.shape[:2])
        found = self.detector.find(sharp)
        return found[found.scores >= self.score]

    def find(self, picture: np.ndarray, truth: Boxes) -> Finding:
        """Look for ``truth`` in a picture, uint8 H x W x 3, RGB."""
        return match(self.detector.find(picture), truth)

    def facts(self) -> dict[str, str | float]:
        """Return the facts that its figures depend on."""
        return {
            'file': str(self.detector.path), 'layout': self.detector.layout.name,
            'classes': ', '.join(self.detector.classes), 'score': self.score,
            'truth': str(self.labels.folder) if self.labels else 'what it finds in sharp pictures',
        }


def open_judge(
    detector: Path, classes: Sequence[str] | None = None, score: float = SCORE,
    labels: Path | None = None,
) -> Judge:
    """Load a detector. Raises ``DetectorError``."""
    loaded = Detector(detector, classes)
    return Judge(loaded, score, Labels(labels, loaded.kinds) if labels else None)


def match(found: Boxes, truth: Boxes) -> Finding:
    """
    Match detections with boxes as COCO does.

    In the order of their scores, each detection takes the free box of its class that it overlaps
    most, with an IoU of ``MATCH`` at least.
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
    """Return the figures of all pictures and classes; recall and precision are at ``score``."""
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
    Return the average precision (AP), as in PASCAL VOC since 2010.

    N detections have ``scores`` and are ``right`` or not; ``there`` is the number of boxes. At each
    recall the best precision at this or a higher recall counts. NaN without boxes.
    """
    if not there:
        return math.nan
    right = right[np.argsort(-scores, kind='stable')]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[right].sum() / there)


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else math.nan
