"""The choice of the task."""

import pytest

from iov_restore_ros.node.mode_policy import MODES, decide


@pytest.mark.parametrize(('mode', 'weather', 'speed', 'task'), [
    ('passthrough', 'rain', 30.0, None),
    ('deblur', 'rain', 0.0, 'deblur'),
    ('derain', 'clear', 30.0, 'derain'),
    ('auto', 'rain', 0.0, 'derain'),
    ('auto', 'rain', 30.0, 'derain'),
    ('auto', 'clear', 30.0, 'deblur'),
    ('auto', 'clear', -30.0, 'deblur'),
    ('auto', 'clear', 5.0, 'deblur'),
    ('auto', 'clear', 4.9, None),
])
def test_decisions(mode, weather, speed, task):
    decision = decide(mode, weather, speed, min_speed=5.0)
    assert decision.task == task
    assert mode in decision.reason


def test_every_mode_has_a_decision():
    for mode in MODES:
        assert decide(mode, 'clear', 0.0, 5.0).task in (None, mode)
