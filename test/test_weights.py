"""Weight files: what is written is read, and what is wrong is said."""

import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from iov_restore_ros.model import (
    Generator,
    WeightsError,
    WeightsInfo,
    load_weights,
    save_weights,
    shipped_tasks,
    shipped_weights,
)

SHIPPED = shipped_tasks('fast')


@pytest.fixture
def weight_file(tmp_path):
    path = tmp_path / 'some.safetensors'
    save_weights(path, Generator('fast'), WeightsInfo('fast', 'deblur', command='train x'))
    return path


def change(path, edit):
    """Write the file again with its tensors changed by ``edit``."""
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={'preset': 'fast', 'task': 'deblur'})


def test_round_trip(tmp_path):
    generator = Generator('fast')
    info = WeightsInfo('fast', 'derain', 'photographs', 'train a.yaml', 'abc123', '30 dB')
    save_weights(tmp_path / 'deep' / 'file.safetensors', generator, info)
    loaded, read = load_weights(tmp_path / 'deep' / 'file.safetensors', 'derain', 'fast')
    assert read == info
    assert not loaded.training
    for name, tensor in generator.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['file.safetensors']


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r'nowhere\.safetensors: there is no such'):
        load_weights(tmp_path / 'nowhere.safetensors', 'deblur')


@pytest.mark.parametrize('content', [b'', b'garbage' * 100, pickle.dumps({'a': 1})])
def test_not_safetensors(tmp_path, content):
    path = tmp_path / 'bad.safetensors'
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r'bad\.safetensors: not a readable safetensors'):
        load_weights(path, 'deblur')


def test_truncated(weight_file):
    weight_file.write_bytes(weight_file.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match='not a readable safetensors'):
        load_weights(weight_file, 'deblur')


def test_wrong_task_and_model(weight_file):
    with pytest.raises(WeightsError, match="for 'deblur', not for 'derain'"):
        load_weights(weight_file, 'derain')
    with pytest.raises(WeightsError, match="for model 'fast', not 'wei2021'"):
        load_weights(weight_file, 'deblur', 'wei2021')


def test_no_header(weight_file):
    save_file(load_file(weight_file), weight_file)
    with pytest.raises(WeightsError, match='names model None, known are wei2021'):
        load_weights(weight_file, 'deblur')


def test_missing_and_unknown_layers(weight_file):
    def rename(tensors):
        tensors['body.0.other'] = tensors.pop('body.0.weight')
    change(weight_file, rename)
    with pytest.raises(WeightsError, match=r"missing \['body.0.weight'\], unknown \['body.0.oth"):
        load_weights(weight_file, 'deblur')


def test_wrong_shape(weight_file):
    def shrink(tensors):
        tensors['body.0.bias'] = tensors['body.0.bias'][:3].clone()
    change(weight_file, shrink)
    with pytest.raises(WeightsError, match=r'body\.0\.bias has shape \(3,\).* needs \(64,\)'):
        load_weights(weight_file, 'deblur')


def test_not_finite(weight_file):
    change(weight_file, lambda tensors: tensors['body.0.bias'].fill_(float('nan')))
    with pytest.raises(WeightsError, match=r'body\.0\.bias holds values that are not finite'):
        load_weights(weight_file, 'deblur')


@pytest.mark.parametrize('task', SHIPPED)
def test_shipped_weights_say_where_they_come_from(task):
    path = shipped_weights('fast', task)
    _, info = load_weights(path, task, 'fast')
    assert info.trained_on and info.command and info.commit and info.metrics
    assert path.stat().st_size < 6e6
    assert path.with_suffix('.md').is_file(), 'a model card goes with every weight file'
