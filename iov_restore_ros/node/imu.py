"""The topic `imu`: one gyroscope for all cameras, at a few microseconds a sample."""

import struct
import threading
import time
from typing import NamedTuple

from rclpy.lifecycle import LifecycleNode
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Imu

from iov_restore_ros.node.images import seconds
from iov_restore_ros.node.qos import PolledSubscription
from iov_restore_ros.video.camera_path import Gyroscope

DEPTH = 2000  # samples that may wait to be taken: a second, at 2000 Hz
STEP = 0.0005  # s between two looks for samples that are awaited
SILENT = 0.5  # s without a sample after which none is awaited
BYTE_ORDERS = {b'\0\0': '>', b'\0\1': '<'}  # of plain CDR (RTPS 2.5, Sec. 10.2)


class Sample(NamedTuple):
    """Of a sensor_msgs/Imu: s, rad/s, and the first element of their covariance."""

    stamp: float
    frame: str
    rates: tuple[float, float, float]
    covariance: float


def read_imu(data: bytes) -> Sample:
    """
    Return what is of interest in a serialized Imu. Raises ``struct.error`` where it is cut off.

    It is 28 doubles in Python objects otherwise, which takes ten times as long.
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
    aligned = -(-(12 + length) // 8) * 8  # behind the four bytes of the byte order
    x, y, z, covariance = struct.unpack_from(f'{order}4d', data, 4 + aligned + 13 * 8)
    return Sample(sec + nanosec / 1e9, frame, (x, y, z), covariance)


class ImuTopic:
    """
    Samples from the topic `imu`, in the ``gyroscope`` that all cameras share.

    Nobody is woken by a sample: they are taken when a frame asks for them, or once a second.
    Whoever touches the ``gyroscope`` or calls ``take`` or ``wait`` holds the ``lock``.
    ``frame`` is that of the last message's header.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self.gyroscope = Gyroscope()
        self.lock = threading.Lock()
        self.frame = ''
        self._node = node
        self._subscription: PolledSubscription | None = None
        self._taken = self._reported = 0  # messages
        self._unusable = 0  # messages that are cut off, or have no rates
        self._without_rates = False  # the last one
        self._heard = 0.0  # s, monotonic

    def subscribe(self) -> None:
        """Begin to listen, if it does not yet."""
        if self._subscription is None:
            self._subscription = PolledSubscription(self._node, Imu, 'imu', DEPTH)

    def unsubscribe(self) -> None:
        """Listen no more, and forget what was heard."""
        if self._subscription is not None:
            self._subscription.destroy()
            self._subscription = None
        with self.lock:
            self.gyroscope.forget()
            self._heard, self._without_rates = 0.0, False

    def follow(self) -> None:
        """Listen as the publishers offer now, and take what came unless somebody else does."""
        if self._subscription is None:
            return
        self._subscription.follow()
        if self.lock.acquire(blocking=False):
            try:
                self.take()
            finally:
                self.lock.release()

    def take(self) -> None:
        """Take in what has come."""
        subscription = self._subscription
        for data in subscription.take() if subscription is not None else ():
            self._taken += 1
            try:
                sample = read_imu(data)
            except struct.error:
                self._unusable += 1
                continue
            self._without_rates = sample.covariance == -1  # REP 145
            if self._without_rates:
                self._unusable += 1
                continue
            self.frame = sample.frame
            self.gyroscope.add(sample.stamp, *sample.rates)
            self._heard = time.monotonic()

    def wait(self, until: float, deadline: float) -> str:
        """
        Wait for samples ``until`` that time, s by their stamps, to a ``deadline``, s monotonic.

        Nothing is awaited that cannot come by then. Returns why they are not there; empty if they
        are.
        """
        while (missing := until - self.gyroscope.newest) > 0:
            now = time.monotonic()
            if missing > SILENT:
                return f'the newest sample is {missing:.1f} s older than the frame: other clocks?'
            if now >= deadline or now - self._heard > SILENT:
                return 'its samples come later than imu_wait allows'
            time.sleep(STEP)
            self.take()
        return ''

    def trouble(self) -> str:
        """Return why there are no samples at all; empty if there are."""
        subscription = self._subscription
        if subscription is None:
            return 'not listening'
        if self._without_rates:
            return (
                f'{subscription.topic} has no angular rates: '
                'angular_velocity_covariance[0] is -1 (REP 145)'
            )
        if len(self.gyroscope) and time.monotonic() - self._heard < SILENT:
            return ''
        return subscription.trouble() or f'{subscription.topic} is silent'

    def describe(self, period: float) -> dict[str, object]:
        """Return what diagnostics show, called every ``period`` s."""
        taken, self._reported = self._taken - self._reported, self._taken
        return {
            'imu': self.trouble() or f'{taken / period:.0f} Hz in {self.frame or "no frame"}',
            'imu refused': self._unusable + self.gyroscope.refused,
        }
