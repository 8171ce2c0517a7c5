"""How a generator is run: on which device, in which precision, in which batches."""

from iov_restore_ros.inference.blur_gauge import BlurGauge
from iov_restore_ros.inference.past import Before, Past
from iov_restore_ros.inference.restorer import PRECISIONS, RestoreError, Restorer, Restoring

__all__ = ['PRECISIONS', 'Before', 'BlurGauge', 'Past', 'RestoreError', 'Restorer', 'Restoring']
