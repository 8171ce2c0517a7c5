"""The veil of fog and far rain: found in the whole frame, taken off, and left where it is not."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from pictures import RATE
from safetensors import safe_open
from safetensors.torch import save_file
from skimage import data as photographs

from iov_restore_ros.evaluation.metrics import psnr
from iov_restore_ros.inference import History, Restorer, restore_next, restore_sequence
from iov_restore_ros.model import WeightsError, finder_weights, load_veil
from iov_restore_ros.model.veil import PLANES
from iov_restore_ros.pictures.thumbnail import COLUMNS, ROWS, describe, shrink, unveil
from iov_restore_ros.pictures.veils import Veils, find_veil_sources
from iov_restore_ros.training import veil as training
from iov_restore_ros.training.finder import read_config
from iov_restore_ros.video.clear import Clearer
from iov_restore_ros.video.veil import Unveiler

LIGHT = np.array([0.78, 0.8, 0.83], np.float32)
CLEAN = 'astronaut', 'chelsea', 'coffee', 'rocket'


@pytest.fixture(scope='module')
def unveiler():
    return Unveiler(load_veil())


@pytest.fixture(scope='module')
def restorer():
    return Restorer(device='cpu', precision='float32', find=['veil'])


@pytest.fixture(scope='module')
def scene():
    return cv2.resize(photographs.coffee(), (320, 200), interpolation=cv2.INTER_AREA)


def veiled(frame, through, light=LIGHT):
    """Put a veil over ``frame``; ``through`` is a number, or rows x columns."""
    through = cv2.resize(np.full((ROWS, COLUMNS), through, np.float32), frame.shape[1::-1])
    mixed = frame / 255 * through[..., None] + light * (1 - through[..., None])
    return (255 * mixed).round().astype(np.uint8)


def distant():
    """Return a transmission that falls towards the upper border."""
    rows = np.linspace(0.35, 0.9, ROWS, dtype=np.float32)
    return np.repeat(rows[:, None], COLUMNS, 1)


# Taking it off


@pytest.mark.parametrize('size', [(200, 320), (37, 111), (1, 1)])
def test_a_veil_that_is_known_comes_off(scene, size):
    frame = np.ascontiguousarray(scene[: size[0], : size[1]])
    assert psnr(unveil(veiled(frame, distant()), distant(), LIGHT), frame) > 38


@pytest.mark.parametrize(('name', 'through'), [
    ('coffee', 0.5), ('astronaut', 0.5), ('rocket', 0.5), ('coffee', distant()),
])
def test_a_veil_that_is_found_comes_off(unveiler, name, through):
    frame = getattr(photographs, name)()
    hidden = veiled(frame, through)
    assert psnr(unveiler.clear(hidden), frame) > psnr(hidden, frame) + 3


@pytest.mark.parametrize('name', CLEAN)
def test_what_has_no_veil_stays_as_it_is(unveiler, restorer, name):
    frame = getattr(photographs, name)()
    assert unveiler.clear(frame) is frame
    plain = Restorer(device='cpu', precision='float32', find=[])
    small = cv2.resize(frame, (160, 96), interpolation=cv2.INTER_AREA)
    both = (r.restore([small], 'derain')[0] for r in (restorer, plain))
    assert np.array_equal(*both)


def test_what_is_seen_of_a_frame_has_the_planes_that_the_network_wants(scene):
    assert describe(shrink(scene)).shape == (PLANES, ROWS, COLUMNS)


# A camera's past


def test_it_does_not_pump(unveiler, scene):
    rng = np.random.default_rng(1)
    memory, alone, shares = None, [], []
    for number in range(40):
        noisy = veiled(scene, rng.uniform(0.45, 0.55)) + rng.normal(0, 2, scene.shape)
        frame = noisy.clip(0, 255).astype(np.uint8)
        _, memory = unveiler.follow(frame, number / RATE, memory)
        shares.append(memory.through().mean())
        alone.append(unveiler.follow(frame, 0.0, None)[1].through().mean())
    assert np.abs(np.diff(shares)).max() < 0.2 * np.abs(np.diff(alone)).max()
    assert min(alone) < np.mean(shares) < max(alone)


def test_a_veil_comes_and_goes_step_by_step(unveiler, scene):
    course = [scene] * 5 + [veiled(scene, 0.4)] * 90 + [scene] * 90
    memory, shares = None, []
    for number, frame in enumerate(course):
        _, memory = unveiler.follow(frame, number / RATE, memory)
        shares.append(float(memory.through().mean()))
    assert shares[4] == 1
    assert shares[94] < 0.6
    assert shares[-1] == 1
    assert np.abs(np.diff(shares)).max() < 0.15


def test_a_restored_frame_is_not_unveiled_twice(restorer, scene):
    frames = [veiled(scene, 0.5)] * 6
    restored = restore_sequence(restorer, frames, 'derain')
    [still] = restorer.restore(frames[:1], 'derain')
    assert np.array_equal(restored[0], still)
    for frame in restored:
        assert abs(frame.mean() - still.mean()) < 3
        assert psnr(frame, scene) > psnr(frames[0], scene) + 3


@pytest.mark.parametrize('change', ['cut', 'gap', 'time jump', 'another size', 'another task'])
def test_it_is_forgotten_with_the_past(unveiler, scene, change):
    other = veiled(np.ascontiguousarray(photographs.rocket()[:200, :320]), 0.8)
    history, stamp, last = History(), 5.0, veiled(scene, 0.4)
    for number in range(3):
        history.look_back(last, stamp + number / RATE, 'derain', Clearer(unveiler, None))
        history.keep(scene, stamp + number / RATE)
    after = {'cut': other, 'another size': np.ascontiguousarray(other[:100])}.get(change, other)
    when = {'gap': stamp + 9, 'time jump': 1.0}.get(change, stamp + 3 / RATE)
    if change == 'another task':
        history.look_back(after, when, 'deblur', Clearer(unveiler, None))
        history.keep(after, when)
        when += 1 / RATE
    known = history.look_back(after, when, 'derain', Clearer(unveiler, None))
    assert history.reason == change
    assert np.array_equal(known.clear, unveiler.clear(after))


def test_a_frame_that_was_dropped_is_unveiled_too(unveiler, scene):
    history, hidden = History(), veiled(scene, 0.5)
    history.look_back(hidden, 5.0, 'derain', Clearer(unveiler, None))
    history.keep(scene, 5.0)
    history.miss(5.1, lambda: hidden)
    known = history.look_back(hidden, 5.2, 'derain', Clearer(unveiler, None))
    assert psnr(known.pixels, scene) > psnr(hidden, scene) + 3


# Where it is not wanted


def test_deblurring_does_not_know_it(restorer, unveiler, scene):
    frames = [veiled(scene, 0.5)] * 2
    plain = Restorer(device='cpu', precision='float32', find=[])
    both = (restore_sequence(r, frames, 'deblur') for r in (restorer, plain))
    assert np.array_equal(*both)
    history = History()
    history.look_back(frames[0], 0.0, 'deblur', Clearer(unveiler, None))
    history.keep(frames[0], 0.0)
    assert history.look_back(frames[1], 1 / RATE, 'deblur', Clearer(unveiler, None)).clear is None
    assert np.isnan(history.transmission())


def test_it_can_be_switched_off(restorer, scene):
    plain = Restorer(device='cpu', precision='float32', find=[])
    assert 'veil' in restorer.weights
    assert 'veil' not in plain.weights
    hidden = veiled(scene, 0.5)
    [left], [restored] = (r.restore([hidden], 'derain') for r in (plain, restorer))
    assert abs(left.mean() - hidden.mean()) < abs(restored.mean() - hidden.mean())
    history = History()
    restore_next(plain, history, hidden, 0.0, 'derain')
    assert np.isnan(history.transmission())
    history = History()
    restore_next(restorer, history, hidden, 0.0, 'derain')
    assert 0.3 < history.transmission() < 0.8


# Its weights


def broken(path, change):
    with safe_open(finder_weights('veil'), framework='pt') as file:
        header, tensors = file.metadata(), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, path, header)


@pytest.mark.parametrize(('change', 'reason'), [
    (lambda header, tensors: header.update(network='other'), "network 'other', not 'veil'"),
    (lambda header, tensors: tensors.pop('sure.bias'), r"missing \['sure.bias'\]"),
    (lambda header, tensors: tensors['sure.bias'].fill_(np.nan), 'sure.bias .* not finite'),
    (lambda header, tensors: tensors.update({'sure.bias': torch.ones(3)}), 'has shape'),
])
def test_a_file_that_is_not_good_is_named(tmp_path, change, reason):
    path = tmp_path / 'veil.safetensors'
    broken(path, change)
    with pytest.raises(WeightsError, match=f'{path}: .*{reason}'):
        Restorer(weights={'veil': path}, device='cpu', precision='float32')


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r'nowhere\.safetensors: there is no such weight file'):
        load_veil(tmp_path / 'nowhere.safetensors')
    (tmp_path / 'text').write_text('text')
    with pytest.raises(WeightsError, match='not a readable safetensors file'):
        load_veil(tmp_path / 'text')


def test_pictures_to_learn_from_are_functions_of_their_numbers(pictures):
    one, other = (Veils(find_veil_sources(pictures, None, None, 0.1, 0.0), 9, 4) for _ in range(2))
    other[8]
    for number in range(8):
        picture = one[number]
        assert all(map(np.array_equal, picture, other[number]))
        assert picture.veiled == (picture.through.min() < 1)


def test_it_is_trained_by_its_command(tmp_path, pictures):
    depth = tmp_path / 'depth'
    for name in ('picture', 'depth'):
        shutil.copytree(pictures, depth / name)
    path = training.run(read_config(training.VeilConfig, [
        'config/train/veil.yaml', f'data.root={pictures}', f'data.depth={depth}', 'steps=2',
        'batch=2', f'output={tmp_path / "run"}',
    ]))
    assert path == tmp_path / 'run' / 'veil.safetensors'
    load_veil(path)


def test_a_setting_that_there_is_not_is_named():
    with pytest.raises(ValueError, match='stepps'):
        read_config(training.VeilConfig, ['config/train/veil.yaml', 'data.root=x', 'stepps=2'])
