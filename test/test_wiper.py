"""A wiper that sweeps comes off; what is as dark and as long, and does not turn, stays."""

import cv2
import numpy as np
import pytest
from pictures import RATE
from skimage import data as photographs

from iov_restore_ros.evaluation.metrics import psnr
from iov_restore_ros.inference import History
from iov_restore_ros.model import load_glass
from iov_restore_ros.video.clear import Clearer
from iov_restore_ros.video.glass import Cleaner
from iov_restore_ros.video.wiper import find_bar, sweeps

SIZE = 320, 184  # width, height
STEP = 4  # pixels a frame
FIRST, LAST = 4, 9  # frames with something before them
SHAPE = 90, 160  # cells
DARK = 0.08


@pytest.fixture(scope='module')
def road():
    """Frames of a camera that moves over a photograph, uint8 T x H x W x 3."""
    bright = 80 + photographs.coffee() // 3 * 2
    wide = cv2.resize(bright, (SIZE[0] + 12 * STEP, 260))[20:]
    return [
        np.ascontiguousarray(wide[: SIZE[1], n * STEP : n * STEP + SIZE[0]]) for n in range(12)
    ]


def behind(frame, start, end):
    """Return ``frame`` behind a dark bar from one place to another, 12 pixels wide."""
    cover = np.zeros(SIZE[::-1], np.float32)
    cv2.line(cover, *(tuple(int(n) for n in place) for place in (start, end)), 1.0, 12)
    cover = cv2.GaussianBlur(cover, (0, 0), 1.0)[..., None]
    return (frame + cover * (20.0 - frame)).round().astype(np.uint8)


def wiped(road):
    """Return ``road`` before which a wiper turns about a place below the picture."""
    frames = list(road)
    for number in range(FIRST, LAST):
        angle = 0.6 + 0.45 * (number - FIRST)
        tip = 160 + 260 * np.cos(angle), 215 - 260 * np.sin(angle)
        frames[number] = behind(road[number], (160, 215), tip)
    return frames


def passed(road):
    """Return ``road`` before which a pole passes on the side."""
    frames = list(road)
    for number in range(FIRST, LAST):
        x = 60 + 45 * (number - FIRST)
        frames[number] = behind(road[number], (x, 0), (x, SIZE[1]))
    return frames


def follow(frames):
    clearer, history, cleared = Clearer(None, Cleaner(load_glass())), History(), []
    for number, frame in enumerate(frames):
        known = history.look_back(frame, number / RATE, 'derain', clearer)
        cleared.append(known.clear)
        history.keep(known.clear, number / RATE)
    return cleared


def test_a_wiper_that_sweeps_comes_off(road):
    frames = wiped(road)
    cleared = follow(frames)
    came, left = (
        np.mean([psnr(made[n], road[n]) for n in range(FIRST + 1, LAST)])
        for made in (frames, cleared)
    )
    assert left > came + 3


def test_a_pole_that_passes_stays(road):
    frames = passed(road)
    for cleared, frame in zip(follow(frames), frames, strict=True):
        assert psnr(cleared, frame) > 38


def bar(start, end):
    """Return what is found of a dark bar before a grey scene, ends in cells."""
    expected = np.full(SHAPE, 0.5, np.float32)
    grey = expected.copy()
    cv2.line(grey, start, end, DARK, 5)
    return find_bar(grey, expected)


@pytest.mark.parametrize(('earlier', 'later', 'wiper'), [
    (((80, 89), (20, 20)), ((80, 89), (60, 5)), True),
    (((80, 89), (60, 5)), ((80, 89), (100, 5)), True),
    (((40, 89), (40, 0)), ((70, 89), (70, 0)), False),  # a pole
    (((40, 89), (40, 0)), ((41, 89), (44, 0)), False),  # the same, shaken
    (((80, 0), (20, 89)), ((80, 0), (60, 89)), False),  # about a place above
])
def test_a_wiper_turns_about_a_place_below(earlier, later, wiper):
    assert sweeps(bar(*earlier), bar(*later)) == wiper


def test_what_is_no_bar_is_none():
    assert bar((80, 60), (60, 30)) is None  # touches no border
    assert bar((80, 89), (80, 80)) is None  # short
    assert bar((0, 10), (159, 10)) is not None
    expected = np.full(SHAPE, 0.5, np.float32)
    assert find_bar(expected, expected) is None
    vehicle = expected.copy()
    vehicle[40:, 30:110] = DARK
    assert find_bar(vehicle, expected) is None
    at_night = np.full(SHAPE, 0.06, np.float32)
    assert find_bar(at_night, at_night + 0.04) is None
