"""restore_files with a gyroscope's rates as CSV, for people without ROS."""

import signal
import sys

import cv2
import numpy as np
import pytest
from bag_of_shakes import HEIGHT, WIDTH, Shaken

from iov_restore_ros.tools import restore_files
from iov_restore_ros.tools.file_imu import FileImu, read_rates, times_of
from iov_restore_ros.tools.imu_options import Mounting
from iov_restore_ros.video.camera_path import TAU, turned
from iov_restore_ros.video.history import History

EPOCH = 1_700_000_000  # s


@pytest.fixture(scope='module')
def shaken(photograph):
    return Shaken(photograph)


def write(folder, shaken, name, header='t,wx,wy,wz\n', begin=0.0):
    """Write frames, called as ``name`` says of (number, time), and the rates; return both paths."""
    (folder / 'frames').mkdir()
    for number, (time, frame) in enumerate(zip(shaken.times, shaken.blurred, strict=True)):
        cv2.imwrite(str(folder / 'frames' / f'{name(number, time)}.png'), frame[..., ::-1])
    lines = [
        f'{begin + time:.6f},{x},{y},{z}\n'
        for time, (x, y, z) in zip(shaken.sampled, shaken.rates, strict=True)
    ]
    (folder / 'rates.csv').write_text(header + ''.join(lines))
    return folder / 'frames', folder / 'rates.csv'


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Return a function that restores frames: their pictures, and what was said."""
    def run(frames, *arguments):
        output = tmp_path / f'out{len(list(tmp_path.iterdir()))}'
        line = [
            'restore_files', frames, '--video', '--output', output, '--task', 'deblur',
            '--device', 'cpu', '--precision', 'float32', *arguments,
        ]
        monkeypatch.setattr(sys, 'argv', list(map(str, line)))
        monkeypatch.setattr(signal, 'signal', lambda *_: None)  # pytest's own stay
        status = restore_files.main()
        pictures = {path.name: cv2.imread(str(path)) for path in sorted(output.glob('*.png'))}
        said = capsys.readouterr()
        assert status == 0, said
        return pictures, said.out
    return run


def camera(shaken):
    fx, _, cx, _, fy, cy, *_ = shaken.k
    return f'{fx},{fy},{cx},{cy}'


def test_the_rates_are_used_by_any_times(shaken, run, tmp_path):
    for folder in ('a', 'b', 'c'):
        (tmp_path / folder).mkdir()
    numbered, rates = write(tmp_path / 'a', shaken, lambda number, _: f'{number:03}')
    by_rate, said = run(numbered, '--imu', rates, '--camera', camera(shaken), '--fps', 20)
    assert 'gyroscope rates.csv in ' in said and 'of 10 frames' in said
    without, said = run(numbered)
    assert not said
    assert any(not np.array_equal(by_rate[name], without[name]) for name in without)

    frames, rates = write(tmp_path / 'b', shaken, lambda _, time: f'{time:.3f}', header='')
    by_seconds, _ = run(frames, '--imu', rates, '--camera', camera(shaken))
    frames, rates = write(
        tmp_path / 'c', shaken, lambda _, time: f'{EPOCH + time:.3f}'.replace('.', '') + '0' * 6,
        begin=EPOCH,
    )
    by_nanoseconds, _ = run(frames, '--imu', rates, '--camera', camera(shaken))
    for others in (by_seconds, by_nanoseconds):
        for one, two in zip(by_rate.values(), others.values(), strict=True):
            assert np.abs(one.astype(int) - two).max() <= 2  # times are rounded


def test_the_path_of_its_frames_is_the_true_one(shaken, tmp_path):
    _, rates = write(tmp_path, shaken, lambda number, _: number, 'wz, WX ,wy,t\n')
    mixed = rates.read_text().splitlines()
    rates.write_text('\n'.join([mixed[0], *(
        ','.join(np.array(line.split(','))[[3, 1, 2, 0]]) for line in mixed[1:]
    )]))
    mounting = Mounting(rotation=(0.0, 0.0, 0.0, 1.0))
    imu = FileImu(rates, tuple(map(float, camera(shaken).split(','))), mounting)
    history = History()
    for number, time in enumerate(shaken.times):
        imu.advance(history, time, (HEIGHT, WIDTH))
        path = turned(
            history.inertial.gyroscope, history.inertial.camera, (HEIGHT, WIDTH), time,
            TAU * 0.6 * shaken.camera.period,
        )
        np.testing.assert_allclose(path, shaken.path(number, 0.6), atol=0.1)


@pytest.mark.parametrize(('text', 'reason'), [
    ('', 'no samples'),
    ('t,wx,wy,wz\n', 'no samples'),
    ('t,wx,wy\n0,1,2\n', 'no column wz among t, wx, wy'),
    ('0,1,2\n', r'line 1: 3 columns, expected t,wx,wy,wz'),
    ('t,wx,wy,wz\n0,1,1,1\n\n0.1,1,x,1\n', "line 4: 'x' is no number"),
    ('t,wx,wy,wz\n0,1,1,nan\n', "line 2: 'nan' is no number"),
    ('0,1,1,1\n0.1,1,,1\n', 'line 2: an empty column'),
    ('0,1,1,1\n0.1,120,1,1\n', 'rates up to 120: degrees per second'),
    ('0,1,1,1\n5000000,1,1,1\n', 'its samples are 5e.06 s apart: t must be in seconds'),
])
def test_what_is_wrong_with_rates_is_told(tmp_path, text, reason):
    (tmp_path / 'rates.csv').write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_rates(tmp_path / 'rates.csv')


@pytest.mark.parametrize(('names', 'reason'), [
    (['1', '2', '3'], '1 and so on are frame numbers'),
    (['left', 'right'], 'the name left is no time'),
    (['0.30', '0.4', '0.35'], '0.35 is not later'),
])
def test_names_that_are_no_times_are_told(tmp_path, names, reason):
    with pytest.raises(ValueError, match=reason):
        times_of([tmp_path / f'{name}.png' for name in names], None)


@pytest.mark.parametrize(('options', 'reason'), [
    (['--fps', '20'], '--imu needs --camera fx,fy,cx,cy'),
    (['--camera', '300,300,80,48'], 'are frame numbers, not times: give --fps'),
    (['--camera', '300,300,80', '--fps', '20'], 'argument --camera'),
    (['--camera', '300,300,80,48', '--fps', '0'], 'argument --fps'),
    (['--camera', '300,300,80,48', '--fps', '20', '--imu-time-offset', '60'], 'no overlap'),
    (['--camera', '300,300,80,48', '--fps', '20', '--imu', 'gone.csv'], 'gone.csv'),
])
def test_what_is_wrong_with_the_options_is_told(
    shaken, tmp_path, monkeypatch, capsys, options, reason
):
    frames, rates = write(tmp_path, shaken, lambda number, _: number)
    line = ['restore_files', frames, '--video', '--output', tmp_path, '--task', 'deblur']
    monkeypatch.setattr(sys, 'argv', list(map(str, [*line, '--imu', rates, *options])))
    with pytest.raises(SystemExit):
        restore_files.main()
    assert reason in capsys.readouterr().err
