"""Blur that is learnt from real blurred pictures, and a training on pictures that have it."""

import pytest
import torch
from training_runs import ALONE

from iov_restore_ros.model import WeightsError, shipped_weights
from iov_restore_ros.training.batches import Batches
from iov_restore_ros.training.config import read_config
from iov_restore_ros.training.finder import read_config as read_blur_config
from iov_restore_ros.training.learned_blur import BlurConfig, load_blur, relativistic, run
from iov_restore_ros.training.trainer import Trainer

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def blur_file(tmp_path_factory, pictures):
    """Return the weights after two steps on tiny sets."""
    return run(read_blur_config(BlurConfig, [
        'config/train/learned_blur.yaml', f'data.root={pictures}', f'data.blurred={pictures}',
        f'output={tmp_path_factory.mktemp("blur")}', 'steps=2', 'batch=1', 'rate=1e-2',
        'losses={l1: 1.0, perceptual: 0.0}',
    ]), 'train_blur')


@pytest.fixture
def settings(pictures, tmp_path, blur_file):
    return [
        'task=deblur', f'data.root={pictures}', f'output={tmp_path / "run"}', 'data.crop=32',
        'batch=4', 'stages=[{steps: 4}]', 'losses={charbonnier: 1.0}', 'device=cpu',
        'precision=float32', f'data.learned_blur={blur_file}', 'data.learned_share=1.0',
        'data.light=0',
    ]


def test_other_noise_makes_another_blur(blur_file):
    blur = load_blur(blur_file)
    sharp, noise = torch.rand(1, 3, 32, 40), torch.randn(2, 1, 32, 40)
    one, same, other = (blur(sharp, noise[[index]]) for index in (0, 0, 1))
    assert one.shape == sharp.shape and torch.equal(one, same)
    assert not torch.allclose(one, other, atol=1e-4) and not torch.allclose(one, sharp, atol=1e-4)


def test_each_side_of_the_game_lowers_what_the_other_raises():
    real, made = torch.tensor([2.0, 3.0]), torch.tensor([-1.0, 0.0])
    assert relativistic(real, made) < 0.2 < 3 < relativistic(made, real)
    assert relativistic(real, real) == pytest.approx(1.4, abs=0.3)


def test_other_weights_are_no_blur():
    with pytest.raises(WeightsError, match="names network None, not 'blur'"):
        load_blur(shipped_weights('fast', 'deblur'))


def test_pictures_get_learnt_blur_and_clean_ones_stay(settings):
    pictures = {}
    for clean in (0, 1):
        batches = Batches(read_config([*settings, f'data.clean={clean}']), CPU)
        [batch] = batches.read([0])
        pictures[clean] = batches.degrade(batch, 0)
    degraded, target = pictures[0]
    assert degraded.shape == target.shape == (4, 3, 32, 32)
    given = [*settings, 'data.clean=0', 'data.learned_share=0']
    computed, _ = Batches(read_config(given), CPU).degrade(batch, 0)
    assert (degraded != computed).flatten(1).any(1).all()
    assert torch.allclose(*pictures[1], atol=1 / 255)


def test_sequences_get_learnt_blur_and_are_trained_on(settings):
    settings = [*settings, 'data.frames=2', 'data.clean=0', 'batch=2', 'data.shaken=1']
    trainer = Trainer(read_config(settings), ALONE)
    [batch] = trainer.batches.read([0])
    unroll = trainer.batches.unroll(batch, 0)
    assert not torch.equal(unroll.received, batch[0])
    assert not any(unroll.gyroscopes) and (unroll.told[:, 1] == 0).all(), 'no shutter is known'
    assert trainer.take_step([batch])['loss'] > 0
    clean = Trainer(read_config([*settings, 'data.clean=1']), ALONE).batches
    [batch] = clean.read([0])
    assert torch.equal(clean.unroll(batch, 0).received, batch[0])


def test_blur_is_learnt_for_deblurring_only(settings):
    with pytest.raises(ValueError, match='is for task=deblur'):
        read_config([*settings, 'task=derain'])
