"""Blur made of consecutive frames: pans over a photograph, whose blur is known exactly."""

import cv2
import numpy as np
import pytest
import torch
from skimage import data as photographs

from iov_restore_ros.evaluation.metrics import psnr
from iov_restore_ros.pictures.files import DataError, SharpCrops, list_stills
from iov_restore_ros.pictures.footage import (
    CROP_MARGIN,
    GAMMA,
    STRETCH,
    FootageCrops,
    expose,
    list_footage,
)

SIDE = 64
OUTER = SIDE + 2 * CROP_MARGIN
INNER = slice(CROP_MARGIN, -CROP_MARGIN)


def view(shift):
    """Return a photograph seen from a camera that has moved ``shift`` pixels to the right."""
    left = 200 + shift
    return photographs.astronaut()[100 : 100 + OUTER, left : left + OUTER]


def pan(pace, frames=STRETCH):
    """Return the frames of a camera that moves ``pace`` pixels from frame to frame."""
    return np.stack([view(pace * (number - frames // 2)) for number in range(frames)])


def blur(length, gamma=1.0):
    """Return the average of all views along ``length`` pixels, the middle in the middle."""
    views = [view(shift) for shift in range(-(length // 2), length // 2 + 1)]
    light = np.mean([(one / 255) ** gamma for one in views], 0)
    return np.round(light ** (1 / gamma) * 255).astype(np.uint8)[INNER, INNER]


@pytest.mark.parametrize('gamma', [1.0, GAMMA])
def test_near_frames_are_averaged_as_they_are(gamma):
    blurred, sharp = expose(pan(1), exposure=8.0, max_blur=30, gamma=gamma)
    assert np.abs(blurred.astype(int) - blur(8, gamma)).max() <= 1
    assert (sharp == view(0)[CROP_MARGIN:-CROP_MARGIN, CROP_MARGIN:-CROP_MARGIN]).all()


@pytest.mark.parametrize(('pace', 'exposure', 'length'), [(8, 2.0, 16), (16, 0.8, 12)])
def test_between_distant_frames_others_are_made(pace, exposure, length):
    frames = pan(pace, 5)
    blurred, sharp = expose(frames, exposure, max_blur=30, gamma=1.0)
    assert psnr(blurred, blur(length)) > 33
    assert psnr(blurred, blur(length)) > psnr(blurred, sharp) + 8


def test_exposure_ends_where_blur_becomes_too_long():
    blurred, _ = expose(pan(4), exposure=12.0, max_blur=12, gamma=1.0)
    lengths = {length: psnr(blurred, blur(length)) for length in (4, 8, 12, 16, 24, 48)}
    assert max(lengths, key=lengths.get) == 12, lengths


def test_cuts_noise_and_plain_walls_are_refused():
    frames = pan(2)
    cut = frames.copy()
    cut[STRETCH // 2 + 1 :] = photographs.coffee()[100 : 100 + OUTER, 100 : 100 + OUTER]
    noise = np.random.default_rng(1).integers(256, size=frames.shape).astype(np.uint8)
    assert expose(frames, 6, 30, 1.0) is not None
    for refused in (cut, noise, np.full_like(frames, 90)):
        assert expose(refused, 6, 30, 1.0) is None


def write_video(path, frames, rate=30):
    video = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'MJPG'), rate, frames[0].shape[1::-1]
    )
    for frame in frames:
        video.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    video.release()


def write_folder(folder, frames):
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, 1):
        cv2.imwrite(str(folder / f'frame_{number}.png'), frame[..., ::-1])


def test_crops_are_a_function_of_seed_and_number(tmp_path):
    write_video(tmp_path / 'pan.avi', pan(3, 21))
    first, again, other = (FootageCrops(tmp_path, SIDE, 20, seed) for seed in (1, 1, 2))
    for number in (0, 13, 3, 0):
        for one, two in zip(first[number], again[number], strict=True):
            assert torch.equal(one, two)
    blurred, sharp = first[2]
    assert blurred.shape == sharp.shape == (3, SIDE, SIDE) and sharp.dtype == torch.uint8
    assert not torch.equal(blurred, sharp)
    assert not torch.equal(first[0][1], other[0][1])


def test_no_crop_mixes_two_scenes(tmp_path):
    frames = pan(2, 30)
    frames = np.concatenate([frames[:15] // 3, 170 + frames[15:] // 3])
    write_video(tmp_path / 'cut.avi', frames)
    crops = FootageCrops(tmp_path, SIDE, 24, 1)
    means = np.array([[crop.float().mean().item() for crop in crops[index]] for index in range(24)])
    assert np.abs(means[:, 0] - means[:, 1]).max() < 10
    assert means.min() < 85 < 170 < means.max(), 'both scenes are used'


def test_folders_of_frames_are_read_in_order_of_their_numbers(tmp_path):
    write_folder(tmp_path / 'sequence', pan(3, 14))
    write_folder(tmp_path / 'too_short', pan(3, 3))
    [footage] = list_footage(tmp_path)
    assert [path.stem for path in footage.files] == [f'frame_{n}' for n in range(1, 15)]
    assert (footage.read(1)[0] == pan(3, 14)[1]).all()


def test_broken_footage_is_named(tmp_path, caplog):
    with pytest.raises(DataError, match=r'nowhere: neither a folder of videos or frames nor'):
        FootageCrops(tmp_path / 'nowhere', SIDE, 1, 1)
    (tmp_path / 'bad.mp4').write_bytes(b'no video')
    with pytest.raises(DataError, match=r'no footage found .looked for .*\.mp4.* of 13 frames'):
        FootageCrops(tmp_path, SIDE, 1, 1)
    assert 'bad.mp4: not a readable video, skipped' in caplog.text
    write_folder(tmp_path / 'wall', np.full((STRETCH, OUTER, OUTER, 3), 90, np.uint8))
    with pytest.raises(DataError, match=r'no usable moment in .* first .*wall'):
        FootageCrops(tmp_path, SIDE, 1, 1)[0]


def test_sharp_crops_take_a_frame_of_every_second_of_a_video(tmp_path, photograph, caplog):
    write_video(tmp_path / 'a.avi', [np.full((48, 64, 3), 10 * n, np.uint8) for n in range(25)], 10)
    (tmp_path / 'bad.mov').write_bytes(b'no video')
    cv2.imwrite(str(tmp_path / 'b.png'), photograph)
    stills = list_stills(tmp_path)
    assert [(still.path.name, still.frame) for still in stills] == [
        ('b.png', None), ('a.avi', 0), ('a.avi', 10), ('a.avi', 20)
    ]
    assert 'bad.mov: not a readable video, skipped' in caplog.text
    assert [still.read().mean() for still in stills[1:]] == pytest.approx([0, 100, 200], abs=4)

    (tmp_path / 'b.png').unlink()
    for detailed in (False, True):
        crops = SharpCrops(tmp_path, 32, 30, 1, detailed=detailed)
        greys = {round(crops[index].float().mean().item(), -2) for index in range(30)}
        assert greys == {0, 100, 200}
    (tmp_path / 'a.avi').unlink()
    with pytest.raises(DataError, match='none of the videos in it can be read'):
        SharpCrops(tmp_path, 32, 1, 1)
