"""Weight files: what is written is read, and what is wrong is said."""

import pickle
import subprocess
import sys
from dataclasses import replace

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
from iov_restore_ros.training.origin import command_text

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
    info = WeightsInfo(
        'fast', 'derain', 'photographs', 'train a.yaml', 'abc123', '30 dB', '{"batch": 2}',
        '10 of 20', '1.50', 'a CPU',
    )
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


def printed(*files):
    return subprocess.run(
        [sys.executable, '-m', 'iov_restore_ros', 'weights', *files], capture_output=True, text=True
    )


def test_the_command_prints_what_files_say_of_themselves(tmp_path, weight_file):
    """Those without settings are printed, too: so were files written before these were noted."""
    path = tmp_path / 'told.safetensors'
    info = WeightsInfo('fast', 'derain', steps='10 of 20', hours='1.50', machine='a CPU')
    save_weights(path, Generator('fast'), replace(info, settings='{"data": {"frames": 4}}'))
    result = printed(weight_file, path)
    assert (result.returncode, result.stderr) == (0, '')
    first, second = result.stdout.split('\n\n')
    assert str(weight_file) in first and 'train x' in first and 'settings' not in first
    assert '1,301,299 in 5.2 MB' in second and '10 of 20' in second and 'a CPU' in second
    assert '    data:\n      frames: 4' in second
    shipped = printed()
    assert shipped.returncode == 0 and 'fast_deblur' in shipped.stdout and 'veil' in shipped.stdout
    (tmp_path / 'bad').write_bytes(b'nothing')
    result = printed(tmp_path / 'bad')
    assert result.returncode == 2 and 'not a readable safetensors file' in result.stderr


@pytest.mark.parametrize(('argument', 'expected'), [
    ('data.root=/a/b/sharp', 'data.root=sharp'),
    ('data.pairs=[/a/b/c,/d/e]', "'data.pairs=[c,e]'"),
    ('config/train/fast.yaml', 'config/train/fast.yaml'),
    ('../c/d', '../c/d'),
    ('losses={fft: 0.1}', "'losses={fft: 0.1}'"),
])
def test_a_noted_command_has_no_folders_of_its_machine(argument, expected):
    assert command_text('train', [argument]) == f'train {expected}'
