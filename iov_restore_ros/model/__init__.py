"""What is computed: the networks of the paper and the files that hold their weights."""

from iov_restore_ros.model.discriminator import Discriminator
from iov_restore_ros.model.fusion import Evidence
from iov_restore_ros.model.generators import PRESETS, VIDEO, Generator
from iov_restore_ros.model.weights import (
    TASKS,
    WeightsError,
    WeightsInfo,
    load_weights,
    read_info,
    save_weights,
    shipped_weights,
)

__all__ = [
    'PRESETS',
    'TASKS',
    'VIDEO',
    'Discriminator',
    'Evidence',
    'Generator',
    'WeightsError',
    'WeightsInfo',
    'load_weights',
    'read_info',
    'save_weights',
    'shipped_weights',
]
