"""Sequences under measurement: flicker, and `evaluate --video`."""

import csv
import json
import re

import cv2
import numpy as np
import pytest
import torch
from pictures import RATE, drive, rain

from iov_restore_ros.evaluation import evaluate
from iov_restore_ros.evaluation.clips import open_clips
from iov_restore_ros.evaluation.metrics import flicker, psnr, restore_image
from iov_restore_ros.evaluation.video import PAST, ClipScore
from iov_restore_ros.inference import Restorer, restore_sequence
from iov_restore_ros.model import Generator, WeightsInfo, load_weights, save_weights, shipped_tasks
from iov_restore_ros.model import shipped_weights as shipped
from iov_restore_ros.pictures.footage import CROP_MARGIN, STRETCH

SHIPPED = shipped_tasks('fast')


@pytest.fixture(scope='module')
def generators():
    return {task: load_weights(shipped('fast', task))[0] for task in SHIPPED}


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs the command; an error is SystemExit."""
    def run(*arguments):
        line = ['evaluate', '--device', 'cpu', '--video', *arguments]
        monkeypatch.setattr('sys.argv', list(map(str, line)))
        return evaluate.main()
    return run


def write(folder, frames):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        # Without leading zeros: sorted as text 10 comes before 2.
        cv2.imwrite(str(folder / f'{number}.png'), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))


@pytest.fixture
def pairs(tmp_path, street):
    """Return a folder with two short sequences in rain."""
    for name, start in (('one', (60.0, 60.0)), ('two', (120.0, 80.0))):
        sharp = drive(street, 5, start=start)
        write(tmp_path / 'pairs' / 'gt' / name, sharp)
        write(tmp_path / 'pairs' / 'input' / name, rain(sharp))
    return tmp_path / 'pairs'


# Flicker


def test_an_error_that_stays_does_not_flicker(street):
    sharp = drive(np.clip(street, 0, 200), 4)
    error = np.random.default_rng(0).integers(0, 50, sharp[0].shape, np.uint8)
    assert flicker([frame + error for frame in sharp], sharp) == [0, 0, 0]


def test_an_error_that_is_anew_in_each_frame_flickers_by_its_sigma():
    rng = np.random.default_rng(0)
    sharp = [np.full((90, 90, 3), 128, np.uint8)] * 3
    noisy = [np.round(frame + 5 * rng.normal(size=frame.shape)).astype(np.uint8) for frame in sharp]
    assert flicker(noisy, sharp) == pytest.approx([5 * 2**0.5] * 2, rel=0.03)


def test_the_full_past_begins_with_the_third_frame():
    """So the first change that counts is that from the third frame to the fourth."""
    score = ClipScore('x', {PAST: {'PSNR dB': [10, 20, 30, 40], 'flicker': [9, 9, 4]}})
    assert score.mean(PAST, 'PSNR dB', 2) == 35
    assert score.mean(PAST, 'flicker', 2) == 4
    assert score.mean(PAST, 'PSNR dB', 0) == 25


# The command


def test_clips_are_measured_frame_by_frame(run, pairs, generators, tmp_path, capsys):
    out = tmp_path / 'out'
    assert run(pairs, '--task', 'derain', '--output', out, '--report') == 0
    with (out / 'results.csv').open(encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 5
    wet, sharp = (
        [cv2.imread(str(pairs / kind / 'two' / f'{n}.png'))[..., ::-1] for n in range(5)]
        for kind in ('input', 'gt')
    )
    restorer = Restorer(device='cpu', precision='float32', tasks=['derain'])
    restored = restore_sequence(restorer, map(np.ascontiguousarray, wet), 'derain')
    last = [row for row in rows if row['clip'] == 'input/two' and row['frame'] == '4']
    assert [row['restored'] for row in last] == ['input', 'alone', 'with past']
    assert float(last[0]['PSNR dB']) == psnr(wet[4], sharp[4])
    assert float(last[1]['PSNR dB']) == psnr(
        restore_image(generators['derain'], np.ascontiguousarray(wet[4]), 'cpu'), sharp[4]
    )
    assert float(last[2]['PSNR dB']) == psnr(restored[4], sharp[4])
    assert float(last[2]['flicker']) == pytest.approx(flicker(restored, sharp)[3])

    [summary] = json.loads((out / 'results.json').read_text())['results']
    of_past = [
        float(row['PSNR dB']) for row in rows
        if row['restored'] == 'with past' and int(row['frame']) >= 2
    ]
    measured = summary['from the third frame on']['PSNR dB']['with past']
    assert measured == pytest.approx(np.mean(of_past))
    shown = capsys.readouterr().out
    assert 'pairs: input/one' in shown and 'pairs: mean' in shown
    assert f'{measured:.2f}' in shown and f'{measured:.2f}' in (out / 'results.md').read_text()
    assert 'data:image/jpeg' in (out / 'report.html').read_text(encoding='utf-8')


def test_frames_come_in_the_order_of_their_numbers_and_no_more_than_asked_for(tmp_path, street):
    sharp = drive(street, 12)
    for kind in ('input', 'gt'):
        write(tmp_path / kind, sharp)
    [(_, read)] = open_clips(str(tmp_path), 'derain', None, 11, 0.0).pictures
    degraded, _ = read()
    assert np.array_equal(degraded, sharp[:11])


def test_gopro_is_read_sequence_by_sequence(tmp_path, street):
    for number, name in enumerate(('GOPR1', 'GOPR2')):
        for kind in ('blur', 'sharp'):
            write(tmp_path / 'test' / name / kind, drive(street, 5 - number))
    root = open_clips(f'gopro={tmp_path}', None, None, 12, 0.0)
    assert root.task == 'deblur'
    lengths = {name: len(read()[0]) for name, read in root.pictures}
    assert lengths == {'test/GOPR1/blur': 5, 'test/GOPR2/blur': 4}


@pytest.mark.parametrize('task', SHIPPED)
def test_sharp_footage_is_degraded_by_seed_and_name(tmp_path, street, task):
    sharp = drive(street, STRETCH, (6.0, 1.0))
    write(tmp_path / 'footage' / 'a', sharp)

    def degraded(seed, shutter=0.7):
        root = open_clips(str(tmp_path / 'footage'), task, seed, 4, shutter)
        return dict(root.pictures)['a']()

    first, truth = degraded(1)
    assert first.shape == truth.shape and len(first) == 4 and first.dtype == truth.dtype == np.uint8
    edge = CROP_MARGIN if task == 'deblur' else 0
    begin = next(n for n, f in enumerate(sharp) if np.array_equal(_inner(f, edge), truth[0]))
    assert np.array_equal(truth, [_inner(frame, edge) for frame in sharp[begin : begin + 4]])
    assert psnr(first, truth) < 35
    assert np.array_equal(first, degraded(1)[0])
    assert not np.array_equal(first, degraded(2)[0])
    longer = psnr(degraded(1, 1.0)[0], truth)
    assert longer < psnr(first, truth) - 1 if task == 'deblur' else longer == psnr(first, truth)


def test_the_report_says_which_kinds_of_weather(run, tmp_path, street, capsys):
    write(tmp_path / 'footage' / 'a', [f[:120, :160] for f in drive(street, STRETCH)])
    assert run(
        tmp_path / 'footage', '--task', 'derain', '--synthetic', 1, '--limit', 4,
        '--kind', 'drops', '--kind', 'veil',
    ) == 0
    assert 'Video: veil + drops, from the third frame on' in capsys.readouterr().out


def _inner(frame, edge):
    return frame[edge : len(frame) - edge, edge : frame.shape[1] - edge]


def test_a_single_video_is_measured(run, tmp_path, street, capsys):
    path = tmp_path / 'drive.avi'
    frames = drive(street, STRETCH, (4.0, 1.0))
    video = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'MJPG'), RATE, frames[0].shape[1::-1]
    )
    for frame in frames:
        video.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    video.release()
    assert run(path, '--task', 'deblur', '--synthetic', 1, '--limit', 4, '--shutter', 0.9) == 0
    assert 'drive.avi' in capsys.readouterr().out


def alone(pairs):
    return [pairs / 'gt', '--task', 'derain'], 'give --synthetic SEED, or a folder with input/'


def too_short(pairs):
    for kind in ('gt', 'input'):
        for name in ('one', 'two'):
            for number in (3, 4):
                (pairs / kind / name / f'{number}.png').unlink()
    return [pairs, '--task', 'derain'], 'no folder of 4 consecutive pairs and more'


def too_small(pairs):
    write(pairs / 'small', [np.zeros((100, 200, 3), np.uint8)] * STRETCH)
    return (
        [pairs / 'small', '--task', 'deblur', '--synthetic', 1],
        'small: 200x100 pixels are too few, blurring removes 48 on every side',
    )


def without_motion_to_follow(pairs):
    write(pairs / 'flat', [np.zeros((200, 200, 3), np.uint8)] * STRETCH)
    return (
        [pairs / 'flat', '--task', 'deblur', '--synthetic', 1],
        'flat: the motion cannot be followed .*: remove it, or give a smaller --limit',
    )


def without_a_past(pairs):
    path = pairs / 'other.safetensors'
    save_weights(path, Generator('wei2021_preprint'), WeightsInfo('wei2021_preprint', 'derain'))
    reason = 'wei2021_preprint uses no previous frame, --video'
    return [pairs, '--task', 'derain', '--weights', path], reason


def broken(pairs):
    path, generator = pairs / 'other.safetensors', Generator('fast')
    for parameter in generator.parameters():
        torch.nn.init.constant_(parameter, 1e30)
    save_weights(path, generator, WeightsInfo('fast', 'derain'))
    return [pairs, '--task', 'derain', '--weights', path], 'output of the network is not finite'


@pytest.mark.parametrize('fault', [
    alone, too_short, too_small, without_motion_to_follow, without_a_past, broken,
    lambda pairs: ([pairs], 'give --task'),
    lambda pairs: (
        [f'rain100h={pairs}'],
        'rain100h are single pictures, --video takes gopro, gopro_gamma, folders',
    ),
    lambda pairs: ([pairs, '--task', 'derain', '--limit', 3], '--limit must be at least 4'),
    lambda pairs: ([pairs, '--task', 'deblur', '--shutter', 2], '--shutter must be a share'),
    lambda pairs: ([pairs, '--task', 'derain', '--kind', 'drops'], '--kind needs --video and'),
    lambda pairs: (
        [pairs, '--task', 'derain', '--synthetic', 1, '--kind', 'drops'],
        'pairs are degraded already, --kind is for sharp footage: leave it out',
    ),
    lambda pairs: (
        [pairs / 'gt', '--task', 'deblur', '--synthetic', 1, '--kind', 'drops'],
        '--kind is for derain, not for deblur: leave it out',
    ),
    lambda pairs: ([pairs / 'no', '--task', 'derain', '--synthetic', 1], 'no: neither a folder'),
])
def test_a_fault_ends_with_one_line_that_says_what_to_do(fault, run, pairs, capsys):
    arguments, reason = fault(pairs)
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    assert re.search(reason, capsys.readouterr().err.splitlines()[-1])


def test_the_shutter_belongs_to_video(monkeypatch, pairs, capsys):
    line = ['evaluate', str(pairs), '--task', 'deblur', '--shutter', '0.5']
    monkeypatch.setattr('sys.argv', line)
    with pytest.raises(SystemExit):
        evaluate.main()
    assert '--shutter needs --video' in capsys.readouterr().err
