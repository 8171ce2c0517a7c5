"""The node takes the veil off as the offline tools do, over DDS."""

import cv2
import numpy as np
import pytest
from pictures import RATE, drive
from ros_harness import message_at as at

from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.model import finder_weights
from iov_restore_ros.node.images import view


@pytest.fixture(scope='module')
def hidden(street):
    """Frames of a camera that drives through a veil."""
    small = cv2.resize(street, (240, 160), interpolation=cv2.INTER_AREA)
    return [(0.5 * frame + 0.5 * 205).astype(np.uint8) for frame in drive(small, 3)]


def offline(restorer, frames):
    history = History()
    return [
        restore_next(restorer, history, frame, 100 + round(n * 1e9 / RATE) / 1e9, 'derain')
        for n, frame in enumerate(frames)
    ]


def test_it_comes_off_as_offline_until_it_is_switched_off(rig, hidden):
    rig.start(mode='derain')
    expected = offline(Restorer(device='cpu', precision='float32'), hidden)
    for number, (frame, wanted) in enumerate(zip(hidden, expected, strict=True)):
        assert np.array_equal(view(rig.round_trip(at(frame, 100 + number / RATE))), wanted), number
    _, _, values = rig.next_status('camera camera')
    assert 0.2 < float(values['transmission']) < 0.9
    _, _, values = rig.next_status('restorer')
    assert values['veil weights'] == str(finder_weights('veil'))

    assert all(result.successful for result in rig.set_parameters(unveil=False))
    while 'veil weights' in rig.next_status('restorer')[2]:
        pass
    plain = Restorer(device='cpu', precision='float32', find=['glass'])
    [still] = plain.restore(hidden[:1], 'derain')
    assert np.array_equal(view(rig.round_trip(at(hidden[0], 100 + 9 / RATE))), still)
    assert rig.next_status('camera camera')[2]['transmission'] == 'nan'


def test_a_file_that_is_none_is_refused(rig):
    rig.start(mode='derain')
    [result] = rig.set_parameters(veil_weights='/nowhere.safetensors')
    assert not result.successful
    assert '/nowhere.safetensors: there is no such weight file' in result.reason
