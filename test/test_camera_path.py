"""The path of each pixel from a gyroscope: against closed forms, and with samples as they come."""

import cv2
import numpy as np
import pytest

from iov_restore_ros.model.wiener import CELL
from iov_restore_ros.video.camera_path import (
    KEPT,
    LONGEST_HOLE,
    Camera,
    Gyroscope,
    rotation,
    straight,
    turned,
)

FOCAL = 300.0
SIZE = 192, 320
MATRIX = np.array([[FOCAL, 0, 159.5], [0, FOCAL, 95.5], [0, 0, 1]])
CAMERA = Camera(MATRIX, np.eye(3))
# From an IMU with x ahead, y to the left and z up (REP 103) to a camera that looks ahead.
AHEAD = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
X, Y, Z = np.eye(3)
MIDDLE = SIZE[0] // CELL // 2, SIZE[1] // CELL // 2


def measure(rates, rate=1000.0, until=1.0):
    """Return a gyroscope that measured ``rates``, a function of the times (N) to N x 3."""
    gyroscope = Gyroscope()
    times = np.arange(0, until + 0.5 / rate, 1 / rate)
    for time, values in zip(times, rates(times), strict=True):
        gyroscope.add(time, *values)
    return gyroscope


def steady(*vector):
    """Return rates that stay the same."""
    return lambda times: np.tile(vector, (len(times), 1))


def moved(vector, camera=CAMERA, seconds=0.1):
    """Return by how much the middle of a picture moved, x and y, turned at the rate ``vector``."""
    return turned(measure(steady(*vector)), camera, SIZE, 0.5, np.array([seconds]))[MIDDLE][0]


# Integration


def test_a_steady_turn_is_the_rotation_about_its_axis():
    vector = np.array([0.3, -1.2, 0.7])
    found = measure(steady(*vector)).orientations(np.array([0.1, 0.4567]))
    np.testing.assert_allclose(found[0].T @ found[1], rotation(0.3567 * vector), atol=1e-9)


def test_turns_about_axes_that_turn_themselves():
    # R(t) = Rz(a t) Rx(b t) has these rates about its own axes.
    a, b = 2.0, 3.0
    gyroscope = measure(lambda t: np.stack([0 * t + b, a * np.sin(b * t), a * np.cos(b * t)], 1))
    times = np.array([[0.0, 0.2503], [0.77, 1.0]])
    expected = rotation(a * times[..., None] * Z) @ rotation(b * times[..., None] * X)
    found = gyroscope.orientations(times)
    relative = np.swapaxes(found[:1, :1], -1, -2) @ found
    np.testing.assert_allclose(relative, expected, atol=1e-5)


def test_a_vibration_comes_back_to_where_it_was():
    speed = 2 * np.pi * 20
    gyroscope = measure(lambda t: np.stack([0 * t, np.cos(speed * t), 0 * t], 1), rate=400)
    times = np.array([0.1, 0.15, 0.1125])  # one period, a quarter
    turns = gyroscope.orientations(times)
    np.testing.assert_allclose(turns[0].T @ turns[1], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(turns[0].T @ turns[2], rotation(Y / speed), atol=1e-4)


def vibration(times):
    """Return the rates of a vibration of 35 Hz by 0.01 rad."""
    fast = 2 * np.pi * 35
    return 0.01 * fast * np.stack([np.cos(fast * times), 0 * times, np.sin(fast * times)], 1)


def extent(gyroscope):
    """Return how far an exposure of 12 ms reaches, in pixels, at seven moments of the vibration."""
    times = 0.5 + np.linspace(0, 1 / 35, 7, endpoint=False)[:, None] + [-0.006, 0.006]
    angles = gyroscope.angles(times)
    turns = gyroscope.orientations(times)
    np.testing.assert_allclose(
        np.swapaxes(turns[:, 0], 1, 2) @ turns[:, 1], rotation(angles[:, 1] - angles[:, 0]),
        atol=2e-4,
    )
    return FOCAL * np.linalg.norm(angles[:, 1] - angles[:, 0], axis=-1)


@pytest.mark.parametrize(('rate', 'off'), [(100.0, 0.16), (200.0, 0.02), (400.0, 0.01)])
def test_few_samples_tell_a_fast_vibration(rate, off):
    """Straight lines between them would lose a third, a tenth and 3 % of it."""
    true = extent(measure(vibration, 10000.0))
    assert true.min() > 3
    assert np.abs(extent(measure(vibration, rate)) / true - 1).max() < off


def test_a_gyroscope_that_is_too_slow_tells_nothing():
    """No spline can say what happened in the 67 ms between two samples."""
    slow = measure(vibration, 15.0)
    assert slow.orientations(np.array([0.5, 0.52])) is None
    assert np.isnan(slow.angles(np.array([0.5, 0.52]))).all()


def test_stamps_that_are_almost_equal_do_not_make_it_swing():
    """Two samples at almost the same time, which noise makes unequal."""
    gyroscope = measure(vibration, 200.0)
    for time in np.arange(0.4, 0.6, 0.02) + 1e-6:
        gyroscope.add(time, *(vibration(np.array([time]))[0] + 0.05))
    true = extent(measure(vibration, 10000.0))
    assert np.abs(extent(gyroscope) / true - 1).max() < 0.05


def test_a_bias_is_taken_off():
    gyroscope = measure(steady(0.5, 0.1, 0.0))
    found = gyroscope.orientations(np.array([0.2, 0.7]), np.array([0.5, 0.1, 0.0]))
    np.testing.assert_allclose(found[1], found[0], atol=1e-12)


def test_of_small_turns_the_angles_say_the_same():
    gyroscope = measure(lambda t: np.stack([np.sin(9 * t), t, 0 * t + 0.2], 1))
    times = np.array([0.303, 0.3377])
    turns, angles = gyroscope.orientations(times), gyroscope.angles(times)
    np.testing.assert_allclose(rotation(angles[1] - angles[0]), turns[0].T @ turns[1], atol=3e-5)


# Axes


@pytest.mark.parametrize(('vector', 'x', 'y'), [
    (Y, -1, 0),  # it yaws to the right: things move to the left
    (X, 0, 1),  # it looks up: they move down
    (Z, 0, 0),  # it rolls about what is in the middle
])
def test_where_things_move_when_the_camera_turns(vector, x, y):
    expected = FOCAL * np.tan(0.02) * np.array([x, y])
    np.testing.assert_allclose(moved(0.2 * vector), expected, atol=0.2)


def test_a_camera_that_rolls_clockwise_sees_things_turn_the_other_way():
    paths = turned(measure(steady(*Z)), CAMERA, SIZE, 0.5, np.array([0.1]))[:, :, 0]
    right, left = paths[MIDDLE[0], -1], paths[MIDDLE[0], 0]
    assert right[1] < -10 and left[1] > 10


def test_the_axes_of_the_imu_are_turned_into_the_cameras():
    camera = CAMERA._replace(rotation=AHEAD)
    left = FOCAL * np.tan(0.02)
    np.testing.assert_allclose(moved(0.2 * Z, camera), (left, 0), atol=0.2)  # a yaw to the left
    np.testing.assert_allclose(moved(0.2 * Y, camera), (0, -left), atol=0.2)  # its nose goes down


def test_everywhere_it_is_the_homography_of_the_turn():
    vector = np.array([0.4, -0.8, 1.5])
    later = np.array([-0.03, 0.04])
    found = turned(measure(steady(*vector)), CAMERA, SIZE, 0.5, later)
    assert found.shape == (48, 80, 2, 2) and found.dtype == np.float32
    y, x = np.mgrid[: SIZE[0] : CELL, : SIZE[1] : CELL] + (CELL - 1) / 2
    seen = np.stack([x, y, np.ones_like(x)], -1)
    for number, seconds in enumerate(later):
        there = seen @ (MATRIX @ rotation(seconds * vector).T @ np.linalg.inv(MATRIX)).T
        expected = there[..., :2] / there[..., 2:] - seen[..., :2]
        # Between the places that are projected it is interpolated.
        np.testing.assert_allclose(found[:, :, number], expected, atol=0.05)


def test_a_picture_of_any_size_has_a_path_for_each_begun_cell():
    found = turned(measure(steady(*Y)), CAMERA, (37, 50), 0.5, np.array([0.0, 0.01]))
    assert found.shape == (10, 13, 2, 2)
    assert abs(found[:, :, 0]).max() < 1e-9


def test_a_flow_that_leads_back_is_a_path_that_leads_on():
    way = np.full((3, 4, 2), (8.0, -4.0), np.float32)
    path = straight(way)
    np.testing.assert_allclose(path[1, 2, 0], (4, -2))  # where it was when the shutter opened
    np.testing.assert_allclose(path[1, 2, -1], (-4, 2))


def test_moments_can_be_added_up():
    gyroscope, later = measure(steady(*Y)), np.array([-0.03, 0.04])
    each = turned(gyroscope, CAMERA, SIZE, 0.5, later)
    one = turned(gyroscope, CAMERA, SIZE, 0.5, later, shares=np.array([2.0, -1.0]))
    np.testing.assert_allclose(one[:, :, 0], 2 * each[:, :, 0] - each[:, :, 1], atol=1e-3)


# Shutters and lenses


def test_each_row_of_a_rolling_shutter_has_its_own_time():
    readout = 0.05
    gyroscope = measure(lambda t: np.stack([0 * t, np.sin(20 * t), 0 * t], 1))
    later = np.array([0.01])
    rolling = turned(gyroscope, CAMERA._replace(readout=readout), SIZE, 0.5, later)
    for row in (0, 11, 47):
        middle = CELL * row + (CELL - 1) / 2
        stamp = 0.5 + readout * (middle / (SIZE[0] - 1) - 0.5)
        there = turned(gyroscope, CAMERA, SIZE, stamp, later)
        np.testing.assert_allclose(rolling[row], there[row], atol=0.03)
    below = turned(gyroscope, CAMERA._replace(readout=-readout), SIZE, 0.5, later)
    assert abs(below[0, 40, 0, 0] - rolling[-1, 40, 0, 0]) < 0.03  # read from below


@pytest.mark.parametrize('fisheye', [False, True])
def test_a_lens_that_distorts(fisheye):
    distortion = np.array([0.05, -0.01, 0.0, 0.0]) if fisheye else np.array([-0.3, 0.1, 0, 0, 0])
    camera = Camera(MATRIX, np.eye(3), distortion, fisheye=fisheye)
    vector = np.array([0.5, 1.0, 0.3])
    found = turned(measure(steady(*vector)), camera, SIZE, 0.5, np.array([0.05]))
    lens = cv2.fisheye if fisheye else cv2
    corner = np.array([[[3 * CELL + 1.5, 2 * CELL + 1.5]]])
    ray = np.append(lens.undistortPoints(corner, MATRIX, distortion)[0, 0], 1)
    there = (rotation(0.05 * vector).T @ ray).reshape(1, 1, 3)
    expected = lens.projectPoints(there, np.zeros(3), np.zeros(3), MATRIX, distortion)[0]
    np.testing.assert_allclose(found[2, 3, 0], (expected - corner)[0, 0], atol=0.1)


# Samples as they come


def orientation(gyroscope, *times):
    """Return the turns from the first of ``times`` to the last, None where they are not known."""
    found = gyroscope.orientations(np.array(times))
    return None if found is None else found[0].T @ found[-1]


def test_late_and_doubled_samples_find_their_place():
    gyroscope, times = Gyroscope(), np.arange(0, 1, 0.01)
    for time in np.concatenate([times[::2], times[1::2]]):
        gyroscope.add(time, 0, 9, 0)  # each twice, of which the second is right
        gyroscope.add(time, 0, time, 0)
    assert len(gyroscope) == 100 and gyroscope.newest == times[-1]
    np.testing.assert_allclose(orientation(gyroscope, 0.1, 0.5), rotation(0.12 * Y), atol=1e-6)


def test_samples_that_are_no_rates_are_refused():
    gyroscope = measure(steady(0, 1, 0))
    count = len(gyroscope)
    for values in ((np.nan, 0, 0), (0, np.inf, 0), (0, 0, -36.0)):
        gyroscope.add(0.5001, *values)
    gyroscope.add(np.nan, 0, 0, 0)
    assert (len(gyroscope), gyroscope.refused) == (count, 4)
    np.testing.assert_allclose(orientation(gyroscope, 0.4, 0.6), rotation(0.2 * Y), atol=1e-9)


def test_nothing_is_known_before_the_first_sample_after_the_last_and_in_holes():
    assert Gyroscope().orientations(np.array([0.0])) is None
    gyroscope = measure(steady(0, 1, 0), until=0.5)
    gyroscope.add(0.5 + 0.9 * LONGEST_HOLE, 0, 1, 0)
    gyroscope.add(0.5 + 2.5 * LONGEST_HOLE, 0, 1, 0)
    np.testing.assert_allclose(orientation(gyroscope, 0.4, 0.52), rotation(0.12 * Y), atol=1e-9)
    for times in ((-0.01, 0.3), (0.52, 0.58), (0.4, 0.7)):
        assert orientation(gyroscope, *times) is None
    assert turned(gyroscope, CAMERA, SIZE, 0.52, np.array([-0.03, 0.06])) is None
    assert np.isnan(gyroscope.angles(np.array([0.4, 0.58]))).all()
    assert np.isnan(gyroscope.angles(np.array([-0.1, 0.3]))).any(1).tolist() == [True, False]


def test_a_jump_back_begins_anew():
    gyroscope = measure(steady(0, 1, 0), rate=100, until=10)
    gyroscope.add(0.0, 0, 0, 0)
    assert len(gyroscope) == 1 and gyroscope.newest == 0


def test_no_more_is_kept_than_is_needed():
    gyroscope, counts = Gyroscope(), []
    for number in range(4000):
        gyroscope.add(number / 200, 0, 1, 0)
        counts.append(len(gyroscope))
    assert max(counts) <= 2 * KEPT * 200 + 2
    newest = gyroscope.newest
    assert orientation(gyroscope, newest - KEPT + 0.01, newest) is not None
