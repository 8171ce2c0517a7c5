"""Which precision is chosen."""

import time
from dataclasses import replace

import pytest
import torch

from iov_restore_ros.compute.device import fastest_precision
from iov_restore_ros.compute.precisions import PRECISIONS, candidates
from iov_restore_ros.model import Generator


class Slow(torch.nn.Module):
    """Takes its time: by precision, and longer while the machine is busy at the start."""

    def __init__(self, seconds, busy_runs):
        super().__init__()
        self.seconds, self.busy_runs = seconds, busy_runs
        self.body = torch.nn.Sequential()

    def forward(self, image):
        self.busy_runs -= 1
        half = torch.is_autocast_enabled('cpu')
        time.sleep(0.1 if self.busy_runs >= 0 else self.seconds[half])
        return image


@pytest.mark.parametrize(('seconds', 'expected'), [
    ((0.001, 0.04), 'float32'), ((0.04, 0.001), 'bfloat16'),
])
def test_the_faster_precision_also_on_a_machine_that_is_busy_at_first(seconds, expected):
    slow = Slow(seconds, busy_runs=5)
    assert fastest_precision(slow, torch.device('cpu'), training=True) == expected


def test_int8_is_tried_as_a_part_of_the_generator(monkeypatch):
    """With what comes before the body: on a processor with VNNI every node begins with this."""
    tried = []

    class Int8Body(torch.nn.Sequential):
        def forward(self, features):
            tried.append(features.shape)
            return super().forward(features)

    int8 = replace(
        PRECISIONS['int8'], works=lambda _: True, convert=lambda body: Int8Body(*body)
    )
    monkeypatch.setitem(PRECISIONS, 'int8', int8)
    generator = Generator('fast')
    own = generator.body
    assert fastest_precision(generator, torch.device('cpu'), training=True)
    assert not tried, 'no gradient passes through it'
    assert fastest_precision(generator, torch.device('cpu'))
    assert tried
    assert generator.body is own


@pytest.mark.parametrize(('kind', 'training', 'expected'), [
    ('cpu', False, {'float32', 'bfloat16', 'int8'}), ('cpu', True, {'float32', 'bfloat16'}),
    ('cuda', False, {'float32', 'float16'}), ('cuda', True, {'float32', 'bfloat16'}),
])
def test_what_is_tried_where(monkeypatch, kind, training, expected):
    monkeypatch.setitem(PRECISIONS, 'int8', replace(
        PRECISIONS['int8'], works=lambda device: device.type == 'cpu'
    ))
    assert candidates(torch.device(kind), training).keys() == expected
