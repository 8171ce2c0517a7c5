"""The exported file in onnxruntime against PyTorch."""

import hashlib
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from iov_restore_ros.inference import History, Restorer
from iov_restore_ros.inference.pixels import make_evidence
from iov_restore_ros.model import Generator, shipped_weights
from iov_restore_ros.model.generators import ResidualBlock
from iov_restore_ros.tools import export


def test_command_exports_what_the_restorer_does(tmp_path, photograph):
    path = tmp_path / 'new' / 'derain.onnx'
    result = subprocess.run(
        [sys.executable, '-m', 'iov_restore_ros.tools.export', '--task', 'derain', '--uint8',
         '--output', str(path)],
        capture_output=True, text=True, timeout=100,
    )
    assert result.returncode == 0, result.stderr
    assert 'largest difference from PyTorch' in result.stdout
    assert list(path.parent.iterdir()) == [path]
    assert str(tmp_path).encode() not in path.read_bytes()
    session = onnxruntime.InferenceSession(path)
    export.check_replaceable(path)
    metadata = session.get_modelmeta().custom_metadata_map
    weights = shipped_weights('fast', 'derain')
    assert metadata['weights sha256'] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (metadata['model'], metadata['task']) == ('fast', 'derain')
    frames = [photograph, photograph[::-1]]
    history = History()
    for number in range(2):
        known = history.look_back(photograph, number / 30, 'derain')
        history.keep(photograph, number / 30)
    befores = [known, None]
    # The file holds the generator alone: what takes a veil or drops off comes before it.
    restorer = Restorer(device='cpu', precision='float32', tasks=['derain'], find=())
    expected = restorer.restore(frames, 'derain', befores)
    gathered = [make_evidence(*one) for one in zip(frames, befores, strict=True)]
    [restored] = session.run(None, export.inputs_of(gathered, 'uint8', True))
    assert restored.dtype == np.uint8
    off = np.abs(restored.astype(int) - np.stack(expected))
    assert off.max() <= 1
    assert (off == 0).mean() > 0.999


@pytest.mark.parametrize('made', ['the weights', 'a link to them', 'a file', 'a model'])
def test_export_replaces_nothing_but_what_it_made(tmp_path, monkeypatch, capsys, made):
    weights, path = tmp_path / 'mine.safetensors', tmp_path / 'deblur.onnx'
    weights.write_bytes(shipped_weights('fast', 'deblur').read_bytes())
    if made == 'the weights':
        path = weights
    if made == 'a link to them':
        path.symlink_to(weights)
    if made == 'a file':
        path.write_text('iov_restore')
    if made == 'a model':
        graph = onnx.helper.make_graph([], 'mine', [], [])
        onnx.save(onnx.helper.make_model(graph), path)
    before = path.read_bytes()
    line = ['export', '--task', 'deblur', '--weights', weights, '--output', path]
    monkeypatch.setattr(sys, 'argv', list(map(str, line)))
    with pytest.raises(SystemExit) as ended:
        export.main()
    assert ended.value.code == 2
    assert 'give another --output' in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize('model', ['wei2021', 'wei2021_preprint'])
def test_the_paper_s_layers_can_be_exported(model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, 'CHECKED', ((1, 45, 63), (2, 16, 8)))
    torch.manual_seed(0)
    generator = Generator(model).eval()
    generator.initialise()
    # One block for all: they are alike, and tracing the others takes most of the time.
    blocks = [n for n, layer in enumerate(generator.body) if isinstance(layer, ResidualBlock)]
    del generator.body[blocks[1] : blocks[-1] + 1]
    assert export.export(tmp_path / 'm.onnx', generator, 'float32', {}) < 1e-4
    assert (tmp_path / 'm.onnx').is_file()


def test_a_file_that_differs_is_not_left(tmp_path, monkeypatch):
    monkeypatch.setattr(export, 'CHECKED', ((1, 4, 4),))
    monkeypatch.setitem(export.TOLERANCE, 'float32', -1.0)
    generator = Generator('wei2021').eval()
    generator.body = torch.nn.Conv2d(3, 3, 1)  # the least that can be exported
    with pytest.raises(export.ExportError, match='not written, it differs from PyTorch'):
        export.export(tmp_path / 'm.onnx', generator, 'float32', {})
    assert not list(tmp_path.iterdir())
