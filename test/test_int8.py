"""Residual blocks in 8-bit integers give what they give in float32."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iov_restore_ros.compute.int8 import Int8ResidualBlock, int8_is_exact, quantise
from iov_restore_ros.inference import Restorer
from iov_restore_ros.model import Generator, WeightsInfo, save_weights
from iov_restore_ros.model.generators import ResidualBlock
from iov_restore_ros.tasks import TASKS

vnni = pytest.mark.skipif(not int8_is_exact(), reason='this processor has no VNNI')


@pytest.fixture(scope='module')
def restorers():
    return [Restorer(device='cpu', precision=precision) for precision in ('float32', 'int8')]


@vnni
@pytest.mark.parametrize('task', TASKS)
def test_pictures_are_those_of_float32(restorers, degraded_pair, task):
    for seed in range(3):
        degraded, _ = degraded_pair(task, seed)
        [exact], [rounded] = (r.restore([degraded], task) for r in restorers)
        off = np.abs(exact.astype(int) - rounded)
        assert off.mean() < 0.6
        assert (off <= 2).mean() > 0.99
        assert off.max() <= 12


@vnni
@pytest.mark.parametrize('frame', [
    np.zeros((50, 70, 3), np.uint8),
    np.full((50, 70, 3), 255, np.uint8),
    np.kron(np.indices((25, 35)).sum(0) % 2, np.ones((2, 2)))[..., None].repeat(3, 2)
    .astype(np.uint8) * 255,  # more contrast than in any picture
], ids=['black', 'white', 'checkerboard'])
def test_extremes_are_not_clipped(restorers, frame):
    [exact], [rounded] = (r.restore([frame], 'derain') for r in restorers)
    assert np.abs(exact.astype(int) - rounded).max() <= 12


@vnni
def test_wei2021_too(tmp_path, photograph):
    torch.manual_seed(0)
    generator = Generator('wei2021')
    generator.initialise()
    path = tmp_path / 'wei2021.safetensors'
    save_weights(path, generator, WeightsInfo('wei2021', 'deblur'))
    exact, rounded = (
        Restorer('wei2021', {'deblur': path}, 'cpu', precision, ['deblur'])
        .restore([photograph[:64, :64]], 'deblur')[0] for precision in ('float32', 'int8')
    )
    assert not np.array_equal(exact, photograph[:64, :64])
    assert np.abs(exact.astype(int) - rounded).max() <= 1


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
def test_quantised_values_are_at_most_half_a_step_off(values):
    x = torch.tensor(values).view(1, 1, 1, -1)
    steps, scale, zero = quantise(x)
    assert steps.dtype == torch.uint8
    assert 0 <= zero <= 255
    back = scale * (steps.double() - zero)
    assert float((back - x).abs().max()) <= 0.5001 * scale * (x != 0).any()


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_does_not_stop_quantising(value):
    _, scale, _ = quantise(torch.tensor([1.0, value]).view(1, 1, 1, 2))
    assert math.isnan(scale)


@vnni
def test_what_overflows_inside_a_block_is_not_hidden():
    block = ResidualBlock(16, dropout=0.0).eval()
    for number in (0, 3):
        torch.nn.init.constant_(block.layers[number].weight, 1e30)
    x = torch.rand(1, 16, 8, 8).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert not Int8ResidualBlock(block)(x).isfinite().any()


@pytest.mark.parametrize('value', [1e-45, 1e-38, -1e-31])
def test_the_smallest_values_count_as_nothing(value):
    steps, scale, zero = quantise(torch.full((1, 1, 1, 2), value))
    assert not steps.any()
    assert (scale, zero) == (1.0, 0)


@vnni
def test_a_processor_that_would_add_up_wrong_is_found_out():
    script = 'from iov_restore_ros.compute.int8 import int8_is_exact; print(int8_is_exact())'
    result = subprocess.run(
        [sys.executable, '-c', script], stdout=subprocess.PIPE, text=True, check=True,
        env=os.environ | {'ONEDNN_MAX_CPU_ISA': 'AVX512_CORE'},  # without VNNI
    )
    assert result.stdout == 'False\n'


def test_without_vnni_it_is_refused(monkeypatch):
    monkeypatch.setattr('iov_restore_ros.compute.precisions.int8_is_exact', lambda: False)
    with pytest.raises(ValueError, match='int8 needs device cpu, and a processor with VNNI'):
        Restorer(device='cpu', precision='int8')
