"""A recording is looked at before it is restored: its first frame knows what a live one learns."""

import numpy as np
import pytest
from test_inertial import (  # noqa: F401  clip is a fixture
    CAMERA,
    PERIOD,
    SHARE,
    biased,
    clip,
    degrees,
    gyroscope_of,
    right,
)

from iov_restore_ros.video.camera_path import TAU, turned
from iov_restore_ros.video.history import History
from iov_restore_ros.video.inertial import Inertial
from iov_restore_ros.video.rehearsal import FRAMES, rehearse


def history_of(times, rates):
    history = History(shutter=SHARE)
    history.inertial = Inertial(gyroscope_of(times, rates), CAMERA)
    return history


def stamped(clip):  # noqa: F811
    return [(number * PERIOD, frame) for number, frame in enumerate(clip.blurred)]


@pytest.mark.parametrize(('fault', 'late'), [(right, 0.0), (right, 0.004), (biased, 0.0)])
def test_the_first_frame_has_the_right_path(clip, fault, late):  # noqa: F811
    times, rates = fault(clip.times, clip.rates)
    history = history_of(times + late, rates)
    rehearse(history, stamped(clip), 'deblur')
    before = history.look_back(clip.blurred[0], 0.0, 'deblur')
    assert history.reason == 'first'
    assert before is not None and before.blurring is not None
    assert before.blurring.told == (1.0, 1.0)
    size = clip.blurred[0].shape[:2]
    exposure = TAU * SHARE * PERIOD
    true = turned(gyroscope_of(clip.times, clip.rates), CAMERA, size, 0.0, exposure)
    wrong = turned(gyroscope_of(times + late, rates), CAMERA, size, 0.0, exposure)
    apart = np.abs(before.blurring.path - true).mean()
    assert apart < 0.15  # pixels
    if (fault, late) != (right, 0.0):
        assert apart < 0.8 * np.abs(wrong - true).mean()


def test_a_wrong_gyroscope_is_known_at_once(clip):  # noqa: F811
    history = history_of(*degrees(clip.times, clip.rates))
    rehearse(history, stamped(clip), 'deblur')
    assert history.look_back(clip.blurred[0], 0.0, 'deblur') is None
    assert 'degrees' in history.inertial.reason


def test_nothing_else_is_left_of_it(clip):  # noqa: F811
    """The frames that follow are aligned as without it."""
    fresh, rehearsed = (history_of(clip.times, clip.rates) for _ in range(2))
    rehearse(rehearsed, stamped(clip), 'deblur')
    for history in (fresh, rehearsed):
        history.look_back(clip.blurred[0], 0.0, 'deblur')
        history.keep(clip.sharp[0], 0.0, clip.blurred[0])
    one, two = (
        history.look_back(clip.blurred[1], PERIOD, 'deblur') for history in (fresh, rehearsed)
    )
    assert fresh.reason == rehearsed.reason == ''
    assert np.array_equal(one.pixels, two.pixels)
    assert np.array_equal(one.flow.displacement, two.flow.displacement)


def test_errors_fade_more_slowly_with_a_gyroscope(clip):  # noqa: F811
    history = history_of(clip.times, clip.rates)
    rehearse(history, stamped(clip), 'deblur')
    grey = np.full_like(clip.sharp[0], 200)
    kept = []
    for number in range(3):
        before = history.look_back(clip.blurred[number], number * PERIOD, 'deblur')
        kept.append(before.pixels)
        history.keep(clip.sharp[number], number * PERIOD, grey)
    for number, share in ((0, 0.25), (1, 0.1)):  # nobody saw the first frame turn
        wanted = clip.sharp[number] + share * (grey - clip.sharp[number].astype(float))
        assert np.abs(kept[number + 1] - wanted).max() <= 0.51


@pytest.mark.parametrize('known', [False, True])
def test_it_reads_no_more_than_it_needs(clip, known):  # noqa: F811
    history = history_of(clip.times, clip.rates) if known else History()
    read = []

    def frames():
        for number in range(FRAMES + 10):
            read.append(number)
            yield number * PERIOD, clip.blurred[number % len(clip.blurred)]

    rehearse(history, frames(), 'deblur')
    assert len(read) == (FRAMES if known else 1)
