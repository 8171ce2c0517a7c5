"""Weather put on sharp frames to measure by."""

import numpy as np
import pytest
from pictures import drive

from iov_restore_ros.evaluation.weather import KINDS, behind_drops, put_on


@pytest.fixture
def sharp(street):
    """Return a few small frames of a drive."""
    return np.stack([frame[:120, :160] for frame in drive(street, 5)])


@pytest.mark.parametrize('kind', KINDS)
def test_each_kind_is_drawn_by_the_seed(sharp, kind):
    degraded = put_on(sharp, [kind], 4)
    assert degraded.shape == sharp.shape and degraded.dtype == np.uint8
    assert not np.array_equal(degraded, sharp)
    assert np.array_equal(degraded, put_on(sharp, [kind], 4))
    assert not np.array_equal(degraded, put_on(sharp, [kind], 5))


@pytest.mark.parametrize('kind', ['veil', 'film', 'dirt'])
def test_what_stays_does_the_same_to_every_frame(sharp, kind):
    degraded = put_on(np.stack([sharp[0]] * 5), [kind], 4)
    assert all(np.array_equal(frame, degraded[0]) for frame in degraded)


def test_a_veil_grows_towards_the_horizon_and_has_one_colour():
    scene = np.zeros((2, 90, 60, 3), np.uint8)
    scene[:, :, 30:] = 100
    black, grey = np.split(put_on(scene, ['veil'], 1)[0].astype(float).mean(-1), 2, axis=1)
    through = (grey - black)[:, 0] / 100
    assert (np.diff(through) > -0.02).all() and through[-1] > through[0] + 0.2
    lights = black[[0, 60], 0] / (1 - through[[0, 60]])
    assert lights[0] == pytest.approx(lights[1], rel=0.05)


def test_several_kinds_are_put_on_in_order_and_drawn_as_each_alone(sharp):
    one_by_one = put_on(put_on(put_on(sharp, ['veil'], 4), ['rain'], 4), ['drops'], 4)
    assert np.array_equal(put_on(sharp, ['drops', 'veil', 'rain'], 4), one_by_one)


def test_drops_cover_the_share_that_they_shall():
    """By what they do to frames with detail everywhere."""
    noise = np.random.default_rng(0).integers(0, 255, (1, 96, 128, 3), np.uint8)
    for share in (0.02, 0.1):
        wet = behind_drops(np.repeat(noise, 4, 0), share, np.random.default_rng(2))
        changed = (np.abs(wet[-1].astype(int) - noise[0]).max(-1) > 20).mean()
        assert 0.5 * share < changed < 3 * share
