"""
The gyroscopes for the cameras of a bag: its sensor_msgs/Imu, camera_info and /tf_static.

They are read before the images. An hour of rates at 400 Hz takes 46 MB. Unreadable messages are
left out. A camera without a gyroscope is restored without one.
"""

from __future__ import annotations  # so that it can be imported without rosbags

import argparse
from array import array
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from iov_restore_ros.tools.imu_options import Mounting, add_mounting_options, mounting_of
from iov_restore_ros.tools.known_rates import KnownRates
from iov_restore_ros.video.calibration import Frames, camera_of, rotation_of
from iov_restore_ros.video.history import History

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.typesys.store import Typestore

    from iov_restore_ros.tools.bag_reader import Bag

IMU_TYPE = 'sensor_msgs/msg/Imu'
INFO_TYPE = 'sensor_msgs/msg/CameraInfo'
TF_TOPIC, TF_TYPE = '/tf_static', 'tf2_msgs/msg/TFMessage'
NO_RATES = -1.0  # first element of the covariance if there are no rates (REP 145)
EARLIER = 5 * 10**9  # ns around the images in which samples are read; recording may be delayed
GIVE = 'give --imu-rotation "x y z w"'


class ImuOptions(NamedTuple):
    """The options: ``topic``, empty for any; ``none``: ignore all; how the IMU is mounted."""

    topic: str = ''
    none: bool = False
    mounting: Mounting = Mounting()


AS_FOUND = ImuOptions()


def add_imu_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``imu_options_of`` reads."""
    parser.add_argument(
        '--imu', default='', metavar='TOPIC',
        help='topic of sensor_msgs/Imu (default: the best one in the bag)',
    )
    parser.add_argument('--no-imu', action='store_true', help='ignore every Imu in the bag')
    add_mounting_options(parser)


def imu_options_of(options: argparse.Namespace) -> ImuOptions:
    """Return the gyroscope options."""
    return ImuOptions(options.imu, options.no_imu, mounting_of(options))


class TopicRates(NamedTuple):
    """The data of a topic: N stamps (s), N x 3 rates (rad/s), in the frame of its headers."""

    topic: str
    frame: str
    stamps: np.ndarray
    rates: np.ndarray


class NoGyroscopeError(Exception):
    """A camera has no gyroscope; the message says why."""


class CameraImu:
    """The gyroscope of one image topic, chosen at its first frame."""

    def __init__(self, bag: BagImu, topic: str) -> None:
        self.bag, self.topic = bag, topic
        self._rates: KnownRates | None = None
        self._why = ''
        self._seen: tuple[str, tuple[int, int]] | None = None  # frame and size of the last image

    def advance(self, history: History, stamp: float, frame: str, size: tuple[int, int]) -> None:
        """
        Prepare ``history`` for an image of ``stamp`` s and ``size`` (height, width).

        ``frame`` is that of its header.
        """
        if self._seen != (frame, size):
            self._seen = frame, size
            try:
                self._choose(frame, size)
                self._why = ''
            except NoGyroscopeError as reason:
                self._rates, self._why = None, str(reason)
        history.inertial = None
        if self._rates is not None:
            self._rates.advance(stamp)
            history.inertial = self._rates.inertial

    def account(self) -> dict[str, Any]:
        """Return how it was used, for ``known_rates.told``."""
        if self._rates is not None:
            return self._rates.account()
        return {'imu': '', 'frames': 0, 'used': 0, 'offset': 0.0, 'why_not': self._why}

    def _choose(self, frame: str, size: tuple[int, int]) -> None:
        rates, rotation = self.bag.mounted(frame)
        info, mounting = self.bag.infos.get(self.topic), self.bag.options.mounting
        if info is None:
            raise NoGyroscopeError('no camera_info beside the images')
        roi = info.roi
        try:
            camera = camera_of(
                info.width, info.height, info.k, info.d, info.distortion_model, rotation,
                mounting.readout, size, (roi.x_offset, roi.y_offset, roi.width, roi.height),
            )
        except ValueError as error:
            raise NoGyroscopeError(str(error)) from error
        if self._rates is None or self._rates.name != rates.topic:
            self._rates = KnownRates(rates.topic, rates.stamps, rates.rates, mounting.offset)
        self._rates.inertial.camera = camera


class BagImu:
    """
    The gyroscopes in a bag, and the calibration and mounting of its cameras.

    ``infos`` has the first camera_info of each image topic that has any.
    """

    def __init__(
        self, bag: Bag, types: Typestore, images: Iterable[str], options: ImuOptions,
        start: int | None = None, stop: int | None = None, check: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Read it from an open bag, for the ``images`` topics in the time from start to stop.

        Times are ns; None means the bag's. ``check`` is called regularly and may raise.
        """
        self.options = options
        self._types, self._check, self._bag = types, check, bag
        connections = bag.connections
        self._frames = self._read_frames(
            [c for c in connections if c.topic == TF_TOPIC and c.msgtype == TF_TYPE]
        )
        self.topics = sorted({c.topic for c in connections if c.msgtype == IMU_TYPE})
        wanted = [topic for topic in self.topics if options.topic in ('', topic)]
        span = (
            None if start is None else start - EARLIER, None if stop is None else stop + EARLIER
        )
        read = (
            self._read_rates(topic, [c for c in connections if c.topic == topic], span)
            for topic in wanted
        )
        self._rates = [rates for rates in read if len(rates.stamps)]
        self.infos = {}
        for topic in images:
            beside = [
                c for c in connections if c.topic == info_topic(topic) and c.msgtype == INFO_TYPE
            ]
            for info in self._read(beside):
                self.infos[topic] = info
                break
        self.cameras = {topic: CameraImu(self, topic) for topic in images}

    def mounted(self, frame: str) -> tuple[TopicRates, np.ndarray]:
        """
        Return the gyroscope for a camera in ``frame``, and the rotation (3 x 3) from its frame.

        Among several it takes the one with the shortest chain of transforms, then the one with the
        most samples. Raises ``NoGyroscopeError``.
        """
        if not self._rates:
            where = f'on {", ".join(self.topics)}' if self.topics else 'in the bag'
            if self.options.topic and self.options.topic not in self.topics:
                where = f'on {self.options.topic}'
            raise NoGyroscopeError(f'no rates of a {IMU_TYPE} {where}')
        if given := self.options.mounting.rotation:
            return max(self._rates, key=lambda one: len(one.stamps)), rotation_of(given)
        found = []
        for rates in self._rates:
            chain = self._frames.rotation(_plain(rates.frame), _plain(frame))
            if chain is not None:
                found.append((chain[1], -len(rates.stamps), rates, chain[0]))
        if not found:
            frames = ', '.join(sorted({repr(rates.frame) for rates in self._rates}))
            raise NoGyroscopeError(f'{TF_TOPIC} does not lead from {frames} to {frame!r}: {GIVE}')
        _, _, rates, rotation = min(found, key=lambda one: one[:2])
        return rates, rotation

    def accounts(self) -> dict[str, dict[str, Any]]:
        """Return how each image topic's gyroscope was used."""
        return {topic: camera.account() for topic, camera in self.cameras.items()}

    def _read_frames(self, connections: list[Connection]) -> Frames:
        frames = Frames()
        for message in self._read(connections):
            for one in message.transforms:
                turn = one.transform.rotation
                try:
                    frames.add(
                        _plain(one.header.frame_id), _plain(one.child_frame_id),
                        (turn.x, turn.y, turn.z, turn.w),
                    )
                except ValueError:
                    continue
        return frames

    def _read_rates(
        self, topic: str, connections: list[Connection], span: tuple[int | None, int | None]
    ) -> TopicRates:
        values, frame = array('d'), ''
        for message in self._read(connections, *span):
            if message.angular_velocity_covariance[0] == NO_RATES:
                continue
            header, rates = message.header, message.angular_velocity
            frame = header.frame_id
            values.extend((
                header.stamp.sec + header.stamp.nanosec / 1e9, rates.x, rates.y, rates.z,
            ))
        table = np.frombuffer(values).reshape(-1, 4)
        return TopicRates(topic, frame, table[:, 0], table[:, 1:])

    def _read(
        self, connections: list[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterable[Any]:
        """Yield the readable messages."""
        if not connections:  # an empty list would mean all
            return
        for connection, _, data in self._bag.messages(connections, start, stop):
            self._check()
            message = self._message(connection, data)
            if message is not None:
                yield message

    def _message(self, connection: Connection, data: bytes) -> Any:
        try:
            return self._types.deserialize_cdr(data, connection.msgtype)
        except Exception:  # noqa: BLE001  of any kind: the images can still be restored
            return None


def info_topic(topic: str) -> str:
    """Return the camera_info topic beside an image ``topic``."""
    return f'{topic.removesuffix("/compressed").rpartition("/")[0]}/camera_info'


def _plain(frame: str) -> str:
    """Return the name of a frame without the leading slash of old drivers."""
    return frame.removeprefix('/')
