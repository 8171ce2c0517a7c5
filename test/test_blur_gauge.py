"""Telling sharp frames from blurred ones."""

import itertools

import cv2
import numpy as np
import pytest

from iov_restore_ros.inference.blur_gauge import FALL, START, BlurGauge, sharpness


def smear(image, pixels, axis=1):
    """Average ``image`` along a straight way of that many pixels."""
    return cv2.blur(image, (pixels, 1) if axis else (1, pixels))


def test_sharpness_of_known_edges():
    """A step over one pixel is 1, over two 1/2, a ramp 1/4."""
    checks = np.kron(np.indices((20, 20)).sum(0) % 2, np.ones((24, 24)))
    steps = np.repeat((60 + 120 * checks)[..., None], 3, 2).astype(np.uint8)
    assert sharpness(steps) == 1
    assert sharpness(smear(smear(steps, 2), 2, 0)) == pytest.approx(0.5, abs=0.15)
    assert sharpness(smear(smear(steps, 20), 20, 0)) < 0.3
    assert sharpness(smear(steps, 20)) < 0.3, 'blur along one axis is enough'


def test_any_size_and_frames_without_edges():
    rng = np.random.default_rng(0)
    for height, width in itertools.product((*range(1, 12), 64, 99), repeat=2):
        noise = rng.integers(0, 256, (height, width, 3), np.uint8)
        assert 0 <= sharpness(noise) <= 1
        assert sharpness(np.full_like(noise, 90)) == 0


def test_light_does_not_matter_but_blur_does(photograph):
    sharp = sharpness(photograph)
    dim = (photograph // 2 + 20).astype(np.uint8)
    assert sharpness(dim) == pytest.approx(sharp, rel=0.1)
    values = [sharpness(smear(photograph, n, axis)) for axis in (0, 1) for n in (5, 9, 15)]
    assert max(values) < 0.75 * sharp


def test_a_camera_is_judged_by_its_own_frames():
    """A soft lens: restored as long as it is unknown, then its sharp frames pass."""
    gauge = BlurGauge()
    assert not gauge.judge(0.5)
    for _ in range(round(3 / FALL)):
        gauge.judge(0.5)
    assert gauge.judge(0.5)
    assert not gauge.judge(0.43)
    assert not BlurGauge().judge(0.5), 'gauges share nothing'


def test_blur_and_outliers_teach_little():
    gauge = BlurGauge()
    for _ in range(10_000):
        gauge.judge(0.35)  # heavy blur, for minutes
        gauge.judge(0.0)  # and frames without an edge
    assert not gauge.judge(0.5)
    assert gauge.judge(START)
    gauge.judge(1.0)
    assert gauge.judge(START), 'one noisy frame'
