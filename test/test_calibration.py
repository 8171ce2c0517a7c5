"""Calibrations and mountings as messages have them, and what is wrong with some."""

import numpy as np
import pytest

from iov_restore_ros.video.calibration import Frames, camera_of, rotation_of

K = [200.0, 0.0, 79.5, 0.0, 210.0, 47.5, 0.0, 0.0, 1.0]
HALF = np.sqrt(0.5)
OPTICAL = -0.5, 0.5, -0.5, 0.5  # of REP 103: camera_optical in camera


def camera(size=(96, 160), k=K, d=(), model='', width=160, height=96, region=(0, 0, 0, 0)):
    return camera_of(width, height, k, d, model, np.eye(3), 0.01, size, region)


def test_a_quaternion_turns_as_rep_103_has_it():
    quarter = rotation_of((0, 0, HALF, HALF))  # to the left
    np.testing.assert_allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rotation_of((0, 0, 2, 2)), quarter, atol=1e-12)
    optical = rotation_of(OPTICAL)
    np.testing.assert_allclose(optical @ [0, 0, 1], [1, 0, 0], atol=1e-12)  # ahead
    np.testing.assert_allclose(optical @ [1, 0, 0], [0, -1, 0], atol=1e-12)  # right


@pytest.mark.parametrize('wrong', [(0, 0, 0, 0), (0, 0, 1), (np.nan, 0, 0, 1), (np.inf, 0, 0, 1)])
def test_no_rotation_is_refused(wrong):
    with pytest.raises(ValueError, match='no rotation: expected a quaternion'):
        rotation_of(wrong)


def test_a_calibration_is_scaled_to_the_picture():
    assert np.array_equal(camera().matrix, np.reshape(K, (3, 3)))
    half = camera((48, 80))
    np.testing.assert_allclose(half.matrix, [[100, 0, 39.5], [0, 105, 23.5], [0, 0, 1]])
    assert half.readout == 0.01 and not half.fisheye and not half.distortion.any()


def test_a_calibration_without_a_size_is_the_picture_s():
    assert np.array_equal(camera(width=0, height=0).matrix, np.reshape(K, (3, 3)))


def test_a_region_of_the_sensor_has_its_own_middle():
    region = camera((48, 80), region=(20, 10, 80, 48))
    np.testing.assert_allclose(region.matrix[:, 2], [K[2] - 20, K[5] - 10, 1])
    half = camera((24, 40), region=(20, 10, 80, 48))
    np.testing.assert_allclose(half.matrix[0], [K[0] / 2, 0, (K[2] - 20 + 0.5) / 2 - 0.5])


def test_distortions_that_are_known():
    assert len(camera(d=[0.1, 0, 0, 0, 0], model='plumb_bob').distortion) == 5
    assert camera(d=np.zeros(5), model='plumb_bob').distortion.shape == (0,)
    assert len(camera(d=[0.1] * 8, model='rational_polynomial').distortion) == 8
    fisheye = camera(d=[0.1, 0, 0, 0], model='equidistant')
    assert fisheye.fisheye and len(fisheye.distortion) == 4
    assert camera(model='equidistant').distortion.shape == (4,)


@pytest.mark.parametrize(('fault', 'reason'), [
    ({'k': [0.0] * 9}, 'not calibrated'),
    ({'k': [np.nan] * 9}, 'not calibrated'),
    ({'model': 'thin_prism', 'd': [0.1]}, "'thin_prism', not one of plumb_bob, rational"),
    ({'model': 'plumb_bob', 'd': [0.1]}, 'D of camera_info has 1 coefficients.*4 or 5'),
    ({'d': [0.1]}, 'no distortion_model needs none'),
    ({'size': (96, 96)}, 'for 160 x 96 pixels, which cannot be scaled to 96 x 96'),
])
def test_calibrations_that_say_nothing_are_told(fault, reason):
    with pytest.raises(ValueError, match=reason):
        camera(**fault)


def test_frames_are_followed_up_and_down():
    frames = Frames()
    frames.add('base', 'mast', (0, 0, HALF, HALF))
    frames.add('mast', 'camera', (0, 0, 0, 1))
    frames.add('camera', 'optical', OPTICAL)
    frames.add('base', 'imu', (1, 0, 0, 0))  # upside down
    turn, length = frames.rotation('imu', 'optical')
    assert length == 4
    expected = rotation_of(OPTICAL).T @ rotation_of((0, 0, HALF, HALF)).T @ np.diag([1, -1, -1])
    np.testing.assert_allclose(turn, expected, atol=1e-12)
    np.testing.assert_allclose(frames.rotation('optical', 'imu')[0], expected.T, atol=1e-12)
    assert frames.rotation('imu', 'imu')[1] == 0
    assert frames.rotation('', '')[1] == 0
    assert frames.rotation('imu', 'elsewhere') is None
    with pytest.raises(ValueError, match='no rotation'):
        frames.add('base', 'broken', (0, 0, 0, 0))
