"""The node takes drops off as the offline tools do, over DDS, and says how dirty the glass is."""

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from pictures import RATE, drive
from ros_harness import message_at as at

from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.model import finder_weights
from iov_restore_ros.node.images import view

FRAMES = 14


@pytest.fixture(scope='module')
def splashed(street):
    """Frames of a camera that drives behind a glass with dark drops on it."""
    frames = drive(street, FRAMES)
    height, width = frames[0].shape[:2]
    cover = np.zeros((height, width), np.float32)
    for x, y in np.random.default_rng(2).uniform((10, 10), (width - 10, height - 10), (14, 2)):
        cv2.circle(cover, (int(x), int(y)), 9, 1.0, -1)
    cover = cv2.GaussianBlur(cover, (0, 0), 2)[..., None]
    return [(frame * (1 - cover) + 70 * cover).astype(np.uint8) for frame in frames]


def test_it_comes_off_as_offline_and_the_glass_is_called_dirty(rig, splashed):
    rig.start(mode='derain', dirty_glass=0.01)
    restorer, history = Restorer(device='cpu', precision='float32'), History()
    for number, frame in enumerate(splashed):
        stamp = 100 + round(number * 1e9 / RATE) / 1e9
        wanted = restore_next(restorer, history, frame, stamp, 'derain')
        assert np.array_equal(view(rig.round_trip(at(frame, 100 + number / RATE))), wanted), number
    level, message, values = rig.next_status('camera camera')
    assert float(values['glass covered %']) == pytest.approx(100 * history.covered(), abs=0.1)
    assert level == DiagnosticStatus.WARN
    assert 'of the glass: wipe it' in message
    _, _, values = rig.next_status('restorer')
    assert values['glass weights'] == str(finder_weights('glass'))

    assert all(result.successful for result in rig.set_parameters(dirty_glass=0.0))
    assert 'wipe it' not in rig.next_status('camera camera')[1]

    assert all(result.successful for result in rig.set_parameters(clean_glass=False))
    while 'glass weights' in rig.next_status('restorer')[2]:
        pass
    plain = Restorer(device='cpu', precision='float32', find=['veil'])
    [still] = plain.restore(splashed[:1], 'derain')
    assert np.array_equal(view(rig.round_trip(at(splashed[0], 100 + 28 / RATE))), still)

    [result] = rig.set_parameters(glass_weights='/nowhere.safetensors')
    assert not result.successful
    assert '/nowhere.safetensors: there is no such weight file' in result.reason
