"""What is computed: the networks of the paper and the files that hold their weights."""

from iov_restore_ros.model.discriminator import Discriminator
from iov_restore_ros.model.fusion import Evidence
from iov_restore_ros.model.generators import PRESETS, VIDEO, Generator
from iov_restore_ros.model.veil import Veil
from iov_restore_ros.model.weights import (
    TASKS,
    VEIL_WEIGHTS,
    VeilInfo,
    WeightsError,
    WeightsInfo,
    load_veil,
    load_weights,
    read_info,
    save_veil,
    save_weights,
    shipped_weights,
)

__all__ = [
    'PRESETS',
    'TASKS',
    'VEIL_WEIGHTS',
    'VIDEO',
    'Discriminator',
    'Evidence',
    'Generator',
    'Veil',
    'VeilInfo',
    'WeightsError',
    'WeightsInfo',
    'load_veil',
    'load_weights',
    'read_info',
    'save_veil',
    'save_weights',
    'shipped_weights',
]
