"""What a camera saw lately: when there is a frame before, and what the generator makes of it."""


import cv2
import numpy as np
import pytest
import torch
from pictures import RATE, SIZE, drive, rain
from skimage import data as photographs

from iov_restore_ros.evaluation.metrics import psnr
from iov_restore_ros.inference import History, Restorer, restore_next, restore_sequence
from iov_restore_ros.inference.pixels import (
    Input,
    make_evidence,
    restore_inputs,
    restore_pixels,
    to_image,
)
from iov_restore_ros.model import Generator, load_weights, shipped_tasks, shipped_weights
from iov_restore_ros.model import fusion as on_device
from iov_restore_ros.pictures.degradations import shower
from iov_restore_ros.pictures.files import to_pictures, to_tensor
from iov_restore_ros.pictures.moving import CameraPath, MovingScene
from iov_restore_ros.video.flow import find_flow, flow_picture, search

SHIPPED = shipped_tasks('fast')


@pytest.fixture(scope='module')
def restorer():
    return Restorer(device='cpu', precision='float32')


@pytest.fixture(scope='module')
def plain():
    """One that takes nothing off before."""
    return Restorer(device='cpu', precision='float32', find=())


def restore(restorer, frames, task='derain', history=None, stamps=None):
    """Restore ``frames`` in order, as stills where ``history`` is False."""
    if history is False:
        return [restorer.restore([frame], task)[0] for frame in frames]
    history = history or History()
    stamps = stamps or [number / RATE for number in range(len(frames))]
    return [
        restore_next(restorer, history, frame, stamp, task)
        for frame, stamp in zip(frames, stamps, strict=True)
    ]


def mean_psnr(restored, sharp):
    return np.mean([psnr(*pair) for pair in zip(restored, sharp, strict=True)])


def look_back(history, frames, stamps, task='derain'):
    """Return the reason for each frame; ' ' where there is a frame before."""
    reasons = []
    for frame, stamp in zip(frames, stamps, strict=True):
        found = history.look_back(frame, stamp, task)
        assert (found is None) == bool(history.reason)
        reasons.append(history.reason)
        history.keep(frame, stamp)
    return reasons


# When there is a frame before


def test_the_first_frame_has_none_and_the_others_do(street):
    assert look_back(History(), drive(street, 3), [5.0, 5.1, 5.2]) == ['first', '', '']


def test_a_gap_ends_the_past(street):
    stamps = [5.0, 5.1, 5.6, 5.7]
    assert look_back(History(longest_gap=0.3), drive(street, 4), stamps) == ['first', '', 'gap', '']


def test_a_bag_that_loops_begins_anew(street):
    stamps = [5.0, 5.1, 0.0, 0.1]
    assert look_back(History(), drive(street, 4), stamps) == ['first', '', 'time jump', '']


def test_a_late_frame_never_becomes_the_one_before(street):
    history = History()
    frames = drive(street, 4)
    reasons = look_back(history, frames[:3], [5.0, 5.1, 5.05])
    assert reasons == ['first', '', 'not newer']
    assert np.array_equal(history.look_back(frames[3], 5.2, 'derain').pixels, frames[1])


def test_stamps_that_stand_still_are_no_sequence(street):
    assert look_back(History(), drive(street, 3), [0.0, 0.0, 0.0]) == ['first', *['not newer'] * 2]


def test_another_size_and_another_task_begin_anew(street):
    history = History()
    frames = drive(street, 5)
    frames[2:] = [np.ascontiguousarray(frame[:100]) for frame in frames[2:]]
    stamps = [n / RATE for n in range(4)]
    assert look_back(history, frames[:4], stamps) == ['first', '', 'another size', '']
    assert history.look_back(frames[4], 4 / RATE, 'deblur') is None
    assert history.reason == 'another task'


def test_a_cut_begins_anew(street):
    mirrored = np.ascontiguousarray(255 - street[::-1, ::-1])
    frames = drive(street, 2) + drive(mirrored, 2)
    assert look_back(History(), frames, [n / RATE for n in range(4)]) == ['first', '', 'cut', '']


@pytest.mark.parametrize('size', [(1, 1), (31, 200), (200, 31)])
def test_what_is_too_small_for_a_flow_is_a_still(restorer, street, size):
    frames = [np.ascontiguousarray(street[: size[0], : size[1]])] * 2
    history = History()
    restored = restore(restorer, frames, history=history)
    assert history.reason == 'too small'
    assert np.array_equal(restored[0], restored[1])


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (50, 141)])
def test_odd_sizes_have_a_past(restorer, street, size):
    frames = [np.ascontiguousarray(f[: size[0], : size[1]]) for f in drive(street, 2, (1.0, 0.0))]
    history = History()
    assert restore(restorer, frames, history=history)[1].shape == (*size, 3)
    assert not history.reason


def test_a_frame_that_was_dropped_is_the_one_before(street):
    first, dropped, frame = drive(street, 3)
    history = History()
    history.look_back(first, 5.0, 'derain')
    history.keep(first, 5.0)
    history.miss(5.1, lambda: dropped)
    assert history.look_back(frame, 5.2, 'derain').pixels is dropped


def test_a_dropped_frame_that_cannot_be_opened_is_no_frame_before(street):
    first, frame = drive(street, 2)
    history = History()
    history.look_back(first, 5.0, 'derain')
    history.keep(first, 5.0)
    history.miss(5.1, lambda: None)
    assert history.look_back(frame, 5.2, 'derain') is None
    assert history.reason == 'unreadable'


def test_the_memory_of_a_camera_is_bounded(street):
    """One restored frame and one that was dropped, whatever comes."""
    alive = set()

    class Counted(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    history = History()
    for number, frame in enumerate(drive(street, 12)):
        counted = frame.view(Counted)
        alive.add(id(counted))
        if number % 3:
            history.miss(number / RATE, lambda kept=counted: kept)
        else:
            history.look_back(frame, number / RATE, 'derain')
            history.keep(counted, number / RATE)
        del counted
    assert len(alive) <= 3  # and the one at hand


# What is known of the motion


@pytest.mark.parametrize('step', [(6.0, 0.0), (-3.0, 4.0)])
def test_the_flow_is_the_motion_of_the_camera(street, step):
    before, now = drive(street, 2, step)
    flow = find_flow(flow_picture(now, False), flow_picture(before, False), *SIZE)
    middle = np.s_[8:-8, 8:-8]
    assert np.allclose(np.median(flow.displacement[middle].reshape(-1, 2), 0), step, atol=0.3)
    assert np.median(flow.trust[middle][..., 1]) > 0.5


def middle_of(flow):
    """Return the flow in the middle of the picture, x and y."""
    return np.median(flow.displacement[8:-8, 8:-8].reshape(-1, 2), 0)


def test_blur_is_followed_between_the_frames_as_they_came(street):
    """Whatever the one before came out like; those that went missing are followed as well."""
    frames = drive(street, 3, (6.0, 0.0))
    history = History()
    history.look_back(frames[0], 0.0, 'deblur')
    history.keep(np.full_like(frames[0], 128), 0.0)
    known = history.look_back(frames[1], 1 / RATE, 'deblur')
    assert (known.pixels == 128).all()
    agreement, likeness = np.median(known.flow.trust[8:-8, 8:-8, 1:].reshape(-1, 2), 0)
    assert agreement > 0.5 > likeness, 'it is not like what came out'
    assert np.allclose(middle_of(known.flow), (6, 0), atol=0.3)
    history.miss(1.5 / RATE, lambda: frames[1])
    known = history.look_back(frames[2], 2 / RATE, 'deblur')
    assert (known.pixels == frames[1]).all()
    assert np.allclose(middle_of(known.flow), (6, 0), atol=0.3)


def test_a_flow_that_leaves_the_picture_is_known_as_such(street):
    before, now = drive(street, 2, (24.0, 0.0))
    inside = find_flow(flow_picture(now, False), flow_picture(before, False), *SIZE).trust[..., 0]
    assert inside[:, -4:].mean() < 0.2
    assert inside[:, :-10].mean() > 0.95


def test_the_frame_before_is_moved_onto_the_frame(street):
    before, now = drive(street, 2, (7.0, 2.0))
    history = History()
    restore_first = history.look_back(before, 0.0, 'derain')
    history.keep(before, 0.0)
    moved = make_evidence(now, history.look_back(now, 1 / RATE, 'derain')).before
    assert restore_first is None
    inner = np.s_[12:-12, 12:-12]
    assert psnr(moved[inner], now[inner]) > psnr(before[inner], now[inner]) + 8


@pytest.mark.parametrize(('task', 'share'), [('derain', 0.0), ('deblur', 0.25)])
def test_a_deblurred_frame_before_holds_a_quarter_of_what_was_received(street, task, share):
    history = History()
    for number in range(2):
        before = history.look_back(street, number / RATE, task)
        history.keep(street, number / RATE, np.full_like(street, 200))
    assert np.abs(before.pixels - (street + share * (200.0 - street))).max() <= 0.5


def shutter_of(before):
    """Return the share of the way that the picture moved while the shutter was open, if known."""
    middle = np.s_[8:-8, 8:-8]
    moved, way = before.blurring.motion[middle], before.flow.displacement[middle]
    return np.median(moved[..., 0] / way[..., 0]), before.blurring.told == (1, 0)


def test_the_shutter_counts_for_one_frame_time_also_across_a_missing_frame(street):
    frames = drive(street, 8)
    history = History(shutter=0.5)
    for number, frame in enumerate(frames[:6]):
        before = history.look_back(frame, number / RATE, 'deblur')
        history.keep(frame, number / RATE)
    assert shutter_of(before) == (pytest.approx(0.5, abs=0.01), True)
    before = history.look_back(frames[7], 7 / RATE, 'deblur')  # two frame times after the sixth
    assert shutter_of(before) == (pytest.approx(0.25, abs=0.01), True)
    assert History().look_back(frames[0], 0.0, 'derain') is None


def test_what_gets_faster_is_blurred_by_its_speed_at_the_frame(street):
    """The flow tells how fast it was half a frame time before; also across a missing frame."""
    history = History(shutter=1.0)
    speeds = {1: 3.5, 2: 6.5, 4: 10.5}  # of the second frame only the mean on the way is known
    for time in (0, *speeds):
        [frame] = drive(street, 1, start=(60 + 2.5 * time + time**2, 60.0))
        before = history.look_back(frame, time / RATE, 'deblur')
        history.keep(frame, time / RATE)
        if before is not None:
            moved = np.median(before.blurring.motion[8:-8, 8:-8, 0])
            assert moved == pytest.approx(speeds[time], abs=0.35)


@pytest.mark.parametrize('share', [0.4, 0.8])
def test_the_shutter_is_found_in_blurred_video(street, share):
    """A camera that pans over the photograph; every frame is the mean of what it passed."""
    large = cv2.resize(street, None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC)
    history, size = History(), (360, 480)
    for number in range(14):
        total = np.zeros((*size, 3), np.float64)
        for part in np.linspace(-share / 2, share / 2, 21):
            x, y = 60 + 20 * (number + part), 60 + 9 * (number + part)
            place = np.array([[1, 0, x], [0, 1, y]])
            total += cv2.warpAffine(
                large, place, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REFLECT,
            )
        frame = (total / 21).round().astype(np.uint8)
        before = history.look_back(frame, number / RATE, 'deblur')
        history.keep(frame, number / RATE)
    found, known = shutter_of(before)
    assert known
    assert found == pytest.approx(share, abs=0.12)


# The CPU's way and the device's


def tensor(array):
    """Return H x W x C as float32 1 x C x H x W."""
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None].float()


def blurring_of(known):
    """Return how the frame was blurred as `model.fusion.make_evidence` takes it; None for rain."""
    planes = known.planes()
    names = 'motion', 'path', 'told'
    return tuple(tensor(planes[name]) for name in names) if 'path' in planes else None


@pytest.mark.parametrize('task', SHIPPED)
def test_opencv_gathers_what_pytorch_gathers(street, task):
    before, now = drive(street, 2, (6.0, -2.0))
    history = History(shutter=0.5)
    history.look_back(before, 0.0, task)
    history.keep(before, 0.0)
    known = history.look_back(now, 1 / RATE, task)
    expected = on_device.make_evidence(
        tensor(now) / 255, tensor(before) / 255,
        tensor(known.flow.displacement), tensor(known.flow.trust),
        blurring_of(known),
    )
    gathered = make_evidence(now, known)
    assert (tensor(gathered.before) / 255 - expected.before).abs().max() < 0.03
    assert (tensor(gathered.undone) - expected.undone).abs().mean() < 2e-3
    torch.testing.assert_close(tensor(gathered.cues), expected.cues)
    assert bool(gathered.undone.any()) == (task == 'deblur')


@pytest.mark.parametrize(('task', 'shutter'), [('derain', 0.0), ('deblur', 0.0), ('deblur', 0.6)])
def test_a_sequence_is_restored_alike_both_ways(plain, street, task, shutter):
    """But for OpenCV, which moves pictures in steps of 1/32 of a pixel."""
    other = np.ascontiguousarray(255 - street[::-1, ::-1])
    frames = drive(street, 3, (9.0, 1.3)) + drive(other, 2, (-7.0, 2.0))  # a cut
    frames = rain(frames) if task == 'derain' else [cv2.blur(frame, (5, 1)) for frame in frames]
    generator, history = load_weights(shipped_weights('fast', task))[0], History(shutter=shutter)
    for number, frame in enumerate(frames):
        known, pixels = history.look_back(frame, number / RATE, task), tensor(frame)
        assert history.reason == {0: 'first', 3: 'cut'}.get(number, '')
        [expected] = plain.restore([frame], task, [known])
        history.keep(expected, number / RATE, frame)
        evidence = known and on_device.make_evidence(
            pixels / 255, tensor(known.pixels) / 255, tensor(known.flow.displacement),
            tensor(known.flow.trust), blurring_of(known),
        )
        with torch.inference_mode():
            restored = restore_pixels(pixels, generator, evidence)[0][0].numpy()
        assert (np.abs(restored.astype(int) - expected) <= 1).mean() > 0.998


def test_frames_at_an_even_rate_are_restored_as_one_by_one(restorer, street):
    blurred = [cv2.blur(frame, (5, 1)) for frame in drive(street, 4, (9.0, 1.3))]
    history = History(shutter=0.6)
    one_by_one = restore(restorer, blurred, 'deblur', history, [0.0, 0.25, 0.5, 0.75])
    assert np.array_equal(restore_sequence(restorer, blurred, 'deblur', 0.6), one_by_one)


@pytest.mark.parametrize('blurred', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_all_is_computed_where_the_frame_is(blurred, dtype):
    """On a device without values, which PyTorch refuses to mix with the CPU as it does a GPU."""
    generator = Generator('fast').to('meta', dtype)
    pixels = torch.zeros(2, 3, 60, 100, dtype=torch.uint8, device='meta')
    trust = torch.zeros(2, 3, 15, 25, device='meta')
    path = torch.zeros(2, 2 * on_device.MOMENTS, 15, 25, device='meta')
    told = torch.zeros(2, 2, 1, 1, device='meta')
    evidence = on_device.make_evidence(
        to_image(pixels), to_image(pixels), trust[:, :2], trust,
        (trust[:, :2], path, told) if blurred else None,
    )
    for known in (None, evidence):
        restored, finite = restore_pixels(pixels, generator, known)
        assert restored.is_meta and restored.shape == (2, 60, 100, 3) and finite.is_meta


def test_no_frame_before_is_what_no_evidence_is(photograph):
    torch.manual_seed(0)
    generator = Generator('fast').eval()
    generator.initialise()
    still = restore_inputs([Input(photograph)], generator, torch.device('cpu'))
    image = torch.from_numpy(photograph).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        alone = generator(image).clamp(0, 1).mul(255).round().byte()[0].permute(1, 2, 0)
    assert np.abs(still[0].astype(int) - alone.numpy()).max() <= 1  # another order of the sums


def test_frames_with_and_without_a_past_come_in_one_batch(street):
    three = Restorer(device='cpu', precision='float32', tasks=['derain'], batch=3)
    before, now, other = drive(street, 3)
    history = History()
    history.look_back(before, 0.0, 'derain')
    history.keep(before, 0.0)
    known = history.look_back(now, 1 / RATE, 'derain')
    together = three.restore([other, now, before], 'derain', [None, known, None])
    alone = [
        three.restore([frame], 'derain', [one])[0]
        for frame, one in ((other, None), (now, known), (before, None))
    ]
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1  # another order of the sums


# What it is good for, with the shipped weights


def test_the_past_helps_in_rain(restorer, street):
    sharp = drive(street, 6)
    wet = rain(sharp)
    with_past, alone = (restore(restorer, wet, history=history) for history in (None, False))
    assert mean_psnr(with_past[2:], sharp[2:]) > mean_psnr(alone[2:], sharp[2:])


def test_what_has_no_black_stays_as_it_is_where_it_does_not_rain(restorer, street):
    hazy = drive((0.7 * street + 55).astype(np.uint8), 4)
    assert mean_psnr(restore(restorer, hazy), hazy) > 42


def worst(restorer, frames, sharp, history=None, stamps=None, task='derain', first=0):
    """Return by how much (dB) a frame is at most worse than without frames before."""
    followed = restore(restorer, frames, task, history, stamps)
    stills = restore(restorer, frames, task, False)
    return max(
        psnr(still, truth) - psnr(restored, truth)
        for restored, still, truth in list(zip(followed, stills, sharp, strict=True))[first:]
    )


def test_a_cut_is_not_worse_than_a_still(restorer, street):
    for other in (255 - street[::-1, ::-1], street[:, ::-1]):
        sharp = drive(street, 3) + drive(np.ascontiguousarray(other), 3)
        assert worst(restorer, rain(sharp), sharp) < 0.2


def test_an_object_that_moves_over_a_still_scene_is_not_worse(restorer, street):
    [scene] = drive(street, 1)
    sharp = []
    for number in range(5):
        frame = scene.copy()
        left = 20 + 14 * number
        frame[50:100, left : left + 40] = 255 - street[100:150, 200:240]
        sharp.append(frame)
    assert worst(restorer, rain(sharp), sharp) < 0.2


def test_a_wrong_flow_is_not_worse_than_a_still(restorer, street, monkeypatch):
    """Both flows are eight pixels off, and agree."""
    def wrong(*pictures):
        there, back = search(*pictures)
        return there + np.float32(4), back - np.float32(4)

    monkeypatch.setattr('iov_restore_ros.video.flow.search', wrong)
    sharp = drive(street, 4)
    history = History()
    assert worst(restorer, rain(sharp), sharp, history) < 0.2


def test_errors_do_not_add_up_though_a_vibration_belies_the_shutter(restorer, photograph):
    """Twice in a frame's time, so no flow between frames knows of it: the blur is another one."""
    path = CameraPath(
        velocity=np.array([9.0, 2.0]), acceleration=np.zeros(2), focus=np.zeros(2),
        shake=np.array([[0.6, 0.9], [0.3, 0.4]]), phase=np.array([[0.5, 2.0], [1.0, 4.0]]),
    )
    scene = MovingScene(photograph, 160, path, (183, 125))
    times = np.arange(16) - 7.5
    sharp = [scene.frame(time).clip(0, 255).round().astype(np.uint8) for time in times]
    blurred = [scene.exposure(time, 0.7, True).clip(0, 255).astype(np.uint8) for time in times]
    told = restore(restorer, blurred, 'deblur', History(shutter=0.7))
    alone = restore(restorer, blurred, 'deblur', False)
    assert mean_psnr(told[8:], sharp[8:]) > mean_psnr(alone[8:], sharp[8:]) - 0.2


def test_a_road_that_comes_nearer_does_not_get_darker(restorer):
    """Fine gravel, too fast for a flow: what is darker of two frames would be taken each time."""
    sharp = [road(metres) for metres in 0.35 * np.arange(16)]
    rng = torch.Generator().manual_seed(4)
    wet = to_pictures(shower(to_tensor(np.stack(sharp)).float() / 255, 1.0, rng))
    restored, alone = (restore(restorer, wet, history=history)[10:] for history in (None, False))
    assert mean_psnr(restored, sharp[10:]) > mean_psnr(alone, sharp[10:]) - 0.2
    assert np.mean(restored) > np.mean(sharp[10:]) - 2


def road(metres):
    """Return what a camera sees of a gravel road after so many metres, under a grey sky."""
    height, width, horizon = 200, 320, 60
    gravel = cv2.GaussianBlur(photographs.gravel().astype(np.float32), (0, 0), 1)
    x, y = np.meshgrid(np.arange(width) - width / 2, np.arange(height) - horizon)
    away = 90 / np.maximum(y, 1)  # metres
    places = np.stack([x * away / 200, away + metres], -1) * 120 % (len(gravel) - 2)
    seen = cv2.remap(gravel, places.astype(np.float32), None, cv2.INTER_LINEAR)
    seen = np.where(y < 0, 170, 90 + 0.35 * (seen - gravel.mean()))
    return np.repeat(seen.clip(0, 255).astype(np.uint8)[..., None], 3, -1)


@pytest.mark.parametrize('task', SHIPPED)
@pytest.mark.parametrize('what', ['still', 'noise', 'cuts'])
def test_a_long_run_does_not_drift(restorer, street, task, what):
    """How far a frame is from itself restored alone does not grow."""
    small = np.ascontiguousarray(street[:64, :96])
    noise = np.random.default_rng(0).integers(0, 256, (7, *small.shape), np.uint8)
    scenes = [small, np.ascontiguousarray(255 - small[::-1])]
    frames = {
        'still': lambda n: small, 'noise': lambda n: noise[n % 7],
        'cuts': lambda n: scenes[n // 10 % 2],
    }[what]
    history, early, late = History(), [], []
    for number in range(120):
        frame = frames(number)
        restored = restore_next(restorer, history, frame, number / RATE, task)
        for distances, window in (early, range(10, 30)), (late, range(100, 120)):
            if number in window:
                [alone] = restorer.restore([frame], task)
                distances.append(np.abs(restored.astype(float) - alone).mean())
    assert np.mean(late) < 1.1 * np.mean(early) + 0.2
