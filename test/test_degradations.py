"""Synthetic blur and rain."""

import pytest
import torch

from iov_restore_ros.pictures.degradations import DEGRADATIONS, draw_strength, motion_blur
from iov_restore_ros.pictures.degradations.blur import BLUR_MARGIN, camera_path
from iov_restore_ros.pictures.degradations.lens import drops, smears
from iov_restore_ros.pictures.degradations.rain import mist, streaks


@pytest.fixture(scope='module')
def sharp(photograph):
    batch = torch.from_numpy(photograph[:128, :160]).permute(2, 0, 1)[None].float() / 255
    return batch.repeat(8, 1, 1, 1)


def rng(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('name', DEGRADATIONS)
def test_same_seed_same_pictures(sharp, name):
    degrade = DEGRADATIONS[name].pictures
    first, again, other = (degrade(sharp, torch.ones(8), rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize('name', DEGRADATIONS)
def test_pictures_are_what_eight_bits_can_hold(sharp, name):
    degraded, target = DEGRADATIONS[name].pictures(sharp, torch.ones(8), rng())
    assert degraded.shape == target.shape
    assert degraded.min() >= 0 and degraded.max() <= 1
    torch.testing.assert_close(degraded * 255, (degraded * 255).round(), atol=1e-3, rtol=0)


@pytest.mark.parametrize('name', DEGRADATIONS)
def test_strength_zero_touches_nothing_and_one_does(sharp, name):
    strength = torch.tensor([0.0, 1.0] * 4)
    degraded, target = DEGRADATIONS[name].pictures(sharp, strength, rng())
    assert torch.equal(degraded[::2], target[::2])
    for picture, truth in zip(degraded[1::2], target[1::2], strict=True):
        assert (picture - truth).abs().mean() > 1 / 255


def test_shares_of_clean_and_light_samples():
    strength = draw_strength(4000, 0.2, 0.1, rng())
    assert (strength == 0).float().mean() == pytest.approx(0.2, abs=0.02)
    light = strength[(strength > 0) & (strength < 1)]
    assert len(light) / 4000 == pytest.approx(0.1, abs=0.02)
    assert light.min() >= 0.01 and light.max() <= 0.1


def test_target_of_blur_is_the_centre_crop(sharp):
    _, target = motion_blur(sharp, torch.ones(8), rng())
    assert torch.equal(target, sharp[..., BLUR_MARGIN:-BLUR_MARGIN, BLUR_MARGIN:-BLUR_MARGIN])


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


def test_camera_stands_still_at_the_middle_of_the_exposure():
    path = camera_path(torch.ones(5), rng())
    middle = path[len(path) // 2]
    torch.testing.assert_close(middle, torch.eye(2, 3).expand(5, 2, 3), atol=1e-5, rtol=0)
    assert (path[0] - path[-1]).abs().amax((1, 2)).min() > 0.5


def test_streaks_only_add_light_and_are_longer_than_wide():
    rain = streaks(torch.zeros(16, 3, 64, 64), torch.ones(16), rng())
    assert rain.shape == (16, 1, 64, 64)
    assert rain.min() > -1e-5
    assert rain.max() > 0.3
    down, across = ((rain - rain.roll(3, axis)).abs().mean() for axis in (2, 3))
    assert across > 1.5 * down, 'rain falls'


@pytest.mark.parametrize('water', [drops, smears])
def test_water_on_the_lens_blurs_a_part_of_some_pictures(sharp, water):
    many = sharp.repeat(8, 1, 1, 1)
    wet = water(many, torch.ones(64), rng())
    changed = (wet - many).abs().amax(1) > 0.02
    share = changed.float().mean((1, 2))
    assert 0.05 < (share > 0.01).float().mean() < 0.7, 'some pictures'
    assert share.max() < 1, 'a part of them'

    def detail(image):
        return ((image[..., 1:] - image[..., :-1]).abs().amax(1) * changed[..., 1:]).sum()
    assert detail(wet) < 0.9 * detail(many)


def test_mist_lowers_contrast(sharp):
    misty = mist(sharp.repeat(8, 1, 1, 1), torch.ones(64), rng())
    touched = (misty - sharp[:1]).abs().amax((1, 2, 3)) > 0.05
    assert 0.1 < touched.float().mean() < 0.6
    assert misty[touched].std((2, 3)).mean() < 0.95 * sharp[0].std((1, 2)).mean()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('name', DEGRADATIONS)
def test_pictures_are_made_where_the_images_are(sharp, name):
    degraded, target = DEGRADATIONS[name].pictures(
        sharp.cuda(), torch.ones(8, device='cuda'), torch.Generator('cuda').manual_seed(1)
    )
    assert degraded.is_cuda and target.is_cuda
    assert (degraded - target).abs().mean() > 1 / 255
