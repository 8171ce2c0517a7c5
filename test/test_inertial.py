"""A gyroscope that is held against the flow: believed where it is right, and never long else."""

import time
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch

from iov_restore_ros.evaluation.metrics import psnr
from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.model.wiener import deconvolve
from iov_restore_ros.pictures.files import to_pictures, to_tensor
from iov_restore_ros.pictures.shaking import SAMPLES, STILL_BEFORE, Shake, ShakenCamera
from iov_restore_ros.video.agreement import STEPS, Pairs, find_offset
from iov_restore_ros.video.aligner import Previous, align
from iov_restore_ros.video.camera_path import TAU, Camera, Gyroscope, straight, turned
from iov_restore_ros.video.flow import Flow
from iov_restore_ros.video.inertial import Inertial

FRAMES = 26
PERIOD, SHARE = 1 / 25, 0.5  # s, of which the shutter is open for so much
SIZE = 192, 320
FOCAL = 350.0
BLUR = 8.0  # pixels
MATRIX = np.array([[FOCAL, 0, 159.5], [0, FOCAL, 95.5], [0, 0, 1]])
CAMERA = Camera(MATRIX, np.eye(3))
DELAY = 0.03  # s after a frame's exposure until it is restored


class Clip(NamedTuple):
    """Frames as they came and as they should be, flows to the one before, and true rates."""

    blurred: list[np.ndarray]
    sharp: list[np.ndarray]
    flows: list[Flow | None]
    times: np.ndarray  # of the samples, s
    rates: np.ndarray  # rad/s


@pytest.fixture(scope='module')
def clip(photograph):
    """What a camera sees that a vehicle shakes by 7, 21 and 40 Hz."""
    rng = np.random.default_rng(5)
    scene = cv2.resize(photograph, SIZE[::-1], interpolation=cv2.INTER_AREA)
    camera = ShakenCamera(Shake.draw(rng, FRAMES * PERIOD), FOCAL, MATRIX[:2, 2], PERIOD)
    extents = [camera.extent(number, SHARE) for number in range(FRAMES)]
    shake = camera.shake.scaled(BLUR / np.mean(extents))
    camera = ShakenCamera(shake, FOCAL, MATRIX[:2, 2], PERIOD)
    sharp, blurred = [], []
    for number in range(FRAMES):
        seen = camera.expose(scene, number, SHARE, 2.2) + rng.normal(size=scene.shape)
        blurred.append(as_bytes(seen))
        sharp.append(as_bytes(camera.see(scene, number)))
    flows = [None]
    for now, before in zip(blurred[1:], blurred, strict=False):
        aligned = align(now, Previous(before, PERIOD, None), 'deblur')
        assert aligned.flow is not None
        flows.append(aligned.flow)
    rates = camera.rates(FRAMES)
    times = (np.arange(len(rates)) / SAMPLES - STILL_BEFORE) * PERIOD
    return Clip(blurred, sharp, flows, times[::2], rates[::2])


def as_bytes(picture):
    return np.clip(picture, 0, 255).round().astype(np.uint8)


def right(times, rates):
    return times, rates


def degrees(times, rates):
    return times, np.rad2deg(rates)


def wrong_sign(times, rates):
    return times, -rates


def swapped(times, rates):
    return times, rates[:, [2, 0, 1]]


def loose(times, rates):
    """As much again, of a mount that swings on its own."""
    rng = np.random.default_rng(1)
    speeds, phases = 2 * np.pi * rng.uniform(5, 30, 6), rng.uniform(0, 6, 6)
    swings = np.cos(times[:, None] * speeds + phases) @ rng.normal(size=(6, 3))
    return times, rates + swings * np.sqrt((rates**2).sum() / (swings**2).sum())


def biased(times, rates):
    return times, rates + (0.05, -0.05, 0.05)


def missing(times, rates):
    """A fifth of the samples, and all of them for a quarter of a second."""
    there = np.random.default_rng(2).random(len(times)) > 0.2
    there &= (times < 0.4) | (times > 0.65)
    return times[there], rates[there]


FAULTS = [
    (degrees, 0.0), (wrong_sign, 0.0), (swapped, 0.0), (right, 0.03), (right, 0.004), (loose, 0.0),
    (biased, 0.0), (missing, 0.0),
]
NAMES = ['degrees', 'sign', 'axes', '30 ms', '4 ms', 'loose', 'bias', 'missing']


def gyroscope_of(times, rates):
    gyroscope = Gyroscope()
    for sample in zip(times, rates, strict=True):
        gyroscope.add(sample[0], *sample[1])
    return gyroscope


class Told(NamedTuple):
    """What was said of each frame."""

    inertial: Inertial
    turns: list[np.ndarray | None]
    paths: list[np.ndarray | None]
    offsets: list[float]


def listen(clip, fault=right, late=0.0, camera=CAMERA, offset=0.0):
    """
    Return what is said of each frame of ``clip`` by a gyroscope with a ``fault``.

    Its samples come in time, but their stamps are ``late`` by so many s.
    """
    times, rates = fault(clip.times, clip.rates)
    inertial = Inertial(Gyroscope(), camera, offset)
    told, fed = Told(inertial, [], [], []), 0
    for number, flow in enumerate(clip.flows):
        stamp = number * PERIOD
        while fed < len(times) and times[fed] <= stamp + SHARE * PERIOD / 2 + DELAY:
            inertial.gyroscope.add(times[fed] + late, *rates[fed])
            fed += 1
        told.turns.append(flow and inertial.turn(flow, SIZE, stamp, PERIOD))
        told.paths.append(inertial.path(SIZE, stamp, SHARE * PERIOD))
        told.offsets.append(inertial.offset)
    return told


@pytest.fixture(scope='module')
def true_paths(clip):
    gyroscope = gyroscope_of(clip.times, clip.rates)
    exposed = TAU * SHARE * PERIOD
    return [turned(gyroscope, CAMERA, SIZE, number * PERIOD, exposed) for number in range(FRAMES)]


def errors(told, true_paths):
    """Return by how many pixels the paths are wrong (root mean square); NaN where none is told."""
    return np.array([
        np.nan if path is None else np.sqrt(((path - true) ** 2).sum(-1).mean())
        for path, true in zip(told.paths, true_paths, strict=True)
    ])


# A right one


def test_a_right_one_is_believed_from_the_first_flow_on(clip, true_paths):
    told = listen(clip)
    assert told.paths[0] is None and told.turns[0] is None  # it was not compared yet
    wrong = errors(told, true_paths)
    assert np.nanmax(wrong) < 0.3 and np.isfinite(wrong[2:]).all()
    inertial = told.inertial
    assert inertial.trusted and inertial.reason == '' and inertial.agreement > 0.9
    assert abs(inertial.offset) < 0.001 and abs(inertial.bias).max() < 0.02


def test_the_turn_is_what_the_flow_of_a_scene_that_stands_is(clip):
    told = listen(clip)
    apart, moved = [], []
    for flow, turn in list(zip(clip.flows, told.turns, strict=True))[3:]:
        assert turn.shape == flow.displacement.shape and turn.dtype == np.float32
        apart.append(np.median(np.linalg.norm(flow.displacement - turn, axis=-1)))
        moved.append(np.median(np.linalg.norm(flow.displacement, axis=-1)))
    assert np.mean(apart) < 0.6 and np.mean(moved) > 3


def test_a_noisy_one_with_a_turned_imu_is_believed(clip, true_paths):
    ahead = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    noise = np.random.default_rng(3).normal(size=clip.rates.shape)
    told = listen(
        clip, lambda times, rates: (times, rates @ ahead + 0.02 * noise),
        camera=CAMERA._replace(rotation=ahead),
    )
    assert np.nanmax(errors(told, true_paths)) < 0.3 and told.inertial.trusted


# Faults


@pytest.mark.parametrize(('fault', 'late', 'reason'), [
    (degrees, 0, 'degrees'), (wrong_sign, 0, 'wrong sign'), (swapped, 0, 'axes differ'),
    (loose, 0, 'loose mount'),
])
def test_a_wrong_one_is_not_believed_and_the_reason_is_named(clip, fault, late, reason):
    told = listen(clip, fault, late)
    used = [path is not None for path in told.paths]
    assert sum(used) <= 2 and not any(used[5:])
    assert all((turn is None) == (path is None) for turn, path in zip(
        told.turns, told.paths, strict=True
    ))
    assert reason in told.inertial.reason and told.inertial.agreement < 0.65


@pytest.mark.parametrize('seconds', [0.004, -0.004, 0.03, -0.03])
def test_an_offset_is_found(clip, true_paths, seconds):
    told = listen(clip, late=seconds)
    assert abs(told.offsets[20] - seconds) < 0.001
    assert np.isfinite(errors(told, true_paths)[20:]).all() and told.inertial.trusted
    assert np.nanmax(errors(told, true_paths)[20:]) < 1.0
    if abs(seconds) > 0.02:  # before that it says nothing right
        assert np.isnan(errors(told, true_paths)[3:8]).all()


def shaking(late, pairs, moves, seed):
    """Return pairs of frames with a clock that is ``late`` s, of footage that moves by itself."""
    rng = np.random.default_rng(seed)
    speeds, phases = 2 * np.pi * rng.uniform(6, 20, (4, 3)), rng.uniform(0, 6, (4, 3))

    def turned_to(times):
        return 0.004 * np.sin(times[..., None, None] * speeds + phases).sum(-2)

    stamps = PERIOD * np.arange(1, pairs + 1)
    then = stamps[:, None] + STEPS - late
    seen = turned_to(stamps) - turned_to(stamps - PERIOD) + moves * rng.normal(size=(pairs, 3))
    weights = np.broadcast_to(FOCAL**2 * np.diag([1, 1, 0.2]), (pairs, 3, 3))
    return Pairs(
        stamps, seen, weights, np.zeros(pairs), np.full(pairs, PERIOD),
        turned_to(then) - turned_to(then - PERIOD),
    )


@pytest.mark.parametrize('late', [0.004, -0.004, 0.0])
def test_a_few_frames_of_footage_that_moves_by_itself_show_the_offset(late):
    found = [find_offset(shaking(late, 9, 0.001, seed), 0.0)[0] for seed in range(20)]
    apart = [abs(one - late) for one in found if one is not None]
    assert len(apart) > 15 and np.mean(np.array(apart) < 0.0015) > 0.9


def test_the_search_for_the_offset_begins_where_it_is_told_to(clip):
    told = listen(clip, late=0.3, offset=0.296)
    assert told.offsets[0] == 0.296 and abs(told.offsets[-1] - 0.3) < 0.001


def test_an_offset_that_stays_is_settled(clip):
    flows = [None] + 3 * clip.flows[1:]
    times, rates = repeated(clip, 3)
    told = listen(clip._replace(flows=flows, times=times, rates=rates), late=0.004)
    assert told.inertial.settled and abs(told.inertial.offset - 0.004) < 0.0005
    assert not listen(clip, late=0.004).inertial.settled


def repeated(clip, times):
    """Return times and rates of a camera that shakes as in the clip again and again."""
    span = (FRAMES - 1) * PERIOD
    once = (clip.times >= 0) & (clip.times < span - 1e-9)
    parts = [(clip.times[once] + part * span, clip.rates[once]) for part in range(times)]
    before, after = clip.times < 0, clip.times >= span - 1e-9
    parts.insert(0, (clip.times[before], clip.rates[before]))
    parts.append((clip.times[after] + (times - 1) * span, clip.rates[after]))
    return (np.concatenate(one) for one in zip(*parts, strict=True))


def test_a_bias_is_found_and_does_not_matter(clip, true_paths):
    told = listen(clip, biased)
    wrong = errors(told, true_paths)
    assert np.isfinite(wrong[3:]).all() and np.nanmax(wrong) < 0.5
    np.testing.assert_allclose(told.inertial.bias, (0.05, -0.05, 0.05), atol=0.025)


def test_where_samples_are_missing_there_is_no_path(clip, true_paths):
    told = listen(clip, missing)
    wrong = errors(told, true_paths)
    gap = np.isnan(wrong)
    assert gap[10:17].all() and not gap[1:4].any() and not gap[6:10].any() and not gap[18:].any()
    assert np.nanmedian(wrong) < 0.3


def test_one_that_says_nothing_while_the_camera_shakes_is_not_believed(clip):
    told = listen(clip, lambda times, rates: (times, 0 * rates))
    assert not told.inertial.trusted


def test_without_any_motion_it_is_believed_until_it_claims_some(clip):
    still = [None] + (FRAMES - 1) * [Flow(
        np.full((48, 80, 2), 0.05, np.float32), np.ones((48, 80, 3), np.float32)
    )]
    standing = clip._replace(flows=still, rates=0 * clip.rates + 0.01)
    assert all(path is not None for path in listen(standing).paths[1:])
    assert not any(path is not None for path in listen(clip._replace(flows=still)).paths)


def test_one_that_was_wrong_can_be_right_again(clip, true_paths):
    def mended(times, rates):
        return times, np.where(times[:, None] < 8 * PERIOD, -rates, rates)

    wrong = errors(listen(clip, mended), true_paths)
    assert np.isnan(wrong[3:8]).all() and np.isfinite(wrong[-3:]).all()


def test_a_camera_that_looks_aside_while_its_vehicle_drives_on_is_no_fault(clip, true_paths):
    """A steady flow to one side, as that of a wall."""
    aside = np.float32((12.0, 0))
    driven = [
        flow and flow._replace(displacement=flow.displacement + aside) for flow in clip.flows
    ]
    told = listen(clip._replace(flows=driven))
    assert told.inertial.trusted and np.isfinite(errors(told, true_paths)[12:]).all()
    assert abs(told.inertial.bias).max() < 0.02


def test_driving_on_is_not_taken_for_a_turn(clip, true_paths):
    """Over a road, towards what lies left of the middle, by 4 % from frame to frame."""
    y, x = np.mgrid[:48, :80] * 4 + 1.5
    ahead = np.stack([x - 100, y - 95.5], -1)
    near = 0.02 + 0.1 * np.maximum(y - 95.5, 0)[..., None] / 95.5
    driven = [
        flow and flow._replace(displacement=flow.displacement - (ahead * near).astype(np.float32))
        for flow in clip.flows
    ]
    told = listen(clip._replace(flows=driven))
    assert np.nanmax(errors(told, true_paths)) < 0.8 and told.inertial.trusted
    assert np.isfinite(errors(told, true_paths)[5:]).all()


def made_up(clip, camera=CAMERA):
    """Return the clip with the flows that its gyroscope says, of a camera that shakes at random."""
    rng = np.random.default_rng(7)
    speeds, phases = 2 * np.pi * rng.uniform(1, 15, 20), rng.uniform(0, 6, 20)
    rates = np.cos(clip.times[:, None] * speeds + phases) @ rng.normal(size=(20, 3)) / 8
    gyroscope = gyroscope_of(clip.times, rates)
    trust = np.ones((48, 80, 3), np.float32)
    return clip._replace(rates=rates, flows=[None] + [
        Flow(turned(gyroscope, camera, SIZE, number * PERIOD, np.array([-PERIOD]))[:, :, 0], trust)
        for number in range(1, FRAMES)
    ])


def test_a_clock_too_far_off_is_named(clip):
    told = listen(made_up(clip), late=0.15)
    assert sum(path is not None for path in told.paths) <= 1
    assert told.inertial.reason == 'clock is off: imu_time_offset may be 0.15'


def test_rows_that_are_read_one_after_the_other(clip):
    camera = CAMERA._replace(readout=0.03)
    rolling = made_up(clip, camera)
    told = listen(rolling, camera=camera)
    assert all(path is not None for path in told.paths[1:]) and told.inertial.agreement > 0.95
    for flow, turn in list(zip(rolling.flows, told.turns, strict=True))[1:]:
        assert np.linalg.norm(flow.displacement - turn, axis=-1).mean() < 1.5
    assert abs(told.inertial.offset) < 0.001


def test_a_jump_in_time_keeps_what_was_found(clip):
    told = listen(clip, late=0.004)
    offset = told.inertial.offset
    told.inertial.forget()
    assert told.inertial.offset == offset and told.inertial.trusted


def test_without_a_camera_there_is_nothing(clip):
    told = listen(clip, camera=None)
    assert not any(path is not None for path in told.paths)
    assert told.inertial.reason == 'no camera_info'


def test_it_costs_little(clip):
    """At 400 samples and 25 frames a second; 1.5 ms on a machine that has nothing else to do."""
    inertial, spent = Inertial(gyroscope_of(clip.times, clip.rates), CAMERA), []
    for number in range(1, FRAMES):
        began = time.thread_time()
        inertial.compare(clip.flows[number], SIZE, number * PERIOD, PERIOD)
        spent.append(time.thread_time() - began)
    assert np.median(spent) < 0.005


# What it is worth


def undone(clip, told=None):
    """Return the mean PSNR of what Wiener's filter alone makes of the frames, dB."""
    gains = []
    for number in range(2, FRAMES, 2):
        flow = clip.flows[number]
        turn, path = (None, None) if told is None else (told.turns[number], told.paths[number])
        way = flow.displacement if turn is None else flow.displacement - turn
        path = straight(way * np.float32(SHARE)) + (0 if path is None else path)
        tensor = torch.from_numpy(path).permute(2, 3, 0, 1)[None]
        image = to_tensor(clip.blurred[number][None]).float() / 255
        [restored] = to_pictures(deconvolve(image, tensor).clamp(0, 1))
        gains.append(psnr(restored, clip.sharp[number]))
    return float(np.mean(gains))


@pytest.fixture(scope='module')
def without(clip):
    return undone(clip)


def test_a_right_one_gains(clip, without):
    assert undone(clip, listen(clip)) > without + 2


@pytest.mark.parametrize(('fault', 'late'), FAULTS, ids=NAMES)
def test_none_costs_anything(clip, without, fault, late):
    told = listen(clip, fault, late)
    if any(path is not None for path in told.paths[2:]):
        assert undone(clip, told) > without - 0.2


def test_the_network_gains(clip):
    restorer = Restorer(device='cpu', precision='float32', tasks=['deblur'])
    mean = []
    for gyroscope in (None, gyroscope_of(clip.times, clip.rates)):
        history = History(shutter=SHARE)
        if gyroscope is not None:
            history.inertial = Inertial(gyroscope, CAMERA)
        mean.append(np.mean([
            psnr(restore_next(restorer, history, frame, number * PERIOD, 'deblur'), sharp)
            for number, (frame, sharp) in enumerate(zip(clip.blurred[:7], clip.sharp, strict=False))
        ][2:]))
    assert mean[1] > mean[0] + 2
