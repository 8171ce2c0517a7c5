"""Boxes in a picture: their overlap, and non-maximum suppression."""

from dataclasses import dataclass

import numpy as np

OVERLAP = 0.45  # IoU above which the weaker of two detections is dropped (as in YOLOX's scripts)


@dataclass(frozen=True)
class Boxes:
    """
    N boxes in one picture.

    ``corners`` float32 N x 4: left, top, right, bottom in pixels. ``kinds`` int64 N, the class of
    each box. ``scores`` float32 N, 0..1; 1 for labels.
    """

    corners: np.ndarray
    kinds: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: np.ndarray) -> 'Boxes':
        """Return the ``chosen`` boxes: numbers, or bool N."""
        return Boxes(self.corners[chosen], self.kinds[chosen], self.scores[chosen])


def iou(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return intersection over union of N x 4 and M x 4 corners, N x M."""
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), -1)
    areas = [np.prod(corners[:, 2:] - corners[:, :2], -1) for corners in (some, others)]
    union = areas[0][:, None] + areas[1][None] - shared
    return shared / np.maximum(union, 1e-9)


def best_of(boxes: Boxes) -> Boxes:
    """Return ``boxes``, best first, without those that overlap a better one of their class."""
    boxes = boxes[np.argsort(-boxes.scores, kind='stable')]
    same = iou(boxes.corners, boxes.corners) > OVERLAP
    same &= boxes.kinds[:, None] == boxes.kinds[None]
    keep = np.ones(len(boxes), bool)
    for number in range(len(boxes)):
        if keep[number]:
            keep[number + 1 :] &= ~same[number, number + 1 :]
    return boxes[keep]
