"""Detectors as files, on pictures whose boxes are known; matching, recall, precision and AP."""

import math
import sys

import numpy as np
import pytest
from detectors import BLUE, CYAN, PINK, RED, scene, write_constant, write_detector

from iov_restore_ros.evaluation.boxes import Boxes, best_of, iou
from iov_restore_ros.evaluation.detection import average_precision, figures, match
from iov_restore_ros.evaluation.detector import COCO, Detector, DetectorError
from iov_restore_ros.evaluation.labels import Labels

NAMES = {0: 'person', 1: 'car'}
COLOURS = {'yolox': (CYAN, PINK), 'ultralytics': (RED, BLUE)}  # of class 0 and of class 1


def boxes(*rows):
    """Return boxes of (left, top, right, bottom, kind, score)."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].astype(int), table[:, 5])


@pytest.mark.parametrize('layout', COLOURS)
def test_boxes_of_a_free_size_are_where_they_are_in_the_picture(layout, tmp_path):
    detector = Detector(write_detector(tmp_path / 'd.onnx', layout, names=NAMES))
    first, second = COLOURS[layout]
    # 70 x 100 is no multiple of 32: the picture is padded, not scaled.
    found = detector.find(scene((70, 100), (16, 40, 8, first), (80, 8, 8, second)))
    assert detector.layout.name.lower() == layout
    assert sorted(map(tuple, found.corners.tolist())) == [(16, 40, 24, 48), (80, 8, 88, 16)]
    assert dict(zip(found.corners[:, 0], found.kinds, strict=True)) == {16: 0, 80: 1}
    assert found.scores == pytest.approx([1, 1])


@pytest.mark.parametrize('layout', COLOURS)
@pytest.mark.parametrize(('shape', 'scale'), [((128, 256), 2), ((256, 128), 2), ((64, 32), 0.5)])
def test_boxes_of_a_fixed_size_are_where_they_are_in_the_picture(layout, shape, scale, tmp_path):
    """In a letterbox, at the top left for YOLOX and in the middle for Ultralytics."""
    detector = Detector(write_detector(tmp_path / 'd.onnx', layout, (128, 128), names=NAMES))
    side = int(8 * scale)
    left, top = 2 * side, 3 * side
    picture = scene(shape, (left, top, side, COLOURS[layout][0]))
    found = detector.find(picture)[[0]]
    # A picture that is made larger gets soft edges, but stays where it is.
    assert found.corners[0] == pytest.approx([left, top, left + side, top + side])
    assert found.kinds == [0]


def test_of_boxes_that_overlap_the_best_of_each_kind_stays(tmp_path):
    crowd = boxes(
        (0, 0, 10, 10, 0, 0.5), (1, 0, 11, 10, 0, 0.9), (1, 0, 11, 10, 1, 0.8),
        (6, 0, 16, 10, 0, 0.7),
    )
    assert iou(crowd.corners[:1], crowd.corners)[0] == pytest.approx([1, 9 / 11, 9 / 11, 4 / 16])
    assert best_of(crowd).scores == pytest.approx([0.9, 0.8, 0.7])
    # Four cells side by side, each a box of four cells' width: neighbours overlap by 3/5.
    detector = Detector(write_detector(tmp_path / 'd.onnx', 'yolox', wide=4, names=NAMES))
    row = scene((64, 128), *[(32 + 8 * n, 16, 8, CYAN) for n in range(4)])
    assert len(detector.find(row)) == 2


def test_car_bus_and_truck_are_one_kind(tmp_path):
    file = write_detector(tmp_path / 'd.onnx', 'ultralytics', names={0: 'bus', 1: 'car'})
    both = scene((64, 64), (8, 8, 8, RED), (40, 8, 8, BLUE))
    assert Detector(file).find(both).kinds.tolist() == [0, 0]
    assert Detector(file, ['bus']).find(both).corners[:, 0].tolist() == [8]


def test_classes_are_called_as_the_file_says_or_by_number(tmp_path):
    file = write_detector(tmp_path / 'd.onnx', 'yolox')
    assert Detector(file, ['1']).names == ['0', '1']
    rows = write_constant(tmp_path / 'coco.onnx', (1, 64 + 16 + 4, 85))
    assert Detector(rows).names == COCO
    assert len(COCO) == 80 and COCO[9] == 'traffic light' and COCO[79] == 'toothbrush'


def nothing(folder):
    return folder / 'd.onnx', None, 'd.onnx: no such file'


def text(folder):
    (folder / 'd.onnx').write_text('weights')
    return folder / 'd.onnx', None, r'd\.onnx: not an ONNX file .*yolo export format=onnx'


def with_nms(folder):
    file = write_constant(folder / 'd.onnx', (1, 300, 6))
    return file, None, r'gives 1x300x6 for a picture of 64x64.*1x84x\(5 \+ classes\).*nms=False'


def decoded(folder):
    file = write_constant(folder / 'd.onnx', (1, 84, 85), value=60)
    return file, None, 'decoded already: export it without --decode_in_inference'


def two_outputs(folder):
    file = write_constant(folder / 'd.onnx', (1, 84, 85), (1, 32, 16, 16))
    return file, None, 'gives 1x84x85, 1x32x16x16'


def unknown_class(folder):
    file = write_detector(folder / 'd.onnx', 'yolox', names=NAMES)
    return file, ['lorry'], 'has no class lorry; give --classes, of: person, car'


def no_road_user(folder):
    file = write_detector(folder / 'd.onnx', 'yolox', names={0: 'cat', 1: 'dog'})
    return file, None, 'has no class any of person, .*give --classes, of: cat, dog'


def unreadable_names(folder):
    file = write_detector(folder / 'd.onnx', 'yolox', names='{0: ')
    return file, None, 'names of its 2 classes cannot be read'


@pytest.mark.parametrize('fault', [
    nothing, text, with_nms, decoded, two_outputs, unknown_class, no_road_user, unreadable_names,
])
def test_a_file_that_cannot_be_used_is_refused_with_what_would_do(fault, tmp_path):
    path, classes, reason = fault(tmp_path)
    with pytest.raises(DetectorError, match=reason):
        Detector(path, classes)


def test_without_onnxruntime_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(DetectorError, match=r"pip install '\.\[export\]'"):
        Detector(write_detector(tmp_path / 'd.onnx', 'yolox', names=NAMES))


# What is found beside what is there


def test_each_box_is_found_once_by_the_best_find_of_its_kind():
    truth = boxes((0, 0, 10, 10, 0, 1), (20, 0, 30, 10, 0, 1), (40, 0, 50, 10, 1, 1))
    found = boxes(
        (1, 0, 11, 10, 0, 0.9),  # the first
        (0, 0, 10, 10, 0, 0.8),  # fits better, but the first has been taken
        (24, 0, 34, 10, 0, 0.7),  # IoU 6/14
        (40, 0, 50, 10, 0, 0.6),  # another kind
        (40, 0, 50, 8, 1, 0.3),  # the third
    )
    finding = match(found, truth)
    assert finding.which.tolist() == [0, -1, -1, -1, 2]
    assert finding.counts(0.5) == (1, 3) and finding.counts(0.1) == (2, 3)
    for some, other in ((found, boxes()), (boxes(), truth)):
        assert (match(some, other).which == -1).all()


def test_average_precision_as_worked_out_by_hand():
    scores = np.array([0.6, 0.9, 0.8, 0.55, 0.7])  # in order: right, wrong, right, wrong, right
    right = np.array([False, True, False, True, True])
    assert average_precision(scores, right, 4) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    # Precision is 0, 1/2, 2/3: at both recalls 2/3 is the best from there on.
    rising = average_precision(np.array([0.9, 0.8, 0.7]), np.array([False, True, True]), 2)
    assert rising == pytest.approx(2 / 3)
    assert math.isnan(average_precision(scores, right, 0))
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0


def test_figures_are_of_all_pictures_together():
    one = match(boxes((0, 0, 8, 8, 0, 0.9)), boxes((0, 0, 8, 8, 0, 1)))
    two = match(
        boxes((0, 0, 8, 8, 0, 0.6), (20, 0, 28, 8, 0, 0.4)),
        boxes((20, 0, 28, 8, 0, 1), (40, 0, 48, 8, 0, 1), (60, 0, 68, 8, 0, 1)),
    )
    both = figures([one, two], 0.5)
    assert (both.boxes, both.recall, both.precision) == (4, 1 / 4, 1 / 2)
    assert both.ap == pytest.approx((1 + 2 / 3) / 4)
    empty = figures([match(boxes(), boxes())], 0.5)
    assert empty.boxes == 0 and math.isnan(empty.recall) and math.isnan(empty.precision)


def test_labels_are_boxes_in_pixels(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / '1.5.txt').write_text('1 0.5 0.25 0.2 0.5\n\n0 0.5 0.5 1 1\n2 0 0 1 1\n')
    labels = Labels(tmp_path, np.array([4, 7, -1]))
    for name in ('a/1.5', 'a/1.5.png'):
        there = labels.read(name, 100, 200)
        assert there.kinds.tolist() == [7, 4], 'the third is not looked for'
        assert there.corners == pytest.approx(np.array([[80, 0, 120, 50], [0, 0, 200, 100]]))
    assert len(labels.read('a/2', 100, 200)) == 0
    labels.check(['a/2', 'a/1.5'])
    with pytest.raises(DetectorError, match=r'no labels, looked for .*b\.txt'):
        labels.check(['b'])
    for line in ('person 0 0 1 1', '3 0 0 1 1', '0 0 0 1', '0.5 0 0 1 1'):
        (tmp_path / 'b.txt').write_text(line)
        with pytest.raises(DetectorError, match=r'b\.txt: .* is no box; expected CLASS'):
            labels.read('b', 10, 10)
