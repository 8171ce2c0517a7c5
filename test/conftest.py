"""Fixtures that several test files use."""

import os
from pathlib import Path

# Before rclpy is imported: nothing of a test leaves this machine, and large images stay whole.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
FAST_DDS = 'FASTRTPS' if os.environ.get('ROS_DISTRO') == 'jazzy' else 'FASTDDS'
os.environ[f'{FAST_DDS}_DEFAULT_PROFILES_FILE'] = str(
    Path(__file__).parents[1] / 'config' / 'fastdds_large_images.xml'
)

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from skimage import data as photographs

from iov_restore_ros.pictures.degradations import DEGRADATIONS
from iov_restore_ros.tasks import DEBLUR, TASKS

torch.set_num_threads(1)  # for small pictures more would wait for each other

# The same examples everywhere, and however long they take on a busy machine.
hypothesis_settings.register_profile(
    'steady', derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile('steady')


@pytest.fixture(scope='session')
def photograph():
    """A sharp photograph, uint8 H x W x 3, RGB, of a size that is no multiple of 4."""
    picture = photographs.stereo_motorcycle()[0]
    return cv2.resize(picture, (367, 250), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope='session')
def street(photograph):
    """The photograph, large and sharp enough to move a camera over it."""
    return cv2.resize(photograph, (480, 320), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope='session')
def pictures(tmp_path_factory, photograph):
    """A folder of two sharp pictures."""
    root = tmp_path_factory.mktemp('pictures')
    for number, picture in enumerate((photograph, photograph[::-1])):
        cv2.imwrite(str(root / f'{number}.png'), picture)
    return root


@pytest.fixture(scope='session')
def crop(photograph):
    """A small part of it, 64 x 96."""
    return np.ascontiguousarray(photograph[50:114, 100:196])


@pytest.fixture
def rig(tmp_path):
    """A ROS domain of its own for one node under test."""
    from ros_harness import Rig  # ROS only for the tests that need it

    rig = Rig(tmp_path / 'node.log')
    yield rig
    rig.close()


@pytest.fixture(scope='session')
def degraded_pair():
    """Return a function from a task and a seed to a (degraded, sharp) pair of photographs."""
    def make(task, seed=5):
        sharp = torch.from_numpy(photographs.coffee()).permute(2, 0, 1)[None] / 255
        if task == 'derain':
            margin = DEBLUR.margin  # so that both tasks get the same picture
            sharp = sharp[..., margin:-margin, margin:-margin]
        rng = torch.Generator().manual_seed(seed)
        pair = DEGRADATIONS[TASKS[task].degradation].pictures(sharp, torch.full((1,), 0.7), rng)
        return [
            np.ascontiguousarray((image[0] * 255).round().byte().permute(1, 2, 0))
            for image in pair
        ]
    return make
