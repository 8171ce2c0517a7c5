"""The records of the tasks, and what becomes of a task that has no weights yet."""

import re
from dataclasses import replace

import numpy as np
import pytest
from rclpy.logging import get_logger

from iov_restore_ros.inference import Restorer
from iov_restore_ros.model import WeightsError
from iov_restore_ros.node.loading import load_restorer
from iov_restore_ros.node.parameters import PARAMETERS
from iov_restore_ros.pictures.degradations import DEGRADATIONS
from iov_restore_ros.tasks import DEBLUR, DERAIN, TASKS

FRAME = np.zeros((40, 40, 3), np.uint8)


@pytest.fixture
def dehaze(monkeypatch):
    """A task that somebody has just added."""
    monkeypatch.setitem(TASKS, 'dehaze', replace(DERAIN, name='dehaze', weathers=('haze',)))


@pytest.mark.parametrize('task', TASKS.values(), ids=TASKS)
def test_records_agree_with_themselves(task):
    degradation = DEGRADATIONS[task.degradation]
    assert not (task.blur and task.clears)
    assert task.blur or degradation.frames is not None, 'frames that stand still are degraded too'


def test_one_task_at_most_is_asked_for_by_a_weather():
    asked = [weather for task in TASKS.values() for weather in task.weathers]
    assert len(asked) == len(set(asked))
    assert {'clear', 'rain'} <= set(asked), 'the topic `rain` says these'


@pytest.mark.usefixtures('dehaze')
def test_a_node_without_weights_for_a_task_starts_and_says_so(capfd):
    value = {name: parameter.default for name, parameter in PARAMETERS.items()}
    value |= {'device': 'cpu', 'precision': 'float32', 'dehaze_weights': ''}
    restorer = load_restorer(value, get_logger('restore'))
    assert restorer.tasks == (DEBLUR.name, DERAIN.name)
    said = ''.join(capfd.readouterr())
    assert 'dehaze: no weights, neither shipped nor as dehaze_weights' in said
    with pytest.raises(ValueError, match="unknown task 'dehaze': deblur, derain are loaded"):
        restorer.restore([FRAME], 'dehaze')


@pytest.mark.usefixtures('dehaze')
def test_weights_that_are_asked_for_must_be_there():
    with pytest.raises(WeightsError, match='give fast a dehaze file'):
        Restorer(device='cpu', precision='float32', tasks=['dehaze'])


def test_nobody_asks_for_a_name(pytestconfig):
    """What a task is like stands in its record: with a name in an `if` a new task is forgotten."""
    asked = re.compile(rf'[!=]= ?[\'"]({"|".join(TASKS)})[\'"]')
    for folder in ('iov_restore_ros', 'benchmarks', 'launch'):
        for path in (pytestconfig.rootpath / folder).rglob('*.py'):
            assert not asked.search(path.read_text()), path
