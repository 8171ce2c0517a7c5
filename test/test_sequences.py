"""Sequences to train on: what moves, what lasts, what stays."""

import math
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data as photographs

from iov_restore_ros.pictures.clips import Clips, footage_stretches, pair_stretches
from iov_restore_ros.pictures.degradations import shower
from iov_restore_ros.pictures.degradations.layers import StreakLayers
from iov_restore_ros.pictures.degradations.rain import streaks
from iov_restore_ros.pictures.files import DataError, Stills
from iov_restore_ros.pictures.footage import STRETCH
from iov_restore_ros.pictures.moving import CameraPath, MovingScene
from iov_restore_ros.pictures.sequences import Sequences, Sources, vivid
from iov_restore_ros.pictures.shaking import SAMPLES, STILL_BEFORE
from iov_restore_ros.video.camera_path import Camera, Gyroscope, turned
from iov_restore_ros.video.flow import find_flow, flow_picture

SIDE = 64


def rng(seed=1):
    return torch.Generator().manual_seed(seed)


def straight(*velocity):
    return CameraPath(np.array(velocity), np.zeros(2), *np.zeros((2, 2, 2)), np.zeros(2))


@pytest.fixture(scope='module')
def stills(pictures):
    return Sources(Stills(pictures, 1.0, False))


def write_folder(folder, frames):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, 1):
        cv2.imwrite(str(folder / f'{number}.png'), frame[..., ::-1])


def pan(pace, frames, height=128):
    """Return the frames of a camera that moves ``pace`` pixels from frame to frame."""
    scene = photographs.astronaut()
    return [scene[80 : 80 + height, pace * n : pace * n + 256] for n in range(frames)]


@pytest.mark.parametrize('task', ['derain', 'deblur'])
def test_items_are_a_function_of_seed_and_number(stills, task):
    first, again, other = (Sequences(task, stills, 3, SIDE, 9, seed) for seed in (1, 1, 2))
    for number in (4, 0, 4):
        for one, two in zip(first[number], again[number], strict=True):
            assert torch.equal(one, two)
    degraded, sharp, shutter, rates, camera = first[4]
    assert degraded.shape == sharp.shape == (3, 3, SIDE, SIDE)
    assert degraded.dtype == sharp.dtype == torch.uint8
    assert shutter.shape == ()
    assert rates.shape == (129, 3) and not rates.any()
    assert camera.shape == (4,) and not camera.any()
    assert not torch.equal(first[4][1], other[4][1])


def test_vivid_colours_are_stronger_and_the_same_in_all_frames():
    grey, orange = np.full(3, 90.0), np.array([150.0, 90.0, 60.0])
    for seed in range(8):
        frames = vivid(np.tile(np.stack([grey, orange]), (2, 4, 1, 1)), np.random.default_rng(seed))
        assert frames.min() >= 0 and frames.max() <= 255
        assert (frames[0] == frames[1]).all()
        np.testing.assert_allclose(frames[0, 0, 0], grey)
        assert np.ptp(frames[0, 0, 1]) >= np.ptp(orange)


@pytest.mark.parametrize('task', ['derain', 'deblur'])
def test_a_share_is_clean(stills, task):
    sequences = Sequences(task, stills, 2, SIDE, 60, 1, clean=0.5)
    clean = np.mean([torch.equal(*sequences[number][:2]) for number in range(60)])
    assert clean == pytest.approx(0.5, abs=0.15)


def test_a_path_leads_through_its_middle_and_moves_by_its_velocity():
    path = CameraPath.draw(np.random.default_rng(3), 20.0, SIDE)
    np.testing.assert_allclose(path.matrix(0), np.eye(2, 3), atol=1e-9)
    np.testing.assert_allclose(straight(6, -2).matrix(1.5), [[1, 0, 9], [0, 1, -3]])


def test_frames_of_a_scene_are_its_places_along_the_path(photograph):
    scene = MovingScene(photograph, SIDE, straight(5, 2), (159.5, 99.5))
    for time in (0, 1, 3):
        left, top = 160 + 5 * time - SIDE // 2, 100 + 2 * time - SIDE // 2
        assert (scene.frame(time) == photograph[top : top + SIDE, left : left + SIDE]).all()


@pytest.mark.parametrize(('velocity', 'share'), [(10, 1.0), (24, 0.5), (40, 0.25), (10, 0.3)])
def test_blur_is_as_long_as_the_shutters_share_of_the_motion(velocity, share):
    """A soft bright line, whose variance is 4, gets that of the way added: length^2 / 12."""
    line = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    line += (200 * np.exp(-((np.arange(2 * SIDE) - SIDE) ** 2) / 8)).astype(np.uint8)[:, None]
    scene = MovingScene(line, SIDE, straight(velocity, 0), (SIDE, SIDE / 2))
    row = scene.exposure(0.0, share, False)[SIDE // 2, :, 0]
    places = np.arange(SIDE)
    middle = (places * row).sum() / row.sum()
    variance = ((places - middle) ** 2 * row).sum() / row.sum()
    assert math.sqrt(12 * (variance - 4)) == pytest.approx(velocity * share, rel=0.15)
    assert middle == pytest.approx((SIDE - 1) / 2, abs=0.1), 'the target is the middle'


def test_the_motion_of_a_sequence_is_what_the_flow_finds(photograph):
    scene = MovingScene(photograph, 160, straight(6, 0), (150, 120))
    before, now = (scene.frame(time).round().astype(np.uint8) for time in (0, 1))
    flow = find_flow(flow_picture(now, False), flow_picture(before, False), 160, 160)
    way = flow.displacement[8:-8, 8:-8]
    assert np.median(way[..., 0]) == pytest.approx(6, abs=0.3)
    assert np.median(way[..., 1]) == pytest.approx(0, abs=0.3)


def test_things_move_by_themselves():
    scenes = [
        MovingScene.draw(np.random.default_rng(seed), photographs.astronaut(), SIDE, 20)
        for seed in range(40)
    ]
    moving = [scene for scene in scenes if scene.object]
    assert 4 < len(moving) < 25
    with_it = moving[0].frame(1)
    moving[0].object = None
    assert with_it.min() >= 0 and with_it.max() <= 255
    assert not np.array_equal(with_it, moving[0].frame(1))


def test_far_rain_veils_all_frames_alike_and_less_or_more_above(monkeypatch):
    module = sys.modules[shower.__module__]
    for name, share in {'WITH_VEIL': 1, 'WITH_MIST': 0, 'ON_LENS': 0}.items():
        monkeypatch.setattr(module, name, share)
    black, no_streaks = torch.zeros(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)
    slopes = []
    for seed in range(8):
        rows = shower(black, 1.0, rng(seed), no_streaks).mean((1, 3))
        assert rows.min() > 0, 'nothing stays black'
        torch.testing.assert_close(rows[0], rows[1], atol=0.02, rtol=0)
        slopes.append(float(rows[0, :8].mean() - rows[0, -8:].mean()))
    assert min(slopes) < -0.01 and max(slopes) > 0.01


def test_scenes_that_are_hazy_themselves_stay_so(tmp_path, monkeypatch):
    monkeypatch.setattr('iov_restore_ros.pictures.sequences.HAZY', 1.0)
    write_folder(tmp_path / 'night', np.zeros((STRETCH, 256, 256, 3), np.uint8))
    night = Sources(footage=Clips(footage_stretches([tmp_path]), 1.0))
    footage = Sequences('derain', night, 2, SIDE, 99, 1, clean=1.0)
    levels = []
    for number in range(20):
        degraded, sharp = footage[number][:2]
        assert torch.equal(degraded, sharp)
        levels.append(sharp.float().mean())
    assert np.mean(levels) > 25 and np.std(levels) > 10


def test_a_shower_lasts_and_its_drops_differ():
    """The same wind and amount in all frames, different ones in different showers."""
    rain = streaks(torch.zeros(6, 3, 96, 96), torch.ones(6), rng(2), frames=4)
    assert rain.shape == (6, 4, 96, 96)
    # Direction and length of streaks are what the power spectrum shows.
    power = torch.fft.rfft2(rain).abs()[..., 1:20, 1:20].log1p()
    power = torch.nn.functional.avg_pool2d(power, 3)
    within = (power[:, 0] - power[:, 3]).abs().mean((1, 2))
    between = (power[:, 0] - power.roll(1, 0)[:, 0]).abs().mean((1, 2))
    assert between.mean() > 2 * within.mean()
    for shower_ in rain:
        frames = shower_.flatten(1)
        together = torch.corrcoef(frames)[0, 1:]
        assert together.abs().max() < 0.3


def test_water_on_the_lens_stays_while_the_scene_moves():
    """Of frames of nothing but detail, all lose it at the same places."""
    sharp = torch.rand(3, 3, SIDE, SIDE, generator=rng())

    def detail(frames):
        squares = (frames[..., 1:] - frames[..., :-1])[..., :-1, :].square().mean(1)
        return torch.nn.functional.avg_pool2d(squares, 8).flatten(1)
    seen = 0
    for seed in range(60):
        wet = shower(sharp, 1.0, rng(seed), torch.zeros(3, 1, SIDE, SIDE))
        left = detail(wet) / detail(sharp)
        if left.std() > 0.15:
            seen += 1
            assert torch.corrcoef(left)[0, 1:].min() > 0.9
    assert seen > 3, 'some have drops'


def test_streak_layers_are_taken_from_files(tmp_path):
    for number in range(8):
        layer = np.zeros((120, 160), np.uint8)
        layer[:, 10 * number :: 40] = 200
        cv2.imwrite(str(tmp_path / f'{number}.png'), layer)
    layers = StreakLayers(tmp_path, 1.0)
    fall = layers.draw(3, SIDE, np.random.default_rng(1))
    assert fall.shape == (3, 1, SIDE, SIDE) and fall.dtype == torch.float32
    assert fall.min() >= 0 and 0.1 < fall.max() <= 1
    assert not torch.equal(fall[0], fall[1])


def test_footage_is_taken_in_order(tmp_path):
    write_folder(tmp_path / 'drive', pan(4, 2 * STRETCH + 3))
    stretches = footage_stretches([tmp_path])
    assert len(stretches) == 2
    [frames] = stretches[1]()
    assert (frames == np.stack(pan(4, 2 * STRETCH)[STRETCH:])).all()
    sequences = Sequences('derain', Sources(footage=Clips(stretches, 1.0)), 3, 96, 9, 1, clean=1.0)
    for number in range(4):
        frames = sequences[number][1].permute(0, 2, 3, 1).numpy()
        now, before = (flow_picture(frame, False) for frame in frames[1::-1])
        way = find_flow(now, before, 96, 96).displacement[4:-4, 4:-4]
        assert abs(np.median(way[..., 0])) == pytest.approx(4, abs=1.5)


def test_shaken_items_are_a_function_of_seed_and_number(stills):
    first, again, other = (
        Sequences('deblur', stills, 3, SIDE, 9, seed, shaken=1.0) for seed in (1, 1, 2)
    )
    for number in (4, 0, 4):
        for one, two in zip(first[number], again[number], strict=True):
            assert torch.equal(one, two)
    _, _, _, rates, camera = first[4]
    assert rates.shape == (129, 3) and rates.abs().max() > 1e-3
    assert camera.shape == (4,) and camera[0] > 0 and camera[3] > 0
    assert not torch.equal(other[4][3], rates)
    some = Sequences('deblur', stills, 3, SIDE, 40, 1, shaken=0.5)
    share = np.mean([bool(some[number][4].any()) for number in range(40)])
    assert share == pytest.approx(0.5, abs=0.25)
    assert not Sequences('derain', stills, 3, SIDE, 9, 1, shaken=1.0)[0][4].any()


def test_shaken_frames_fit_their_rates(tmp_path):
    """Footage that stands still, so that all that moves is the camera, as its gyroscope has it."""
    write_folder(tmp_path / 'parked', pan(0, STRETCH, 256))
    footage = Sources(footage=Clips(footage_stretches([tmp_path]), 1.0))
    sequences = Sequences('deblur', footage, 3, 128, 9, 1, clean=1.0, shaken=1.0)
    moved = 0
    for number in range(6):
        _, sharp, _, rates, (focal, x, y, period) = sequences[number]
        frames = sharp.permute(0, 2, 3, 1).numpy()
        gyroscope = Gyroscope()
        for sample, rate in enumerate(rates.tolist()):
            gyroscope.add((sample / SAMPLES - STILL_BEFORE) * float(period), *rate)
        matrix = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])
        camera = Camera(matrix, np.eye(3))
        where = gyroscope, camera, (128, 128), float(period), np.array([-float(period)])
        way = cv2.resize(turned(*where)[:, :, 0], (128, 128), interpolation=cv2.INTER_LINEAR)
        y, x = np.mgrid[:128, :128].astype(np.float32)
        fitted = cv2.remap(frames[0], x + way[..., 0], y + way[..., 1], cv2.INTER_CUBIC)
        inner = np.s_[40:-40, 40:-40]
        still, turn = (
            np.abs(frames[1][inner].astype(float) - picture[inner]).mean()
            for picture in (frames[0], fitted)
        )
        if np.abs(way).max() > 2:
            moved += 1
            assert turn < 0.5 * still, number
    assert moved > 1


def test_footage_is_blurred_by_averaging_it(tmp_path):
    write_folder(tmp_path / 'drive', pan(2, STRETCH, 360))
    footage = Clips(footage_stretches([tmp_path]), 1.0)
    sequences = Sequences('deblur', Sources(footage=footage), 3, SIDE, 9, 1, clean=0.0, light=0.0)
    degraded, sharp, shutter = sequences[1][:3]
    assert degraded.shape == sharp.shape == (3, 3, SIDE, SIDE) and 0.15 < shutter <= 1

    def detail(frames):
        return (frames[..., 1:].float() - frames[..., :-1].float()).abs().mean()
    assert detail(degraded) < detail(sharp)
    assert not torch.equal(sharp[0], sharp[1])


def test_pairs_come_in_the_order_of_their_numbers(tmp_path):
    frames = pan(3, STRETCH)
    write_folder(tmp_path / 'gt', frames)
    write_folder(tmp_path / 'input', [frame // 2 for frame in frames])
    [stretch] = pair_stretches([tmp_path])
    degraded, sharp = stretch()
    assert (sharp == np.stack(frames)).all() and (degraded == np.stack(frames) // 2).all()
    pairs = Clips([stretch], 1.0)
    for shutter in (None, 0.8):
        sources = Sources(pairs=pairs, pairs_share=1.0, pairs_shutter=shutter)
        degraded, sharp, told, *_ = Sequences('deblur', sources, 3, SIDE, 9, 1)[0]
        assert torch.equal(degraded, sharp // 2)
        assert math.isnan(told) if shutter is None else told == pytest.approx(shutter)


def test_pairs_of_a_set_are_found_as_it_lies(tmp_path):
    frames = pan(3, STRETCH)
    write_folder(tmp_path / 'train' / 'GOPR1' / 'sharp', frames)
    write_folder(tmp_path / 'train' / 'GOPR1' / 'blur', [frame // 2 for frame in frames])
    [stretch] = pair_stretches([Path(f'gopro={tmp_path}')])
    assert (stretch()[0] == np.stack(frames) // 2).all()
    with pytest.raises(DataError, match='raindrop are single pictures'):
        pair_stretches([Path(f'raindrop={tmp_path}')])


def test_pairs_are_a_minority(tmp_path, stills):
    frames = np.zeros((STRETCH, SIDE, SIDE, 3), np.uint8)
    for name in ('input', 'gt'):
        write_folder(tmp_path / name, frames)
    pairs = Clips(pair_stretches([tmp_path]), 1.0)
    sources = Sources(stills.stills, pairs=pairs)
    sequences = Sequences('deblur', sources, 2, SIDE, 60, 1)
    share = np.mean([sequences[number][1].max() == 0 for number in range(60)])
    assert share == pytest.approx(0.15, abs=0.1)


def test_what_is_too_short_is_named(tmp_path):
    for name in ('input', 'gt'):
        write_folder(tmp_path / name, pan(1, 3))
    with pytest.raises(DataError, match='no folder of 13 consecutive pairs'):
        pair_stretches([tmp_path])
