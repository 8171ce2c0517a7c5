"""What the demo films, measures and shows; that it runs is seen by running it."""

import base64
import io
import re

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from iov_restore_ros.evaluation.metrics import flicker, psnr
from iov_restore_ros.model.wiener import deconvolve
from iov_restore_ros.pictures.warp import move
from iov_restore_ros.tools.demo_footage import (
    BUMPY_SHUTTER,
    FPS,
    FRAMES_EACH,
    HEIGHT,
    IMU_RATE,
    WIDTH,
    behind_glass,
    blurred,
    bumpy,
    rainy,
)
from iov_restore_ros.tools.demo_report import (
    Row,
    Sample,
    Seen,
    measure_drives,
    write_before_after,
    write_report,
)
from iov_restore_ros.tools.shaken_source import played
from iov_restore_ros.video.calibration import camera_of
from iov_restore_ros.video.camera_path import TAU, Gyroscope, turned
from iov_restore_ros.video.flow import flow_picture, judge, search

DATA = re.compile('data:image/webp;base64,([^"]+)')


@pytest.fixture(scope='module')
def rain():
    """Return the footage in rain, made once."""
    return rainy()


def fit(now, before):
    """Return how well the flow between two pictures agrees there and back, 0..1."""
    now, before = flow_picture(now, False), flow_picture(before, False)
    there, back = search(now, before)
    return judge(there, back, now, move(before, there), (HEIGHT, WIDTH)).trust[..., 1].mean()


def drive(footage, restored, first=0, count=FRAMES_EACH):
    """Return consecutive frames of ``footage`` with what became of them."""
    return [
        Sample(n, footage.degraded[n], restored[n], footage.sharp[n])
        for n in range(first, first + count)
    ]


def row(mode, use_past, task, quality=None, scene='<rain>'):
    return Row(scene, mode, use_past, False, task, 9, 8, 1, 7.5, 12.0, 34.0, quality)


def test_frames_are_consecutive_and_drives_are_apart(rain):
    assert len(rain.sharp) == len(rain.degraded) == 3 * FRAMES_EACH
    assert {f.shape for f in rain.sharp + rain.degraded} == {(HEIGHT, WIDTH, 3)}
    for n in range(1, len(rain.sharp)):
        agreement = fit(rain.sharp[n], rain.sharp[n - 1])
        assert agreement < 0.5 if n % FRAMES_EACH == 0 else agreement > 0.85, (n, agreement)
        assert not np.array_equal(rain.sharp[n], rain.sharp[n - 1])
    assert all(psnr(d, s) < 25 for d, s in zip(rain.degraded, rain.sharp, strict=True))


def test_the_truth_is_the_middle_of_the_exposure():
    footage = blurred()
    for first in range(0, len(footage.sharp), FRAMES_EACH):
        middle = first + FRAMES_EACH // 2
        there = psnr(footage.degraded[middle], footage.sharp[middle])
        beside = [psnr(footage.degraded[middle], footage.sharp[middle + d]) for d in (-1, 1)]
        assert 15 < there < 30
        assert there > max(beside) + 2


def test_the_rates_on_bad_roads_are_those_of_the_frames(tmp_path):
    """As image_source plays them, round and round: they undo what Wiener's filter alone can."""
    footage = bumpy()
    count = len(footage.sharp)
    assert footage.rates.shape == (count / FPS * IMU_RATE, 4)
    np.savetxt(tmp_path / 'r.csv', footage.rates, '%.6f', ',', header='t,wx,wy,wz', comments='')
    imu = played(tmp_path / 'r.csv', count / FPS, footage.intrinsics, 0.03)
    camera = camera_of(
        WIDTH, HEIGHT, [imu.camera[0], 0, imu.camera[2], 0, imu.camera[1], imu.camera[3], 0, 0, 1],
        (), '', np.eye(3), 0.0, (HEIGHT, WIDTH),
    )
    gyroscope = Gyroscope()
    gains = []
    for number in (2, FRAMES_EACH + 5, 2 * FRAMES_EACH + 9, count + 1):
        stamp = number / FPS
        for time in np.arange(stamp - 0.1, stamp + 0.1, 0.005):
            gyroscope.add(time, *imu.rates(time))
        path = turned(gyroscope, camera, (HEIGHT, WIDTH), stamp, TAU * BUMPY_SHUTTER / FPS)
        planes = torch.from_numpy(path).permute(2, 3, 0, 1)[None]
        blurred_ = footage.degraded[number % count]
        image = torch.from_numpy(blurred_).permute(2, 0, 1)[None] / 255
        undone = deconvolve(image, planes)[0].clamp(0, 1).mul(255).round().byte()
        truth = footage.sharp[number % count]
        gains.append(psnr(undone.permute(1, 2, 0).numpy(), truth) - psnr(blurred_, truth))
    assert np.mean(gains) > 1.5, gains


def test_drops_gather_until_a_wiper_takes_them_off_and_gather_again():
    footage = behind_glass()
    assert len(footage.sharp) == len(footage.degraded) == footage.each, 'one drive, without a cut'
    apart = [
        cv2.absdiff(d, s).max(-1) > 20
        for d, s in zip(footage.degraded, footage.sharp, strict=True)
    ]
    shares = [apart[n].mean() for n in (0, 5, 20, 22, 24, 30, 39)]
    first, few, many, wiper, wiped, anew, last = shares
    assert 0 < first < few < many < wiper
    assert wiped < min(few, 1.5 * first), 'but for those that it does not reach'
    assert wiped < anew < last
    assert (apart[18] & apart[20]).sum() > 0.6 * apart[18].sum(), 'they stay in their place'


def test_measures_leave_out_cuts_and_dropped_frames(rain):
    quality = measure_drives([
        drive(rain, rain.sharp, 0, 2), drive(rain, rain.sharp, FRAMES_EACH, 2),
    ])
    assert quality.flicker[1] == 0
    within = [
        flicker(rain.degraded[n : n + 2], rain.sharp[n : n + 2]) for n in (0, FRAMES_EACH)
    ]
    assert quality.flicker[0] == pytest.approx(np.mean(within))
    assert measure_drives([drive(rain, rain.sharp)[::2]]) is None  # no neighbours


def test_the_report_plays_loops_of_what_was_restored(rain, tmp_path):
    frames = drive(rain, rain.sharp, count=3)
    quality = measure_drives([drive(rain, rain.degraded, count=3)])
    seen = [
        Seen(row('passthrough', True, 'none', quality), []),
        Seen(row('derain', False, 'derain', quality), []),
        Seen(row('derain', True, 'derain', quality), [frames, []], 'Rain <falls>.'),
        Seen(row('auto', True, 'derain', quality), [frames]),
    ]
    write_report(tmp_path / 'report.html', seen, 'fast on cpu')
    page = (tmp_path / 'report.html').read_text(encoding='utf-8')
    [loop] = DATA.findall(page)
    with Image.open(io.BytesIO(base64.b64decode(loop))) as picture:
        assert picture.n_frames == 3
        assert picture.size == (2 * WIDTH, HEIGHT)
        picture.seek(2)
        halves = np.split(np.asarray(picture.convert('RGB')), 2, axis=1)
    assert psnr(halves[0], frames[2].degraded) > 24
    assert psnr(halves[1], frames[2].sharp) > 24
    assert 'prefers-reduced-motion: reduce' in page
    assert page.count('<td>') == 4 * 13
    assert f'{quality.flicker[0]:.1f} → {quality.flicker[1]:.1f}' in page
    assert '&lt;rain&gt;, derain' in page
    assert 'Rain &lt;falls&gt;. PSNR dB' in page
    assert '<rain>' not in page
    assert 'http' not in page
    assert page.count('<img') == page.count(' alt="')


def test_one_picture_shows_each_scene_before_and_after(rain, tmp_path):
    frames = drive(rain, rain.sharp, count=2)
    write_before_after(tmp_path / 'b.png', [
        Seen(row('derain', True, 'derain', scene=scene), [frames]) for scene in ('rain', 'glass')
    ])
    with Image.open(tmp_path / 'b.png') as picture:
        assert picture.size == (2 * WIDTH, 2 * HEIGHT)


def test_a_source_without_truth_is_shown_without_figures(rain, tmp_path):
    frames = [s._replace(sharp=None) for s in drive(rain, rain.sharp, count=2)]
    assert measure_drives([frames]) is None
    write_report(tmp_path / 'r.html', [Seen(row('derain', True, 'derain'), [frames])], 'cpu')
    page = (tmp_path / 'r.html').read_text(encoding='utf-8')
    assert len(DATA.findall(page)) == 1
    assert page.count('<td>-</td>') == 2
