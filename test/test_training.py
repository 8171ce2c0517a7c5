"""The trainer, on a folder of two pictures."""

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from iov_restore_ros.model import load_weights
from iov_restore_ros.training.data import DataError, SharpCrops, list_pairs
from iov_restore_ros.training.metrics import features_kept, luma, psnr, ssim
from iov_restore_ros.training.train import Trainer, read_config, run


@pytest.fixture(scope='module')
def pictures(tmp_path_factory, photograph):
    root = tmp_path_factory.mktemp('pictures')
    for number, picture in enumerate((photograph, photograph[::-1])):
        cv2.imwrite(str(root / f'{number}.png'), picture)
    return root


@pytest.fixture
def settings(pictures, tmp_path):
    """Return the settings of a very short run."""
    return [
        'task=derain', f'data.root={pictures}', f'output={tmp_path / "run"}', 'data.crop=32',
        'batch=2', 'steps=6', 'save_every=3', 'device=cpu',
    ]


def weights(path):
    return load_weights(path, 'derain')[0].state_dict()


def test_run_writes_weights_that_load(settings, pictures):
    for name in ('input', 'gt'):
        folder = pictures.parent / 'val' / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / '0.png').write_bytes((pictures / '0.png').read_bytes())
    path = run(read_config([
        *settings, f'data.validation={pictures.parent / "val"}', 'data.description=two photographs'
    ]))
    _, info = load_weights(path, 'derain', 'fast')
    assert info.trained_on == 'two photographs'
    assert 'val' in info.metrics and 'dB' in info.metrics
    assert info.command.startswith('train')


def test_resumed_run_equals_an_uninterrupted_one(settings, tmp_path, monkeypatch):
    whole = weights(run(read_config([*settings, f'output={tmp_path / "whole"}'])))

    config = read_config([*settings, f'output={tmp_path / "parts"}'])
    train_on = Trainer.train_on

    def interrupted(trainer, crops):
        if trainer.step == 4:
            raise KeyboardInterrupt
        return train_on(trainer, crops)
    monkeypatch.setattr(Trainer, 'train_on', interrupted)
    run(config)
    assert torch.load(config.output / 'checkpoint.pt', weights_only=True)['step'] == 4
    monkeypatch.undo()
    parts = weights(run(config))
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


def test_it_learns(settings):
    config = read_config([*settings, 'steps=60', 'learning_rate=1e-3'])
    trainer = Trainer(config)
    [crops] = [torch.stack([trainer.crops().dataset[i] for i in range(4)])]
    losses = []
    for _ in range(60):
        trainer.step = 30  # the same rain each time
        losses.append(trainer.train_on(crops))
    assert losses[-1] < 0.8 * losses[0]


def test_transfer_starts_from_the_other_tasks_weights(settings):
    path = run(read_config(settings))
    trainer = Trainer(read_config([
        *settings, 'task=deblur', f'start_from={path}', f'output={path.parent / "deblur"}'
    ]))
    for name, tensor in weights(path).items():
        assert torch.equal(tensor, trainer.generator.state_dict()[name])


def test_degradations_grow_with_the_steps(settings):
    trainer = Trainer(read_config([*settings, 'steps=100', 'ramp=0.5']))
    strengths = []
    for trainer.step in (0, 25, 50, 99):
        strengths.append(trainer.ramp())
    assert strengths == pytest.approx([0.3, 0.65, 1.0, 1.0])
    assert Trainer(read_config(settings)).ramp() == 1.0


@pytest.mark.parametrize(('change', 'complaint'), [
    ('task=paint', 'choose one of deblur, derain'),
    ('steps=many', 'steps'),
    ('data.color=red', 'color'),
    ('data.root=???', 'not set: data.root'),
])
def test_wrong_settings_are_named(settings, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_config([*settings, change])


def test_missing_config_file():
    with pytest.raises(ValueError, match=r'nowhere\.yaml'):
        read_config(['nowhere.yaml'])


@pytest.mark.parametrize('name', ['fast_deblur', 'fast_derain'])
def test_shipped_configs_are_valid(name, pictures, pytestconfig):
    path = pytestconfig.rootpath / 'config' / 'train' / f'{name}.yaml'
    config = read_config([str(path), f'data.root={pictures}'])
    assert f'fast_{config.task}' == name
    assert OmegaConf.load(path).preset == 'fast'


def test_crops_are_a_function_of_seed_and_number(pictures):
    first, again = (SharpCrops(pictures, 40, 10, 7, cache_gb=gb) for gb in (1, 0))
    other = SharpCrops(pictures, 40, 10, 8, cache_gb=1)
    for number in (3, 0, 3):
        assert torch.equal(first[number], again[number])
    assert first[0].shape == (3, 40, 40) and first[0].dtype == torch.uint8
    assert not torch.equal(first[0], other[0])


def test_pictures_smaller_than_a_crop_are_mirrored(pictures):
    crop = SharpCrops(pictures, 500, 1, 1, cache_gb=1)[0]
    assert crop.shape == (3, 500, 500)
    assert (crop != 0).float().mean() > 0.9


def test_unreadable_picture_is_skipped(tmp_path, pictures, caplog):
    (tmp_path / 'bad.png').write_bytes(b'not a picture' * 10_000)
    (tmp_path / 'good.png').write_bytes((pictures / '0.png').read_bytes())
    crops = SharpCrops(tmp_path, 16, 8, 1, cache_gb=1)
    assert all(crops[i].shape == (3, 16, 16) for i in range(8))
    assert 'bad.png: not a readable image, skipped' in caplog.text


def test_wrong_folders_say_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match='nowhere: not a folder'):
        SharpCrops(tmp_path / 'nowhere', 16, 1, 1, 1)
    with pytest.raises(DataError, match=r'no image found \(looked for .*\.png'):
        SharpCrops(tmp_path, 16, 1, 1, 1)
    for name, stem in (('input', 'a'), ('gt', 'b')):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / f'{stem}.png'), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r"without partner: \['a', 'b'\]"):
        list_pairs(tmp_path)


def test_metrics(photograph):
    assert psnr(photograph, photograph) == float('inf')
    off = np.where(photograph < 128, photograph + 10, photograph - 10).astype(np.uint8)
    assert psnr(off, photograph) == pytest.approx(20 * np.log10(255 / 10))
    assert luma(np.full((1, 1, 3), 255, np.uint8)) == 235
    assert ssim(photograph, photograph) == pytest.approx(1)
    assert features_kept(photograph, photograph) > 0.95
    assert features_kept(np.zeros_like(photograph), photograph) == 0
    shifted = np.roll(photograph, 10, axis=1)
    assert features_kept(shifted, photograph) < 0.1, 'features in another place do not count'
