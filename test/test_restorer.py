"""The restorer with the shipped weights on real photographs."""

import numpy as np
import pytest
import torch

from iov_restore_ros.compute.int8 import int8_is_exact
from iov_restore_ros.evaluation.metrics import features_kept, psnr
from iov_restore_ros.inference import RestoreError, Restorer
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


@pytest.fixture(scope='module')
def restorer():
    return Restorer(device='cpu', precision='float32')


@pytest.mark.parametrize(('task', 'gain'), [('deblur', 0.25), ('derain', 4.0)])
def test_degraded_photographs_get_better(restorer, degraded_pair, task, gain):
    decibels, features = [], []
    for seed in range(6):
        degraded, sharp = degraded_pair(task, seed)
        [restored] = restorer.restore([degraded], task)
        decibels.append(psnr(restored, sharp) - psnr(degraded, sharp))
        features.append(features_kept(restored, sharp) - features_kept(degraded, sharp))
    assert np.mean(decibels) > gain
    assert np.mean(features) > 0


@pytest.mark.parametrize('task', SHIPPED)
def test_clean_photograph_is_left_alone(restorer, photograph, task):
    [restored] = restorer.restore([photograph], task)
    assert psnr(restored, photograph) > 38


def test_a_generator_at_hand_is_restored_with_as_its_file_is(restorer, photograph):
    generator, _ = load_weights(shipped_weights('fast', 'derain'))
    kept = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    of_it = Restorer.of({'derain': generator})
    [expected], [restored] = (r.restore([photograph], 'derain') for r in (restorer, of_it))
    assert np.array_equal(expected, restored)
    assert (of_it.model, of_it.precision, of_it.uses_past) == ('fast', 'float32', True)
    with pytest.raises(ValueError, match='unknown task'):
        of_it.restore([photograph], 'deblur')
    of_it.close()
    for name, tensor in generator.state_dict().items():
        assert tensor.is_contiguous() and torch.equal(tensor, kept[name]), 'it is as it was'


def test_mixed_sizes_come_back_in_order(restorer, photograph):
    frames = [photograph[:60, :80], photograph[:33, :51], photograph[60:120, :80], photograph[:1]]
    kept = [frame.copy() for frame in frames]
    together = restorer.restore(frames, 'deblur')
    for frame, before, restored in zip(frames, kept, together, strict=True):
        assert np.array_equal(frame, before), 'the input was changed'
        assert restored.shape == frame.shape
        assert restored.dtype == np.uint8
        assert np.array_equal(restored, restorer.restore([frame], 'deblur')[0])


def test_tasks_differ_and_can_alternate(restorer, photograph):
    frame = photograph[:80, :80]
    first = {task: restorer.restore([frame], task)[0] for task in SHIPPED}
    assert not np.array_equal(first['deblur'], first['derain'])
    for task in reversed(SHIPPED):
        assert np.array_equal(restorer.restore([frame], task)[0], first[task])


def test_bfloat16_is_close_to_float32(restorer, photograph):
    half = Restorer(device='cpu', precision='bfloat16')
    [exact], [rounded] = (r.restore([photograph], 'derain') for r in (restorer, half))
    off = np.abs(exact.astype(int) - rounded)
    assert (off <= 1).mean() > 0.99
    assert off.max() <= 4


@pytest.mark.parametrize('frame', [
    np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
    np.zeros((0, 4, 3), np.uint8),
])
def test_what_is_no_frame_is_refused(restorer, frame):
    good = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r'frame 1 is .* wanted is uint8'):
        restorer.restore([good, frame], 'deblur')


def test_started_frames_wait_for_their_result(restorer, photograph):
    frames = [photograph[:60, :80], photograph[:33, :51]]
    started = [restorer.start(frames, task) for task in SHIPPED]
    for task, restoring in zip(SHIPPED, started, strict=True):
        expected = restorer.restore(frames, task)
        assert all(map(np.array_equal, restoring.result(), expected))


def test_batches_on_the_cpu_are_what_is_asked_for(restorer, photograph):
    assert restorer.batch == 1
    three = Restorer(device='cpu', precision='float32', tasks=['deblur'], batch=3)
    frames = [photograph[n : n + 40, :60] for n in range(7)]
    for together, alone in zip(
        three.restore(frames, 'deblur'), restorer.restore(frames, 'deblur'), strict=True
    ):
        assert np.abs(together.astype(int) - alone).max() <= 1  # another order of the sums


def test_no_frames(restorer):
    assert restorer.restore([], 'deblur') == []


def test_unknown_task_and_precision(restorer):
    with pytest.raises(ValueError, match="unknown task 'dehaze': deblur, derain are loaded"):
        restorer.restore([], 'dehaze')
    with pytest.raises(ValueError, match="unknown precision 'int4'"):
        Restorer(precision='int4')


def test_model_without_shipped_weights_asks_for_a_file():
    with pytest.raises(WeightsError, match='give wei2021 a deblur file of yours'):
        Restorer(model='wei2021')


@pytest.mark.parametrize('precision', [
    'float32', pytest.param('int8', marks=pytest.mark.skipif(
        not int8_is_exact(), reason='this processor has no VNNI')),
])
def test_output_that_is_not_finite_is_an_error(tmp_path, photograph, precision):
    generator = Generator('fast')
    for parameter in generator.parameters():
        torch.nn.init.constant_(parameter, 1e30)
    path = tmp_path / 'huge.safetensors'
    save_weights(path, generator, WeightsInfo('fast', 'deblur'))
    restorer = Restorer('fast', {'deblur': path}, 'cpu', precision, ['deblur'])
    with pytest.raises(RestoreError, match='not finite'):
        restorer.restore([photograph], 'deblur')
