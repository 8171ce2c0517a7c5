"""The measures, against the formulas written out and against scikit-image."""

import cv2
import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.nn import functional

from iov_restore_ros.evaluation.metrics import (
    aligned_psnr_ssim,
    features_kept,
    luma,
    psnr,
    restore_image,
    ssim,
    ssim_3d,
)
from iov_restore_ros.model import Generator

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@pytest.fixture(scope='module')
def pair(photograph):
    """Return (blurred and noisy, sharp); blurred but little in one channel, very in another."""
    sharp = photograph[:120, :150]
    noise = np.random.default_rng(1).normal(0, 8, sharp.shape)
    sigmas = 0.5, 1, 3
    blurred = [cv2.GaussianBlur(sharp[..., c], (0, 0), sigmas[c]) for c in range(3)]
    return (np.dstack(blurred) + noise).clip(0, 255).astype(np.uint8), sharp


def gaussian():
    """Return the 11 weights of Wang et al.'s window in one direction."""
    weights = np.exp(-np.arange(-5, 6) ** 2 / (2 * 1.5**2))
    return weights / weights.sum()


def similarity(x, y, mean):
    """Return SSIM's map as its formula says, given what averages over the window."""
    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    return ((2 * mean_x * mean_y + C1) * (2 * covariance + C2)) / (
        (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    )


def test_psnr_is_its_formula(pair):
    picture, truth = pair
    error = np.mean((picture.astype(float) - truth) ** 2)
    assert psnr(picture, truth) == pytest.approx(10 * np.log10(255**2 / error), abs=1e-6)
    assert psnr(*pair) == pytest.approx(peak_signal_noise_ratio(truth, picture), abs=1e-6)
    assert psnr(truth, truth) == float('inf')


def test_ssim_is_the_formula_of_wang_channel_by_channel(pair):
    picture, truth = pair
    window = np.outer(gaussian(), gaussian())
    expected = [
        similarity(*channels, lambda image: convolve2d(image, window, 'valid')).mean()
        for channels in zip(*(np.moveaxis(i.astype(float), 2, 0) for i in pair), strict=True)
    ]
    assert max(expected) - min(expected) > 0.1, 'the channels differ, so their mean is tested'
    assert ssim(picture, truth) == pytest.approx(np.mean(expected), abs=1e-6)
    assert ssim(picture[..., 1], truth[..., 1]) == pytest.approx(expected[1], abs=1e-6)
    assert ssim(picture, truth) == pytest.approx(structural_similarity(
        truth, picture, channel_axis=2, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    ), abs=1e-6)


def test_ssim_3d_is_the_formula_with_a_cube_as_window(pair):
    cube = torch.from_numpy(np.einsum('i,j,k->ijk', gaussian(), gaussian(), gaussian()))

    def mean(volume):
        padded = functional.pad(volume[None, None], (5,) * 6, mode='replicate')
        return functional.conv3d(padded, cube[None, None])[0, 0]

    x, y = (torch.from_numpy(image.astype(float)) for image in pair)
    assert ssim_3d(*pair) == pytest.approx(similarity(x, y, mean).mean().item(), abs=1e-6)
    assert ssim_3d(*pair) > ssim(*pair) + 0.01


@pytest.mark.parametrize(('rgb', 'y'), [
    ((255, 255, 255), 235), ((0, 0, 0), 16), ((255, 0, 0), 81), ((0, 255, 0), 145),
    ((0, 0, 255), 41),
])
def test_luma_is_that_of_matlab(rgb, y):
    assert luma(np.full((1, 1, 3), rgb, np.uint8)) == y


def test_alignment_undoes_a_shift_and_counts_what_is_covered(photograph):
    picture = cv2.GaussianBlur(photograph, (0, 0), 1)
    truth, moved = picture[:, :-5], picture[:, 5:]
    decibels, similarity = aligned_psnr_ssim(moved, truth)
    # What is left is the brightness, which is matched before the pictures are aligned.
    x, z = truth / 255, moved / 255
    error = (x - (x * z).sum() / (z * z).sum() * x)[:, 5:]
    assert decibels == pytest.approx(-10 * np.log10((error**2).mean()), abs=0.2)
    assert decibels > psnr(moved, truth) + 10
    assert similarity > 0.98


def test_brightness_does_not_count_in_the_aligned_measures(photograph):
    darker = (photograph * 0.8).astype(np.uint8)
    decibels, _ = aligned_psnr_ssim(darker, photograph)
    assert decibels > 45 > 30 > psnr(darker, photograph)


def test_alignment_changes_nothing_for_what_lies_in_place(pair):
    # The brightness of this pair is equal, so all that could differ is the alignment.
    decibels, similarity = aligned_psnr_ssim(*pair)
    assert decibels == pytest.approx(psnr(*pair), abs=0.1)
    assert similarity == pytest.approx(ssim(*pair), abs=0.01)


def test_alignment_of_pictures_without_anything_in_common():
    black, white = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)
    assert aligned_psnr_ssim(black, white) == (pytest.approx(0), pytest.approx(0, abs=1e-3))


def test_features_count_only_in_their_place(photograph):
    assert features_kept(photograph, photograph) > 0.95
    assert features_kept(np.zeros_like(photograph), photograph) == 0
    assert features_kept(np.roll(photograph, 2, 1), photograph) > 0.8
    assert features_kept(np.roll(photograph, 10, 1), photograph) < 0.1


def test_restore_image_is_the_generator_in_8_bits(photograph):
    generator = Generator('fast').eval()
    generator.initialise()
    picture = photograph[:41, 39::-1]  # of no even size, and not contiguous
    restored = restore_image(generator, picture, 'cpu')
    with torch.no_grad():
        tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255
        expected = (255 * generator(tensor)).round().clamp(0, 255)[0].permute(1, 2, 0)
    assert restored.dtype == np.uint8
    assert not np.array_equal(restored, picture)
    assert np.array_equal(restored, expected.numpy())


def test_restore_image_of_a_broken_generator_is_black(photograph):
    class Broken(torch.nn.Module):
        def forward(self, image):
            return image * float('nan')
    assert not restore_image(Broken(), photograph, 'cpu').any()
