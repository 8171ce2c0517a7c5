"""What is computed: the networks of the paper and the files that hold their weights."""

from iov_restore_ros.model.discriminator import Discriminator
from iov_restore_ros.model.generators import PRESETS, Generator
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
    'Discriminator',
    'Generator',
    'WeightsError',
    'WeightsInfo',
    'load_weights',
    'read_info',
    'save_weights',
    'shipped_weights',
]
