"""Which precision is chosen."""

import time

import pytest
import torch

from iov_restore_ros.model.device import fastest_precision


class Generator(torch.nn.Module):
    """Takes its time: by precision, and longer while the machine is busy at the start."""

    def __init__(self, seconds, busy_runs):
        super().__init__()
        self.seconds, self.busy_runs = seconds, busy_runs

    def forward(self, image):
        self.busy_runs -= 1
        half = torch.is_autocast_enabled('cpu')
        time.sleep(0.1 if self.busy_runs >= 0 else self.seconds[half])
        return image


@pytest.mark.parametrize(('seconds', 'expected'), [
    ((0.001, 0.04), 'float32'), ((0.04, 0.001), 'bfloat16'),
])
def test_the_faster_precision_also_on_a_machine_that_is_busy_at_first(seconds, expected):
    assert fastest_precision(Generator(seconds, busy_runs=5), torch.device('cpu')) == expected
