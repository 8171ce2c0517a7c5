"""Synthetic blur and rain."""

import pytest
import torch

from iov_restore_ros.training.degradations import (
    DEGRADATIONS,
    MARGIN,
    draw_strength,
    motion_blur,
)


@pytest.fixture(scope='module')
def sharp(photograph):
    batch = torch.from_numpy(photograph[:128, :160]).permute(2, 0, 1)[None].float() / 255
    return batch.repeat(8, 1, 1, 1)


def rng(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('task', DEGRADATIONS)
def test_same_seed_same_pictures(sharp, task):
    degrade = DEGRADATIONS[task]
    first, again, other = (degrade(sharp, torch.ones(8), rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize('task', DEGRADATIONS)
def test_pictures_are_what_eight_bits_can_hold(sharp, task):
    degraded, target = DEGRADATIONS[task](sharp, torch.ones(8), rng())
    assert degraded.shape == target.shape
    assert degraded.min() >= 0 and degraded.max() <= 1
    torch.testing.assert_close(degraded * 255, (degraded * 255).round(), atol=1e-3, rtol=0)


@pytest.mark.parametrize('task', DEGRADATIONS)
def test_strength_zero_touches_nothing_and_one_does(sharp, task):
    strength = torch.tensor([0.0, 1.0] * 4)
    degraded, target = DEGRADATIONS[task](sharp, strength, rng())
    assert torch.equal(degraded[::2], target[::2])
    for picture, truth in zip(degraded[1::2], target[1::2], strict=True):
        assert (picture - truth).abs().mean() > 1 / 255


def test_a_quarter_is_clean_or_nearly():
    strength = draw_strength(2000, rng())
    assert ((strength >= 0) & (strength <= 1)).all()
    assert (strength < 0.2).float().mean() >= 0.25
    assert (strength == 0).float().mean() > 0.15
    assert (strength == 1).float().mean() > 0.6


def test_target_of_blur_is_the_centre_crop(sharp):
    _, target = motion_blur(sharp, torch.ones(8), rng())
    assert torch.equal(target, sharp[..., MARGIN:-MARGIN, MARGIN:-MARGIN])


def test_blur_keeps_light_and_takes_detail(sharp):
    degraded, target = motion_blur(sharp, torch.ones(8), rng())
    assert (degraded.mean((1, 2, 3)) - target.mean((1, 2, 3))).abs().max() < 0.05

    def detail(image):
        return (image[..., 1:] - image[..., :-1]).abs().mean()
    assert detail(degraded) < 0.7 * detail(target)


def test_blurred_frame_is_centred_on_its_target(sharp):
    """The target is the middle of the exposure: shifting it must not fit better, on the mean."""
    degraded, target = motion_blur(sharp.repeat(8, 1, 1, 1), torch.ones(64), rng())
    degraded, target = degraded.mean(0), target.mean(0)

    def fit(dx):
        return (degraded[..., 8:-8] - target.roll(dx, -1)[..., 8:-8]).abs().mean()
    assert fit(0) < fit(4) and fit(0) < fit(-4)


def test_streaks_only_add_light(sharp):
    from iov_restore_ros.training.degradations import _streaks
    streaks = _streaks(16, 64, 64, torch.ones(16), rng())
    assert streaks.min() > -1e-5
    assert streaks.max() > 0.3
