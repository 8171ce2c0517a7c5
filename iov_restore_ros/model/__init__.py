"""The networks, of the paper and of this project, and their weight files."""

from iov_restore_ros.model.discriminator import Discriminator
from iov_restore_ros.model.fusion import Evidence
from iov_restore_ros.model.generators import PRESETS, VIDEO, Generator
from iov_restore_ros.model.glass import Glass
from iov_restore_ros.model.veil import Veil
from iov_restore_ros.model.weights import (
    FINDERS,
    FinderInfo,
    WeightsError,
    WeightsInfo,
    finder_weights,
    load_finder,
    load_glass,
    load_veil,
    load_weights,
    read_info,
    save_finder,
    save_weights,
    shipped_tasks,
    shipped_weights,
)

__all__ = [
    'FINDERS',
    'PRESETS',
    'VIDEO',
    'Discriminator',
    'Evidence',
    'FinderInfo',
    'Generator',
    'Glass',
    'Veil',
    'WeightsError',
    'WeightsInfo',
    'finder_weights',
    'load_finder',
    'load_glass',
    'load_veil',
    'load_weights',
    'read_info',
    'save_finder',
    'save_weights',
    'shipped_tasks',
    'shipped_weights',
]
