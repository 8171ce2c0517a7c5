"""The topic `imu`: one gyroscope for all cameras, for a few microseconds per sample."""

import struct
import threading
import time
from math import inf
from typing import NamedTuple

from rclpy.lifecycle import LifecycleNode
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Imu

from iov_restore_ros.node.images import seconds
from iov_restore_ros.node.qos import PolledSubscription
from iov_restore_ros.video.camera_path import FASTEST, KEPT, Gyroscope

DEPTH = 2000  # samples that may wait to be taken: one second at 2000 Hz
STEP = 0.001  # s between two checks for awaited samples
SILENT = 1.5  # s without a sample before waiting stops; samples are taken once a second
AWAITED = 0.5  # s of samples that may be missing and still arrive
OTHER_CLOCK = 'the newest sample is {:.1f} s {} than the frame: stamps of another clock?'
BYTE_ORDERS = {b'\0\0': '>', b'\0\1': '<'}  # of plain CDR (RTPS 2.5, Sec. 10.2)


class Lack(NamedTuple):
    """Why a frame has no gyroscope: a short name, and a text that says what to do."""

    kind: str
    text: str


class Sample(NamedTuple):
    """The used fields of a sensor_msgs/Imu: s, rad/s, first element of their covariance."""

    stamp: float
    frame: str
    rates: tuple[float, float, float]
    covariance: float


def read_imu(data: bytes) -> Sample:
    """
    Return the used fields of a serialized Imu. Raises ``struct.error`` if it is truncated.

    Deserialising all 28 doubles to Python objects takes ten times as long.
    """
    order = BYTE_ORDERS.get(data[:2])
    if order is None:
        message = deserialize_message(data, Imu)
        rates = message.angular_velocity
        return Sample(
            seconds(message.header.stamp), message.header.frame_id, (rates.x, rates.y, rates.z),
            message.angular_velocity_covariance[0],
        )
    sec, nanosec, length = struct.unpack_from(f'{order}iII', data, 4)
    frame = data[16 : 15 + length].decode(errors='replace')  # without the zero at its end
    aligned = -(-(12 + length) // 8) * 8  # counted after the four bytes of the byte order
    x, y, z, covariance = struct.unpack_from(f'{order}4d', data, 4 + aligned + 13 * 8)
    return Sample(sec + nanosec / 1e9, frame, (x, y, z), covariance)


class ImuTopic:
    """
    Samples of the topic `imu`, in the ``gyroscope`` that all cameras share.

    A sample wakes no thread. Samples are taken when a frame needs them, or once a second. Hold the
    ``lock`` to use ``gyroscope`` or to call ``take`` or ``wait``. ``frame`` is the frame_id of the
    last message.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self.gyroscope = Gyroscope()
        self.lock = threading.Lock()
        self.frame = ''
        self._node = node
        self._subscription: PolledSubscription | None = None
        self._taken = self._reported = 0  # messages
        self._refused = 0  # unusable messages
        self._wrong = ''  # problem of the last message; empty if it was usable
        self._heard = -inf  # time of the last usable message, s, monotonic

    def subscribe(self) -> None:
        """Subscribe, unless it is subscribed."""
        if self._subscription is None:
            self._subscription = PolledSubscription(self._node, Imu, 'imu', DEPTH)

    def unsubscribe(self) -> None:
        """Unsubscribe, and clear the samples."""
        if self._subscription is not None:
            self._subscription.destroy()
            self._subscription = None
        with self.lock:
            self.gyroscope.forget()
            self._heard, self._wrong = -inf, ''

    def follow(self) -> None:
        """Adapt to the publishers' QoS, and take samples unless another thread does."""
        if self._subscription is None:
            return
        self._subscription.follow()
        if self.lock.acquire(blocking=False):
            try:
                self.take()
            finally:
                self.lock.release()

    def take(self) -> None:
        """Take the samples that have arrived."""
        subscription = self._subscription
        for data in subscription.take() if subscription is not None else ():
            self._taken += 1
            self._wrong = self._add(data)
            if self._wrong:
                self._refused += 1
            else:
                self._heard = time.monotonic()

    def _add(self, data: bytes) -> str:
        """Add a serialized message; return its problem, empty if it is usable."""
        try:
            sample = read_imu(data)
        except struct.error:
            return 'has truncated messages'
        if sample.covariance == -1:
            return 'has no angular rates: angular_velocity_covariance[0] is -1 (REP 145)'
        self.frame = sample.frame
        refused = self.gyroscope.refused
        self.gyroscope.add(sample.stamp, *sample.rates)
        if self.gyroscope.refused > refused:
            return f'has rates that are not finite, or beyond {FASTEST:.0f} rad/s: degrees?'
        return ''

    def wait(self, until: float, deadline: float) -> Lack | None:
        """
        Wait for samples ``until`` a stamp (s), but not beyond a ``deadline`` (s, monotonic).

        It does not wait for samples that cannot arrive in time. Returns why they are missing; None
        if they have arrived.
        """
        while (missing := until - self.gyroscope.newest) > 0:
            if trouble := self.trouble():
                return Lack('no samples', trouble)
            if missing > AWAITED:
                return Lack('other clock', OTHER_CLOCK.format(missing, 'older'))
            if time.monotonic() >= deadline:
                return Lack('late', 'its samples come later than imu_wait allows')
            time.sleep(STEP)
            self.take()
        if missing < -KEPT:
            return Lack('other clock', OTHER_CLOCK.format(-missing, 'newer'))
        return None

    def trouble(self) -> str:
        """Return why no usable samples arrive; empty if they do."""
        subscription = self._subscription
        if subscription is None:
            return 'not listening'
        if self._wrong:
            return f'{subscription.topic} {self._wrong}'
        if time.monotonic() - self._heard < SILENT:
            return ''
        return subscription.trouble() or f'{subscription.topic} is silent'

    def describe(self, period: float) -> dict[str, object]:
        """Return the diagnostics; call it every ``period`` s."""
        taken, self._reported = self._taken - self._reported, self._taken
        return {
            'imu': self.trouble() or f'{taken / period:.0f} Hz in {self.frame or "no frame"}',
            'imu refused': self._refused,
        }
