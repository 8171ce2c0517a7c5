"""A straight blur undone by Wiener's filter."""

import cv2
import numpy as np
import pytest
import torch

from iov_restore_ros.evaluation.metrics import psnr
from iov_restore_ros.model.wiener import deconvolve


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
    height, width = picture.shape
    motion = torch.tensor([x, y]).float().view(1, 2, 1, 1)
    motion = motion.expand(1, 2, -(-height // 4), -(-width // 4))
    return deconvolve(torch.from_numpy(picture)[None, None], motion)[0, 0].numpy()


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


@pytest.mark.parametrize('size', [(1, 1), (33, 130), (64, 64), (250, 367)])
def test_what_did_not_move_stays_as_it_is(grey, size):
    picture = np.ascontiguousarray(grey[: size[0], : size[1]])
    still = undo(picture, 0, 0)
    assert still.shape == picture.shape
    np.testing.assert_allclose(still, picture, atol=2e-6)


def test_the_number_of_threads_changes_no_bit(grey):
    picture = np.ascontiguousarray(grey[:144, :192])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = undo(picture, 9, 3)
        torch.set_num_threads(2)
        assert np.array_equal(undo(picture, 9, 3), alone)
    finally:
        torch.set_num_threads(threads)
