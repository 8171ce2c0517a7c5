"""Running a generator: devices, precisions and batches."""

from iov_restore_ros.inference.blur_gauge import BlurGauge
from iov_restore_ros.inference.pixels import RestoreError
from iov_restore_ros.inference.restorer import Restorer, Restoring
from iov_restore_ros.inference.sequence import restore_next, restore_sequence
from iov_restore_ros.video.before import Before
from iov_restore_ros.video.history import History

__all__ = [
    'Before', 'BlurGauge', 'History', 'RestoreError', 'Restorer', 'Restoring',
    'restore_next', 'restore_sequence',
]
