"""A blur whose path is known undone by Wiener's filter."""

import cv2
import numpy as np
import pytest
import torch

from iov_restore_ros.compute.cpu import compute, use_threads
from iov_restore_ros.evaluation.metrics import psnr
from iov_restore_ros.inference.pixels import make_evidence
from iov_restore_ros.model.fusion import MOMENTS, chord
from iov_restore_ros.model.wiener import (
    POINTS,
    SIDE,
    deconvolve,
    noise_of,
    spectrum_of_blur,
    strips_of,
)
from iov_restore_ros.video.before import Before, Blurring
from iov_restore_ros.video.camera_path import TAU, straight


def blurred(picture, length, level=True):
    """Average ``picture`` (float32, 0..1) along a straight way."""
    moved = [
        cv2.warpAffine(
            picture, np.float32([[1, 0, at * level], [0, 1, at * (not level)]]),
            picture.shape[::-1], borderMode=cv2.BORDER_REFLECT,
        ) for at in np.linspace(-length / 2, length / 2, 4 * length + 1)
    ]
    return np.mean(moved, 0, dtype=np.float32)


def to_bytes(picture):
    return (255 * np.clip(picture, 0, 1)).round().astype(np.uint8)[24:-24, 24:-24]


@pytest.fixture
def grey(photograph):
    return cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


def undo(picture, x, y):
    return undo_path(picture, straight(np.float32([[[x, y]]]))[0, 0])


def undo_path(picture, path, prior=None):
    """Undo a ``path`` (``MOMENTS`` x 2, pixels) that is the same all over."""
    height, width = picture.shape[:2]
    cells = -(-height // 4), -(-width // 4)
    everywhere = torch.from_numpy(path).float().view(1, -1, 2, 1, 1).expand(1, -1, 2, *cells)
    planes, before = (
        None if one is None else
        torch.from_numpy(one).view(height, width, -1).permute(2, 0, 1)[None]
        for one in (picture, prior)
    )
    undone = deconvolve(planes, everywhere, prior=before)
    return undone[0].permute(1, 2, 0).numpy().reshape(picture.shape)


@pytest.mark.parametrize('level', [True, False])
@pytest.mark.parametrize('length', [6, 12])
def test_it_gains_more_than_a_decibel(grey, length, level):
    worse = blurred(grey, length, level)
    right = undo(worse, length * level, length * (not level))
    across = undo(worse, length * (not level), length * level)
    gain, loss = (
        psnr(to_bytes(picture), to_bytes(grey)) - psnr(to_bytes(worse), to_bytes(grey))
        for picture in (right, across)
    )
    assert gain > 1
    assert loss < 0, 'the wrong direction'


def swing(moments):
    """Return where the picture is at ``moments`` (of -0.5..0.5) of a bump's exposure, N x 2."""
    turns = 1.6 * np.pi * moments
    return np.stack([4 * np.sin(turns), 5 * (np.cos(turns) - 1)], -1).astype(np.float32)


def test_a_path_that_swings_is_undone_better_than_its_chord(photograph):
    colours = photograph.astype(np.float32) / 255
    moved = [
        cv2.warpAffine(
            colours, np.float32([[1, 0, x], [0, 1, y]]), colours.shape[1::-1],
            borderMode=cv2.BORDER_REFLECT,
        ) for x, y in swing(np.linspace(-0.5, 0.5, 65))
    ]
    worse, path = np.mean(moved, 0, dtype=np.float32), swing(TAU)
    assert path.shape == (MOMENTS, 2)
    back = chord(torch.from_numpy(path)[None])[0].numpy()
    by_path, by_chord = (
        psnr(to_bytes(undo_path(worse, way)), to_bytes(colours))
        for way in (path, straight(back[None, None])[0, 0])
    )
    assert by_path > by_chord + 1
    assert by_path > psnr(to_bytes(worse), to_bytes(colours)) + 3


def test_a_prior_shows_what_the_filter_does_not_recover(grey):
    worse = blurred(grey, 12)
    path = straight(np.float32([[[12, 0]]]))[0, 0]
    without = undo_path(worse, path)
    assert np.array_equal(undo_path(worse, path, np.zeros_like(grey)), without)
    gains = [
        psnr(to_bytes(undo_path(worse, path, prior)), to_bytes(grey)) -
        psnr(to_bytes(without), to_bytes(grey))
        for prior in (grey, np.roll(grey, 30, 0))
    ]
    assert gains[0] > 3, 'the sharp picture'
    assert gains[1] > -3, 'another one: it counts only where the filter stops'


def test_a_prior_does_not_matter_where_nothing_moved(grey):
    still = undo_path(grey, np.zeros((MOMENTS, 2), np.float32), 1 - grey)
    np.testing.assert_allclose(still, grey, atol=2e-6)


def test_the_spectrum_of_a_blur_is_the_mean_of_what_its_path_turns():
    paths = 9 * np.random.default_rng(2).random((1, MOMENTS, 2, 2, 3), np.float32)
    real, imaginary = (part.numpy() for part in spectrum_of_blur(torch.from_numpy(paths)))
    down, across = np.fft.fftfreq(SIDE)[:, None, None], np.fft.rfftfreq(SIDE)[:, None]
    where = (np.arange(POINTS) + 0.5) * (MOMENTS - 1) / POINTS
    for row, column in np.ndindex(2, 3):
        x, y = (np.interp(where, range(MOMENTS), paths[0, :, of, row, column]) for of in (0, 1))
        expected = np.exp(-2j * np.pi * (down * y + across * x)).mean(-1)
        np.testing.assert_allclose(real[0, row, column], expected.real, atol=1e-5)
        np.testing.assert_allclose(imaginary[0, row, column], expected.imag, atol=1e-5)


def test_a_path_of_no_length_leaves_the_picture(photograph):
    colours = photograph.astype(np.float32) / 255
    still = undo_path(colours, np.zeros((MOMENTS, 2), np.float32))
    np.testing.assert_allclose(still, colours, atol=2e-6)


@pytest.mark.parametrize('size', [(1, 1), (33, 130), (64, 64), (250, 367)])
def test_what_did_not_move_stays_as_it_is(grey, size):
    picture = np.ascontiguousarray(grey[: size[0], : size[1]])
    still = undo(picture, 0, 0)
    assert still.shape == picture.shape
    np.testing.assert_allclose(still, picture, atol=2e-6)


def test_the_number_of_threads_changes_no_bit(photograph):
    """Of what is made beside a frame on the CPU, by the thread that computes."""
    frame = photograph[:144, :192]
    path = straight(np.full((36, 48, 2), (9, 3), np.float32))
    beside = Before(None, None, Blurring(np.zeros((36, 48, 2), np.float32), path, (1.0, 1.0)))
    before = compute(torch.get_num_threads)
    try:
        use_threads(1)
        alone = make_evidence(frame, beside).undone
        use_threads(2)
        assert np.array_equal(make_evidence(frame, beside).undone, alone)
        assert compute(torch.get_num_threads) == 2, 'it is as it was'
    finally:
        use_threads(before)


@pytest.mark.parametrize('height', [20, 64, 97, 320, 330, 700])
def test_noise_in_strips_is_the_noise_in_all(grey, height):
    picture = np.tile(grey, (4, 1))[:height, :150]
    picture = picture + 0.02 * np.random.default_rng(0).normal(size=picture.shape)
    image = torch.from_numpy(picture.astype(np.float32))[None, None]
    path = torch.zeros(1, MOMENTS, 2, -(-height // 4), 38)
    path[:, -1] = 5
    noise = noise_of(image[..., rows, :] for rows in strips_of(height))
    assert noise > 0
    assert torch.equal(deconvolve(image, path, noise), deconvolve(image, path))
    assert not torch.equal(deconvolve(image, path, 2 * noise), deconvolve(image, path))
