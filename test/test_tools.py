"""The offline commands, as processes."""

import signal
import subprocess
import sys
import time
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
from pictures import RATE, drive, png_bomb, rain
from PIL import Image

from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.inference.pixels import enlarge
from iov_restore_ros.outputs import OutputError
from iov_restore_ros.pictures.movies import Movie
from iov_restore_ros.pictures.warp import move
from iov_restore_ros.tools import restore_files, shaken_source
from iov_restore_ros.tools.image_source import open_source
from iov_restore_ros.tools.restore_files import Outcomes, restore_all
from iov_restore_ros.video.calibration import camera_of
from iov_restore_ros.video.camera_path import Gyroscope, turned


def command(name, *arguments):
    return subprocess.run(
        [sys.executable, '-m', f'iov_restore_ros.tools.{name}', *map(str, arguments)],
        capture_output=True, text=True, timeout=100,
    )


def bgr(rgb):
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)


@pytest.fixture
def folder(tmp_path, photograph):
    """Return a folder with good and bad pictures and a video."""
    root = tmp_path / 'in'
    (root / 'sub').mkdir(parents=True)
    picture = bgr(photograph[:90, :121])
    cv2.imwrite(str(root / 'a.png'), picture)
    cv2.imwrite(str(root / 'sub' / 'b.jpg'), picture)
    cv2.imwrite(str(root / 'grey.png'), picture[..., 0])
    cv2.imwrite(str(root / 'alpha.png'), np.dstack([picture, picture[..., :1]]))
    cv2.imwrite(str(root / 'deep.png'), picture.astype(np.uint16) * 256)
    (root / 'broken.png').write_bytes(b'nothing')
    (root / 'broken.mp4').write_bytes(b'nothing')
    (root / 'notes.txt').write_text('not a picture')
    writer = cv2.VideoWriter(
        str(root / 'clip.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 10, (120, 90)
    )
    for _ in range(3):
        writer.write(picture[:, :120])
    writer.release()
    return root


def test_restore_files(folder, tmp_path, photograph):
    out = tmp_path / 'out'
    result = command(
        'restore_files', folder, tmp_path / 'gone.png', '--output', out, '--task', 'deblur',
        '--precision', 'float32',
    )
    assert result.returncode == 1
    for line in (
        'broken.png: not a readable picture', 'broken.mp4: not a readable video',
        'gone.png: no such file',
    ):
        assert line in result.stderr
    assert 'Traceback' not in result.stderr
    written = sorted(str(p.relative_to(out)) for p in out.rglob('*') if p.is_file())
    assert written == [
        '.restore_files', 'a.png', 'alpha.png', 'clip.mp4', 'deep.png', 'grey.png', 'sub/b.png'
    ]

    restorer = Restorer(precision='float32', tasks=['deblur'])
    [expected] = restorer.restore([photograph[:90, :121]], 'deblur')
    assert np.array_equal(cv2.imread(str(out / 'a.png')), bgr(expected))
    alpha = cv2.imread(str(out / 'alpha.png'), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(alpha[..., 3], bgr(photograph[:90, :121])[..., 0])
    assert cv2.imread(str(out / 'grey.png'), cv2.IMREAD_UNCHANGED).shape == (90, 121)
    deep = cv2.imread(str(out / 'deep.png'), cv2.IMREAD_UNCHANGED)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - bgr(expected)).max() < 2  # it was 256 times the picture
    assert cv2.VideoCapture(str(out / 'clip.mp4')).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_what_is_done_is_left_and_two_of_one_name_are_told(folder, tmp_path):
    (folder / 'a.jpg').write_bytes((folder / 'sub' / 'b.jpg').read_bytes())
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'alpha.png').write_bytes(b'mine')
    arguments = 'restore_files', folder, '--output', tmp_path / 'out', '--task', 'deblur'
    result = command(*arguments)
    made_twice = f'{tmp_path}/out/a.png is also the output of {folder}/a.jpg'
    assert f'{folder}/a.png: {made_twice}' in result.stderr
    assert '1 existed already; --overwrite' in result.stderr
    assert (tmp_path / 'out' / 'alpha.png').read_bytes() == b'mine'
    assert '6 existed already' in command(*arguments).stderr
    made = {path: path.stat().st_ino for path in (tmp_path / 'out').rglob('*') if path.is_file()}
    result = command(*arguments, '--overwrite')
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith(
        f'{tmp_path}/out/alpha.png exists, and restore_files has no record of making it: move it '
        'away, or give another --output'
    )
    assert made == {path: path.stat().st_ino for path in made}, 'nothing is touched'
    (tmp_path / 'out' / 'alpha.png').unlink()
    assert 'already' not in command(*arguments, '--overwrite').stderr
    assert (tmp_path / 'out' / 'a.png').stat().st_ino != made[tmp_path / 'out' / 'a.png']


def test_a_picture_that_fails_does_not_end_the_run(folder, tmp_path):
    """And what the format cannot hold is told: 16 bits as JPEG came out white."""
    (folder / 'cut.jpg').write_bytes((folder / 'sub' / 'b.jpg').read_bytes()[:2000])
    (folder / 'b.png').write_bytes(png_bomb(20_000, 10_000))
    (folder / 'c.png').write_bytes(png_bomb(60_000, 60_000))
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / 'd.webp', exif=b'no EXIF data')
    result = command(
        'restore_files', folder, '--output', tmp_path / 'out', '--task', 'deblur', '--format', 'jpg'
    )
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    failed = [line for line in result.stderr.splitlines() if line.startswith('failed: ')]
    assert [line.split()[1] for line in failed] == [
        f'{folder}/{name}:' for name in ('b.png', 'broken.mp4', 'broken.png', 'c.png', 'cut.jpg')
    ]
    assert 'alpha lost in 1 pictures: jpg cannot hold it' in result.stderr
    assert 'bits beyond 8 lost in 1 pictures: jpg cannot hold it' in result.stderr
    deep, sharp = (cv2.imread(str(tmp_path / f'out/{name}.jpg')) for name in ('deep', 'alpha'))
    assert np.abs(deep.astype(int) - sharp).mean() < 3


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_leaves_nothing_half_done_and_goes_on(tmp_path, photograph, number):
    out = tmp_path / 'out'
    cv2.imwrite(str(tmp_path / 'a.png'), photograph[:64, :64])
    writer = cv2.VideoWriter(
        str(tmp_path / 'clip.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 10, (320, 240)
    )
    for _ in range(300):
        writer.write(photograph[:240, :320])
    writer.release()
    arguments = [
        sys.executable, '-m', 'iov_restore_ros.tools.restore_files', str(tmp_path / 'a.png'),
        str(tmp_path / 'clip.mp4'), '--output', str(out), '--task', 'derain',
    ]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while not (out / '.clip.part.mp4').exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 'stopped, 1 restored; the same command continues' in said
    assert 'Traceback' not in said
    assert {path.name for path in out.iterdir()} == {'a.png', '.restore_files'}


def in_order(frames, rate=RATE):
    """Restore ``frames`` as a sequence."""
    restorer, history = Restorer(device='cpu', precision='float32', tasks=['derain']), History()
    return [restore_next(restorer, history, f, n / rate, 'derain') for n, f in enumerate(frames)]


def test_pictures_of_a_folder_are_frames_with_video_only(tmp_path, street):
    frames = rain(drive(street, 4))
    for number, frame in zip((2, 9, 10, 11), frames, strict=True):  # 10 behind 9
        cv2.imwrite(str(tmp_path / f'f{number}.png'), bgr(frame))
    for name, options in (('stills', ()), ('video', ('--video',))):
        result = command(
            'restore_files', tmp_path, '--output', tmp_path / name, '--task', 'derain',
            '--device', 'cpu', '--precision', 'float32', *options,
        )
        assert result.returncode == 0, result.stderr
        if name == 'stills':
            restorer = Restorer(device='cpu', precision='float32', tasks=['derain'])
            expected = restorer.restore(frames, 'derain')
        else:
            expected = in_order(frames)
        for number, picture in zip((2, 9, 10, 11), expected, strict=True):
            written = cv2.imread(str(tmp_path / name / f'f{number}.png'))
            assert np.array_equal(written, bgr(picture)), (name, number)
        for path in (tmp_path / name).iterdir():  # not to be found by the next round
            path.unlink()


def test_the_frames_of_a_video_are_one_sequence(tmp_path, street):
    source = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*'MJPG'), RATE, (192, 144))
    for frame in rain(drive(street, 3)):
        writer.write(bgr(frame))
    writer.release()
    with Movie(source, accurate=True) as movie:
        frames = [shot.pixels for shot in movie.shots()]
    restorer = Restorer(device='cpu', precision='float32', tasks=['derain'])
    report = Outcomes()
    out = tmp_path / 'out'
    restore_all(restorer, 'derain', [source], out, '.png', MagicMock(), report, crf=None)
    assert (report.restored, report.failures) == (1, [])
    with Movie(out / 'clip.mkv') as movie:
        written = [shot.pixels for shot in movie.shots()]
    assert len(written) == 3 and all(map(np.array_equal, written, in_order(frames)))


def test_what_a_folder_holds_beside_pictures_is_told(crop, tmp_path):
    source = tmp_path / 'in'
    source.mkdir()
    cv2.imwrite(str(source / 'a.png'), crop)
    for name in ('a.gif', 'b.GIF', 'notes'):
        (source / name).write_bytes(b'...')
    result = command('restore_files', source, '--output', tmp_path / 'out', '--task', 'derain')
    assert result.returncode == 0
    assert 'left out, neither pictures nor videos: 1 without suffix, 2 .gif' in result.stderr


@pytest.mark.parametrize('share', ['1.5', '-1', 'half'])
def test_a_shutter_that_cannot_be_is_refused(folder, tmp_path, share):
    result = command(
        'restore_files', folder, '--output', tmp_path, '--task', 'deblur', f'--shutter={share}'
    )
    assert result.returncode == 2
    assert 'argument --shutter' in result.stderr


def test_restore_files_never_overwrites_its_input(folder):
    before = (folder / 'a.png').read_bytes()
    result = command('restore_files', folder / 'a.png', '--output', folder, '--task', 'derain')
    assert result.returncode == 2
    assert 'would overwrite' in result.stderr
    assert (folder / 'a.png').read_bytes() == before


@pytest.fixture
def restore(monkeypatch):
    """Return a function that "restores" pictures; gives the names of what is in the output then."""
    monkeypatch.setattr(restore_files, 'restore_next', lambda _, __, frame, *___: frame)

    def run(inputs, output, **options):
        report = Outcomes()
        restore_all(None, 'derain', inputs, output, '.png', MagicMock(), report, **options)
        assert not report.failures
        return sorted(str(path.relative_to(output)) for path in output.rglob('*.png')), report
    return run


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize('overwrite', [False, True])
@pytest.mark.parametrize('case', [
    'one input becomes another', 'the folder itself', 'a link to it', 'deeper', 'a linked picture',
])
def test_an_output_never_costs_an_input(crop, tmp_path, restore, case, overwrite):
    source = tmp_path / 'in'
    (source / 'in').mkdir(parents=True)
    for name in ('a.jpg', 'a.png', 'in/b.jpg'):
        cv2.imwrite(str(source / name), crop)
    inputs, output = [source], source
    if case == 'one input becomes another':
        inputs = [source / 'a.jpg', source / 'a.png']
    if case == 'a link to it':
        output = tmp_path / 'link'
        output.symlink_to(source)
    if case == 'deeper':  # in/b.jpg becomes b.png beside a.png, and in/in/b.png lies in the input
        inputs, output = [source, source / 'in'], source
    if case == 'a linked picture':
        inputs, output = [source / 'a.jpg'], tmp_path / 'out'
        output.mkdir()
        (output / 'a.png').symlink_to(source / 'a.jpg')
    before = content(tmp_path)
    with pytest.raises(OutputError, match='give another --output'):
        restore(inputs, output, overwrite=overwrite)
    assert content(tmp_path) == before


@pytest.mark.parametrize('linked', [False, True])
def test_results_within_an_input_are_no_sources(crop, tmp_path, restore, linked):
    source, output = tmp_path / 'in', tmp_path / 'in' / 'restored'
    (source / 'sub').mkdir(parents=True)
    for name in ('a.jpg', 'sub/b.png'):
        cv2.imwrite(str(source / name), crop)
    given = source
    if linked:
        given = tmp_path / 'link'
        given.symlink_to(source)
    for options in ({}, {}, {'overwrite': True}, {'video': True}):
        made, report = restore([given], output, **options)
        assert made == ['a.png', 'sub/b.png']
        assert not report.left_out


def test_frames_of_somebody_else_are_not_replaced_for_the_others(crop, tmp_path, restore):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'out').mkdir()
    for name in ('in/1.jpg', 'in/2.jpg', 'out/1.png'):
        cv2.imwrite(str(tmp_path / name), crop)
    before = content(tmp_path)
    with pytest.raises(OutputError, match=r'out/1\.png exists, and restore_files has no record'):
        restore([tmp_path / 'in'], tmp_path / 'out', video=True)
    assert content(tmp_path) == before


def test_good_files_end_with_status_0(folder, tmp_path):
    result = command(
        'restore_files', folder / 'a.png', '--output', tmp_path, '--task', 'derain',
        '--format', 'jpg',
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'a.jpg').is_file()


def test_wrong_weights_end_with_the_reason(folder, tmp_path):
    result = command(
        'restore_files', folder, '--output', tmp_path, '--task', 'derain', '--weights', folder
    )
    assert result.returncode == 2
    assert f'{folder}: there is no such weight file' in result.stderr


def test_layer_table_prints_table_1():
    result = command('layer_table', 'discriminator')
    assert result.returncode == 0
    for count in ('3,136', '65,600', '131,200', '524,544', '2,097,664', '8,193', '263,168'):
        assert count in result.stdout


def test_image_source_repeats_a_folder_and_a_video(folder):
    pictures = open_source(str(folder / 'sub'))
    assert np.array_equal(pictures(0), pictures(1))
    frames = open_source(str(folder / 'clip.mp4'))
    assert [frames(n).shape for n in range(5)] == [(90, 120, 3)] * 5
    with pytest.raises(ValueError, match='not a folder of pictures'):
        open_source(str(folder / 'notes.txt'))


def test_image_source_shakes_as_its_imu_says(photograph, monkeypatch):
    """Exposed so shortly that its frames are alike."""
    monkeypatch.setattr(shaken_source, 'EXPOSURE', 2e-4)
    start, fps = 1_700_000_000.0, 10.0
    exposed, imu = shaken_source.shaken(lambda _: photograph, fps, start, 0.06)
    size = photograph.shape[:2]
    fx, fy, cx, cy = imu.camera
    k = [fx, 0, cx, 0, fy, cy, 0, 0, 1]
    camera = camera_of(size[1], size[0], k, (), '', np.eye(3), 0.0, size)
    before, stays, turns = None, [], []
    for number in range(round(start * fps), round(start * fps) + 8):
        frame, gyroscope, stamp = exposed(number), Gyroscope(), number / fps
        for sample in np.arange(stamp - 0.15, stamp + 0.03, 0.005):
            gyroscope.add(sample, *imu.rates(sample))
        if before is not None:
            way = turned(gyroscope, camera, size, stamp, np.array([-1 / fps]))[:, :, 0]
            moved = move(before, enlarge(way, tuple(slice(0, side) for side in size)))
            inner = np.s_[60:-60, 60:-60]
            stays.append(np.abs(before[inner].astype(float) - frame[inner]).mean())
            turns.append(np.abs(moved[inner].astype(float) - frame[inner]).mean())
        before = frame
    assert np.mean(turns) < 0.4 * np.mean(stays)


def test_samples_of_every_degradation(tmp_path):
    result = command('degradation_samples', tmp_path / 'new')
    assert result.returncode == 0, result.stderr
    pages = {path.stem: cv2.imread(str(path)) for path in (tmp_path / 'new').iterdir()}
    assert set(pages) == {'motion_blur', 'rain', 'lens'}
    assert all(page.shape == (720, 960, 3) for page in pages.values())
    assert (np.abs(pages['rain'].astype(float) - pages['lens']) > 20).mean() > 0.01
