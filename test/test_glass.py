"""What lies on the glass: found where it stays while the scene moves, and filled."""

import cv2
import numpy as np
import pytest
import torch
from pictures import RATE
from skimage import data as photographs

from iov_restore_ros.evaluation.metrics import psnr
from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.model import WeightsError, load_glass, save_finder
from iov_restore_ros.model.glass import PLANES
from iov_restore_ros.model.weights import FinderInfo
from iov_restore_ros.pictures.soiled import soil
from iov_restore_ros.training import glass as training
from iov_restore_ros.training.finder import read_config
from iov_restore_ros.training.soiled_sequences import SoiledSequences
from iov_restore_ros.video.clear import Clearer
from iov_restore_ros.video.glass import Cleaner, filled, observe, shrink

SIZE = 320, 184  # width, height
STEP = 5  # pixels a frame


@pytest.fixture(scope='module')
def cleaner():
    return Cleaner(load_glass())


@pytest.fixture(scope='module')
def road():
    """Frames of a camera that moves over a photograph, uint8 T x H x W x 3."""
    wide = cv2.resize(photographs.coffee(), (SIZE[0] + 20 * STEP, 260))[20:]
    return np.stack([
        np.ascontiguousarray(wide[: SIZE[1], n * STEP : n * STEP + SIZE[0]]) for n in range(20)
    ])


def splashed(frames, seed=1):
    """Put round drops before ``frames`` that show the scene turned over, out of focus."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]].astype(np.float32)
    cover = np.zeros(SIZE[::-1], np.float32)
    there = np.dstack([x, y])
    for _ in range(9):
        middle, radius = rng.uniform((30, 30), (290, 150)), rng.uniform(6, 14)
        inside = np.hypot(x - middle[0], y - middle[1]) < radius
        cover[inside] = 1
        there[inside] = (middle - 6 * (np.dstack([x, y]) - middle))[inside]
    cover = cv2.GaussianBlur(cover, (0, 0), 1.5)[..., None]
    seen = [
        cv2.GaussianBlur(cv2.remap(
            frame, there.astype(np.float32), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        ), (0, 0), 1.5) for frame in frames
    ]
    mixed = [s * cover + frame * (1 - cover) for s, frame in zip(seen, frames, strict=True)]
    return [m.round().astype(np.uint8) for m in mixed], cover[..., 0]


def follow(clearer, frames, history=None):
    """Return what is made of ``frames``, as if a perfect generator followed."""
    history = history or History()
    cleared = []
    for number, frame in enumerate(frames):
        known = history.look_back(frame, number / RATE, 'derain', clearer)
        cleared.append(known.clear)
        history.keep(known.clear, number / RATE)
    return cleared


# Finding and filling


def test_drops_come_off_while_the_scene_moves(cleaner, road):
    frames, _ = splashed(road)
    cleared = follow(Clearer(None, cleaner), frames)
    before, after = (
        np.mean([psnr(c, sharp) for c, sharp in zip(made[8:], road[8:], strict=True)])
        for made in (frames, cleared)
    )
    assert after > before + 2


def test_a_clean_glass_stays_as_it_is(cleaner, road):
    cleared = follow(Clearer(None, cleaner), road)
    assert np.mean([psnr(c, sharp) for c, sharp in zip(cleared, road, strict=True)]) > 45


def test_what_is_filled_is_what_was_seen_before(cleaner, road):
    frames, cover = splashed(road)
    shape = shrink(frames[0])[::2, ::2].shape[:2]
    cells = (cv2.resize(cover, shape[::-1], interpolation=cv2.INTER_AREA) > 0.1).astype(np.float32)
    history, clear = Clearer(None, Told(cleaner, cells)), None
    clear = follow(history, frames)[-1]
    around = Told(cleaner, cells).clear(frames[-1])
    assert psnr(clear, road[-1]) > psnr(around, road[-1]) + 1.5
    assert psnr(around, road[-1]) > psnr(frames[-1], road[-1]) + 3
    far = cv2.resize(cv2.dilate(cells, np.ones((9, 9))), SIZE) == 0
    assert np.array_equal(clear[far], frames[-1][far])


def test_a_frame_that_nobody_cleaned_fills_nothing(cleaner, road):
    """One that was dropped still has its drops: they would be pasted where they are now."""
    frames, cover = splashed(road)
    shape = shrink(frames[0])[::2, ::2].shape[:2]
    cells = (cv2.resize(cover, shape[::-1], interpolation=cv2.INTER_AREA) > 0.1).astype(np.float32)
    told, history = Told(cleaner, cells), History()
    follow(Clearer(None, told), frames[:5], history)
    history.miss(5 / RATE, lambda: frames[5])
    known = history.look_back(frames[6], 6 / RATE, 'derain', Clearer(None, told))
    assert np.array_equal(known.pixels, frames[5])
    assert np.array_equal(known.clear, told.clear(frames[6]))


class Told(Cleaner):
    """One that knows what is covered."""

    def __init__(self, cleaner, cover):
        self._glass, self.cover = cleaner._glass, cover

    def find(self, frame, before, memory):
        found = super().find(frame, before, memory)
        return found._replace(memory=found.memory._replace(cover=self.cover))


class Says(torch.nn.Module):
    """A network that finds what it was told."""

    def __init__(self, share):
        super().__init__()
        self.logits = torch.logit(torch.from_numpy(share)[None], eps=1e-6)

    def forward(self, planes):
        return self.logits


def test_a_doubtful_find_counts_on_a_soiled_glass_only(road):
    """One drop is cleaned either way; where there are many, there are more."""
    share = np.zeros((SIZE[1] // 2, SIZE[0] // 2), np.float32)
    share[20:25, 60:65] = 1
    share[40:48, 70:78] = 0.5
    few = follow(Clearer(None, Cleaner(Says(share))), road[:3])[-1]
    share[60:90, 120:150] = 1
    many = follow(Clearer(None, Cleaner(Says(share))), road[:3])[-1]
    drop, doubtful = np.s_[40:50, 120:130], np.s_[80:96, 140:156]
    assert not np.array_equal(few[drop], road[2][drop])
    assert np.array_equal(few[doubtful], road[2][doubtful])
    assert not np.array_equal(many[doubtful], road[2][doubtful])


@pytest.mark.parametrize('size', [(33, 70), (100, 50), (720, 1280)])
def test_frames_of_any_size(cleaner, size):
    frames = [cv2.resize(photographs.rocket(), size[::-1])] * 3
    for frame in follow(Clearer(None, cleaner), frames):
        assert frame.shape == frames[0].shape


def test_values_are_filled_from_around():
    values = np.full((21, 30, 2), 3.0, np.float32)
    known = np.ones((21, 30), np.float32)
    values[5:12, 5:20], known[5:12, 5:20] = 100, 0
    assert np.abs(filled(values, known) - 3).max() < 0.01
    assert not filled(values, np.zeros_like(known)).any()


# The memory


def test_what_stays_is_told_from_what_moves(road):
    frames, cover = splashed(road)
    memory = None
    for frame in frames:
        planes, memory = observe(frame, None, memory)
    assert planes.shape == (PLANES, *memory.grey.shape)
    change = memory.averages[..., 1]
    where = cv2.resize(cover, change.shape[::-1], interpolation=cv2.INTER_AREA)
    assert change[where < 0.01].mean() > 1.5 * change[where > 0.9].mean()


def test_it_is_frozen_while_the_vehicle_stands(road):
    memory = None
    for frame in road[:6]:
        _, memory = observe(frame, None, memory)
    rng = np.random.default_rng(1)
    still = memory
    for _ in range(9):
        noisy = (road[5] + rng.normal(0, 1, road[5].shape)).clip(0, 255).astype(np.uint8)
        _, still = observe(noisy, None, still)
    assert np.array_equal(memory.averages, still.averages)
    assert np.array_equal(memory.weight, still.weight)


@pytest.mark.parametrize('change', ['cut', 'gap', 'time jump', 'another size', 'another task'])
def test_it_is_forgotten_with_the_past(cleaner, road, change):
    clearer, history = Clearer(None, cleaner), History()
    frames, _ = splashed(road)
    follow(clearer, frames[:8], history)
    stamp = 8 / RATE
    other = cv2.resize(photographs.astronaut(), SIZE)
    after = {'cut': other, 'another size': np.ascontiguousarray(frames[8][:100])}.get(
        change, frames[8]
    )
    when = {'gap': stamp + 9, 'time jump': -5.0}.get(change, stamp)
    if change == 'another task':
        history.look_back(after, when, 'deblur', clearer)
        history.keep(after, when)
        when += 1 / RATE
    known = history.look_back(after, when, 'derain', clearer)
    assert history.reason == change
    assert np.array_equal(known.clear, cleaner.clear(after))


def test_a_late_frame_changes_no_memory(cleaner, road):
    clearer, history = Clearer(None, cleaner), History()
    follow(clearer, road[:5], history)
    history.look_back(np.ascontiguousarray(road[2][:90]), 2 / RATE, 'derain', clearer)
    assert history.reason == 'not newer'
    again = History()
    follow(clearer, road[:5], again)
    both = (
        h.look_back(road[5], 5 / RATE, 'derain', clearer).clear for h in (history, again)
    )
    assert np.array_equal(*both)


def test_how_much_is_covered_is_told(cleaner, road):
    history = History()
    assert np.isnan(history.covered())
    follow(Clearer(None, cleaner), splashed(road)[0], history)
    assert 0.01 < history.covered() < 0.5


def test_it_can_be_switched_off(road):
    plain = Restorer(device='cpu', precision='float32', find=['veil'])
    assert 'glass' not in plain.weights
    history = History()
    restore_next(plain, history, road[0], 0.0, 'derain')
    assert np.isnan(history.covered())


# Its weights and its training


def test_another_network_s_file_is_named(tmp_path):
    path = tmp_path / 'glass.safetensors'
    save_finder(path, load_glass(), FinderInfo('veil'))
    with pytest.raises(WeightsError, match=f"{path}: the header names network 'veil', not 'glass'"):
        Restorer(weights={'glass': path}, device='cpu', precision='float32')


def test_what_is_drawn_on_the_glass_is_where_it_says(road):
    for seed in range(8):
        soiled = soil(road[:6], np.random.default_rng(seed))
        same = soiled.received == soiled.clean
        assert same[soiled.cover == 0].all()
        assert soiled.received.shape == road[:6].shape


def test_moments_are_functions_of_their_numbers(road):
    stills = type('Stills', (), {'sources': [0], '__getitem__': lambda _, n: photographs.coffee()})
    one, other = (SoiledSequences(stills(), [road], 0.5, 2, seed=3) for _ in range(2))
    other.sequence(4)
    for a, b in zip(one.sequence(5), other.sequence(5), strict=True):
        assert all(map(np.array_equal, a, b))


def test_it_learns_what_is_covered():
    torch.manual_seed(1)
    cover = torch.zeros(2, 8, 8)
    cover[:, 2:5, 2:5] = 1
    kept, made = 0.2 * cover, torch.full_like(cover, 0.05)
    right, none, all_ = (
        training.glass_loss(logit, cover, kept, made)
        for logit in (8 * cover - 4, torch.full_like(cover, -4), torch.full_like(cover, 4))
    )
    assert right < none
    assert right < all_


def test_it_is_trained_by_its_command(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr('iov_restore_ros.training.soiled_sequences.FIRST', 1)
    path = training.run(read_config(training.GlassConfig, [
        'config/train/glass.yaml', f'data.root={pictures}', 'steps=2', 'batch=2',
        f'output={tmp_path / "run"}',
    ]))
    assert path == tmp_path / 'run' / 'glass.safetensors'
    load_glass(path)
