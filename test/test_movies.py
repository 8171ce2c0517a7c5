"""Videos and sequences of files: nothing is lost on the way, or it is said."""

import errno
import resource
from fractions import Fraction
from pathlib import Path
from unittest.mock import MagicMock

import av
import cv2
import numpy as np
import pytest
from rich.progress import Progress

from iov_restore_ros.evaluation.metrics import psnr
from iov_restore_ros.pictures.files import DataError, files_below, list_images, read_frames
from iov_restore_ros.pictures.movie_writer import MovieWriter
from iov_restore_ros.pictures.movies import Movie, MovieError, is_movie
from iov_restore_ros.tools import restore_video as video_module
from iov_restore_ros.tools.fleet_drives import find_drives
from iov_restore_ros.tools.fleet_worker import link_or_copy
from iov_restore_ros.tools.image_source import open_source
from iov_restore_ros.tools.restore_files import Outcomes, restore_all
from iov_restore_ros.tools.restore_video import dropped, restore_video
from iov_restore_ros.tools.shaken_source import shaken

FRAMES = 8
RATE = 25
UNEVEN = 0, 33, 70, 140, 150, 400, 410, 1000  # ms
BT709, FULL = 1, 2  # as libav has them


def pictures(height=64, width=96, count=FRAMES, noise=0):
    """Return smooth frames in motion, uint8 H x W x 3, RGB, each with its own brightness."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(0)
    frames = [
        np.stack([40 + x + 4 * n, 190 - y + 4 * n, 60 + x / 2 + 4 * n], -1) for n in range(count)
    ]
    noisy = [frame + rng.normal(0, noise, frame.shape) for frame in frames]
    return [frame.clip(0, 255).round().astype(np.uint8) for frame in noisy]


def write(
    path, frames, codec='libx264', samples='yuv420p', times=None, sound=None, options=None,
    **colours,
):
    """Write a video, its frames at ``times`` in ms (without: RATE); the rest as libav has it."""
    with av.open(str(path), 'w') as out:
        video = out.add_stream(codec, rate=RATE, options=options or {})
        coding = video.codec_context
        coding.height, coding.width = frames[0].shape[:2]
        coding.pix_fmt = samples
        coding.time_base = Fraction(1, 1000 if times else RATE)
        for name, value in colours.items():
            setattr(coding, name, value)
        if sound:
            audio = out.add_stream(sound, rate=48000)
            audio.codec_context.layout = 'mono'
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, 'rgb24').reformat(
                format=samples, dst_colorspace=colours.get('colorspace', 5),
                dst_color_range=colours.get('color_range', 1),
            )
            picture.pts = times[number] if times else number
            picture.time_base = coding.time_base
            out.mux(video.encode(picture))
        if sound:
            tone = (9000 * np.sin(np.arange(4800) / 20)).astype(np.int16)[None]
            heard = av.AudioFrame.from_ndarray(tone, 's16', layout='mono')
            heard.sample_rate, heard.pts = 48000, 0
            out.mux(audio.encode(heard))
            out.mux(audio.encode())
        out.mux(video.encode())
    return path


def read(path):
    """Return the frames with their times, and what is wrong with them."""
    with Movie(path, accurate=True) as movie:
        return list(movie.shots()), movie.troubles()


def sound_of(path):
    with av.open(str(path)) as movie:
        return b''.join(bytes(packet) for packet in movie.demux(audio=0) if packet.size)


@pytest.fixture
def restore(monkeypatch, tmp_path):
    """Return a function that "restores" a video, and gives the result's path and what was said."""
    monkeypatch.setattr(video_module, 'restore_next', lambda _, __, frame, *___: frame)

    def run(source, **options):
        suffix = '.mkv' if 'crf' in options and options['crf'] is None else '.mp4'
        target = tmp_path / 'out' / (source.stem + suffix)
        return target, restore_video(
            None, 'derain', source, target, None, Progress(disable=True), lambda: None, **options
        )
    return run


def test_times_sound_pixels_and_colours_stay(restore, tmp_path):
    source = write(
        tmp_path / 'a.mkv', pictures(), times=UNEVEN, sound='aac', colorspace=BT709,
        color_range=FULL, sample_aspect_ratio=Fraction(4, 3),
    )
    target, made = restore(source)
    assert (made.frames, made.failures, made.told) == (FRAMES, [], [])
    before, after = read(source)[0], read(target)[0]
    assert [round(1000 * shot.time) for shot in after] == list(UNEVEN)
    assert psnr(np.stack([s.pixels for s in after]), np.stack([s.pixels for s in before])) > 42
    assert sound_of(target) == sound_of(source) != b''
    with Movie(target) as movie:
        coding = movie.stream.codec_context
        assert movie.stream.sample_aspect_ratio == Fraction(4, 3)
        assert (coding.colorspace, coding.color_range) == (BT709, FULL)
        end = (movie.stream.start_time + movie.stream.duration) * movie.tick
    assert end >= 1, 'the last frame is shown, too'


def test_lossless_is_the_very_same_and_an_odd_size_stays(restore, tmp_path):
    source = write(tmp_path / 'a.avi', pictures(97, 161), 'mjpeg', 'yuvj420p', sound='pcm_s16le')
    before = read(source)[0]
    target, made = restore(source, crf=None)
    assert not made.told
    after = read(target)[0]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(before, after, strict=True))
    target, made = restore(source)
    assert read(target)[0][0].pixels.shape == (97, 161, 3)
    assert made.told == ['written as yuv444p, which some players cannot play']
    assert sound_of(target) == sound_of(source)


def test_what_the_new_file_cannot_hold_is_told(restore, tmp_path):
    source = write(tmp_path / 'a.mkv', pictures(), 'ffv1', 'yuv420p10le', sound='wavpack')
    assert restore(source)[1].told == [
        'bits beyond 8 lost', 'audio (wavpack) left out: mp4 cannot hold it'
    ]


def test_sound_that_goes_back_in_time_does_not_end_the_video(restore, tmp_path, monkeypatch):
    def packets(self, own=Movie._packets):
        for packet in own(self):
            if packet.stream.type == 'audio' and packet.pts == 43:
                packet.dts = packet.pts = 1
            yield packet
    source = write(tmp_path / 'a.mkv', pictures(), sound='aac')
    monkeypatch.setattr(Movie, '_packets', packets)
    _, made = restore(source)
    assert (made.frames, made.failures) == (FRAMES, [])
    assert made.told == ['1 packets of audio left out: their times decrease']


def test_bad_frames_are_passed_over_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(video_module, 'restore_next', lambda _, __, frame, *___: frame)
    source = write(tmp_path / 'a.avi', pictures(), 'mjpeg', 'yuvj420p')
    with av.open(str(source)) as movie:
        packets = [(packet.pos, packet.size) for packet in movie.demux() if packet.size]
    data = bytearray(source.read_bytes())
    for place, size in packets[2:4]:
        data[place + 8 : place + size] = bytes(size - 8)
    source.write_bytes(data)
    report = Outcomes()
    restore_all(None, 'derain', [source], tmp_path / 'out', '.png', MagicMock(), report)
    assert report.failures == [f'{source}: 2 of 8 frames cannot be decoded']
    shots, troubles = read(tmp_path / 'out' / 'a.mp4')
    assert not troubles
    assert [round(shot.time * RATE) for shot in shots] == [0, 1, 4, 5, 6, 7]
    assert not report.told


@pytest.mark.parametrize(('name', 'said'), [
    ('a.mkv', 's are missing at the end'), ('a.avi', 'frames cannot be decoded')
])
def test_a_video_that_is_cut_off_does_not_count_as_whole(restore, tmp_path, name, said):
    source = write(tmp_path / name, pictures(noise=20, count=25), 'mjpeg', 'yuvj420p')
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    _, made = restore(source)
    assert 0 < made.frames < 25
    assert any(said in failure for failure in made.failures), made.failures


def test_where_there_is_no_room_there_is_no_video(restore, tmp_path):
    source = write(tmp_path / 'a.avi', pictures(noise=40), 'mjpeg', 'yuvj420p')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(MovieError, match=r'cannot write .*File too large'):
            restore(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / 'out').iterdir())


def test_a_video_with_less_frames_than_were_written_gets_no_name(restore, tmp_path, monkeypatch):
    source = write(tmp_path / 'a.mkv', pictures())
    own = MovieWriter.write
    monkeypatch.setattr(
        MovieWriter, 'write', lambda self, *given: given[1].ticks == 120 or own(self, *given)
    )
    with pytest.raises(MovieError, match='only 7 of 8 frames are in the written file'):
        restore(source)
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.parametrize(('name', 'codec', 'samples'), [
    ('a.ts', 'libx264', 'yuv420p'), ('a.mpg', 'mpeg2video', 'yuv420p'), ('a.flv', 'flv', 'yuv420p'),
    ('a.wmv', 'wmv2', 'yuv420p'), ('a.avi', 'libx264', 'yuv420p'), ('a.webm', 'libvpx', 'yuv420p'),
    ('a.mov', 'png', 'rgb24'), ('a.recording', 'libx264', 'yuv420p'),
])
def test_what_libav_opens_is_a_video(restore, tmp_path, name, codec, samples):
    source = tmp_path / name
    if name == 'a.recording':
        write(tmp_path / 'a.mp4', pictures(), codec, samples).rename(source)
    else:
        write(source, pictures(), codec, samples)
    target, made = restore(source)
    assert is_movie(source) and (made.frames, made.failures) == (FRAMES, [])
    times = [shot.time for shot in read(target)[0]]
    np.testing.assert_allclose(np.diff(times), 1 / RATE, atol=1.1e-3)


def test_pictures_and_texts_are_no_videos(tmp_path):
    (tmp_path / 'notes.txt').write_text('some\nlines\n')
    cv2.imwrite(str(tmp_path / 'a.png'), pictures()[0])
    (tmp_path / 'a.png').rename(tmp_path / 'a.picture')
    for name in ('notes.txt', 'a.picture', 'gone.mp4'):
        assert not is_movie(tmp_path / name)


def test_frames_are_found_by_number_as_they_come(tmp_path):
    source = write(tmp_path / 'a.mp4', pictures(count=25), options={'g': '6'})
    with Movie(source) as movie:
        frames = [shot.pixels for shot in movie.shots()]
    for first in (0, 5, 13, 22):
        assert np.array_equal(read_frames(source, first, 3), frames[first : first + 3])
    with pytest.raises(DataError, match='frame 25 cannot be read'):
        read_frames(source, 23, 3)


@pytest.mark.parametrize(('ticks', 'missing'), [
    (range(0, 400, 10), 0), ([*range(0, 200, 10), *range(230, 400, 10)], 3), (UNEVEN, 0), ([5], 0),
])
def test_frames_are_missed_at_a_constant_rate_only(ticks, missing):
    assert dropped(list(ticks)) == missing


@pytest.fixture
def tree(tmp_path):
    """Return a folder of frames, with links and hidden files in it."""
    root, other = tmp_path / 'in', tmp_path / 'other'
    for folder in ('in/drive10', 'in/drive2', 'in/.trash', 'other'):
        (tmp_path / folder).mkdir(parents=True)
    names = ('in/10.png', 'in/2.png', 'in/drive10/1.png', 'in/drive2/1.png', 'other/3.png')
    for name in (*names, 'in/.3.png', 'in/.trash/4.png'):
        cv2.imwrite(str(tmp_path / name), np.full((4, 6, 3), len(name), np.uint8))
    (root / 'linked').symlink_to(other)
    (root / 'drive2' / 'back').symlink_to(root)
    return root


def test_files_come_by_number_through_links_and_not_hidden(tree):
    found = [str(path.relative_to(tree)) for path in files_below(tree)]
    assert found == ['2.png', '10.png', 'drive2/1.png', 'drive10/1.png', 'linked/3.png']
    assert list_images(tree) == files_below(tree)
    drives = find_drives([str(tree / 'drive2'), str(tree / 'linked')], '/nowhere')
    assert [drive.name for drive in drives] == ['drive2', 'linked']


def test_image_source_shows_no_frame_for_a_picture_that_cannot_be_read(tree, capsys):
    (tree / '10.png').write_bytes(b'nothing')
    shown = open_source(str(tree))
    seen = [None if shown(n) is None else shown(n)[0, 0, 0] for n in range(6)]
    assert seen == [8, None, 15, 16, 11, 8]
    assert '10.png' in capsys.readouterr().err
    exposed, _ = shaken(shown, 1.0, 1.0, 1.0)
    assert exposed(1) is None and exposed(2) is not None
    for path in tree.glob('*/*.png'):
        path.write_bytes(b'nothing')
    (tree / '2.png').unlink()
    with pytest.raises(ValueError, match='none of its pictures can be read'):
        open_source(str(tree))


def test_frames_are_copied_where_there_are_no_hard_links(tree, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, 'Operation not permitted')
    monkeypatch.setattr(Path, 'hardlink_to', refuse)
    link_or_copy(tree / '2.png', tree / 'new.png')
    assert (tree / 'new.png').read_bytes() == (tree / '2.png').read_bytes()
