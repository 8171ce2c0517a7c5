"""Bags of a camera that shakes, with its IMU, as tests and trials want them."""

from dataclasses import replace

import numpy as np
from rclpy.serialization import serialize_message
from ros_harness import make_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from iov_restore_ros.pictures.moving import CameraPath, MovingScene
from iov_restore_ros.pictures.shaking import SAMPLES, STILL_BEFORE, ShakenCamera
from iov_restore_ros.video.calibration import rotation_of
from iov_restore_ros.video.camera_path import TAU

HEIGHT, WIDTH = 96, 160
FRAMES = 10
START = 1_700_000_000_000_000_000  # ns
LATE = 3_000_000  # ns after its stamp that a message is recorded
OPTICAL = 0.5, -0.5, 0.5, 0.5  # from a body's frame (x ahead) to an optical one (z ahead)
TYPES = get_typestore(Stores.LATEST)


class Shaken:
    """Frames of a shaken camera, uint8 H x W x 3, sharp and as they came, and its rates."""

    def __init__(self, photograph, share=0.6, far=7.0, frames=FRAMES, seed=5):
        camera = ShakenCamera.draw(np.random.default_rng(seed), frames, WIDTH, share)
        extents = [camera.extent(time, share) for time in range(frames)]
        self.camera = replace(
            camera, shake=camera.shake.scaled(far / np.median(extents)),
            middle=np.array([WIDTH / 2 - 0.5, WIDTH / 2 - 0.5]), period=0.05,
        )
        still = np.zeros(2)
        path = CameraPath(np.array([0.5, 0.0]), still, *np.zeros((2, 2, 2)), still)
        scene = MovingScene(photograph, WIDTH, path, (183.0, 125.0))
        scene.shaken = self.camera, frames / 2
        times = np.arange(frames) - frames / 2
        self.top = (WIDTH - HEIGHT) // 2
        self.sharp = [self._cut(scene.frame(time)) for time in times]
        self.blurred = [self._cut(scene.exposure(time, share, True)) for time in times]
        self.times = np.arange(frames) * self.camera.period  # s
        self.rates = self.camera.rates(frames)  # about the axes of the camera, rad/s
        self.sampled = (np.arange(len(self.rates)) / SAMPLES - STILL_BEFORE) * self.camera.period
        focal, (x, y) = self.camera.focal, self.camera.middle
        self.k = [focal, 0.0, x, 0.0, focal, y - self.top, 0.0, 0.0, 1.0]

    def path(self, number, share):
        """Return where what each cell shows lies at the moments of an exposure, as `turned`."""
        x, y = np.arange(WIDTH // 4) * 4 + 1.5, np.arange(HEIGHT // 4) * 4 + 1.5 + self.top
        places = np.stack([*np.meshgrid(x, y), np.ones((len(y), len(x)))], -1)
        there = self.camera.view(number)
        seen = [
            places @ (np.linalg.inv(self.camera.view(moment)) @ there).T
            for moment in number + share * TAU
        ]
        return np.stack([one[..., :2] / one[..., 2:] - places[..., :2] for one in seen], 2)

    def _cut(self, square):
        rows = square[self.top : self.top + HEIGHT]
        return np.ascontiguousarray(rows.round().clip(0, 255).astype(np.uint8))


def cdr(kind, message):
    """Serialize a message of rosbags."""
    return bytes(TYPES.serialize_cdr(message, kind))


def header(time, frame):
    stamp = TYPES.types['builtin_interfaces/msg/Time'](*divmod(START + round(time * 1e9), 10**9))
    return TYPES.types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame)


def imu_message(time, rates, frame):
    quaternion = TYPES.types['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.0, 1.0)
    vector, nine = TYPES.types['geometry_msgs/msg/Vector3'], np.zeros(9)
    return TYPES.types['sensor_msgs/msg/Imu'](
        header(time, frame), quaternion, nine, vector(*map(float, rates)), nine,
        vector(0.0, 0.0, 9.81), nine,
    )


def info_message(time, frame, k, size=(HEIGHT, WIDTH)):
    region = TYPES.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    return TYPES.types['sensor_msgs/msg/CameraInfo'](
        header(time, frame), *size, 'plumb_bob', np.zeros(5), np.array(k), np.eye(3).ravel(),
        np.zeros(12), 0, 0, region,
    )


def tf_message(*transforms):
    """Return a message of (parent, child, quaternion x y z w)."""
    types = TYPES.types
    return types['tf2_msgs/msg/TFMessage']([
        types['geometry_msgs/msg/TransformStamped'](
            header(0, parent), child, types['geometry_msgs/msg/Transform'](
                types['geometry_msgs/msg/Vector3'](0.1, 0.2, 0.3),
                types['geometry_msgs/msg/Quaternion'](*map(float, turn)),
            ),
        ) for parent, child, turn in transforms
    ])


def conjugate(turn):
    """Return the quaternion of the way back."""
    return (*(-part for part in turn[:3]), turn[3])


def write_bag(
    path, shaken, storage='mcap', tf=True, info=True, imu=True, k=None, frames=('optical', 'imu'),
    offset=0.0, extra=(), topic='/front/image_raw',
):
    """
    Write what ``shaken`` saw; the IMU's x is ahead, z up, and it hangs on /tf_static.

    ``extra``: (topic, type, time in s, bytes) beside it.
    """
    optical, body = frames
    messages = list(extra)
    if tf:
        # Both hang on the mount, whose axes are those of the IMU.
        turns = ('mount', 'optical', conjugate(OPTICAL)), ('mount', 'imu', (0.0, 0.0, 0.0, 1.0))
        messages.append(('/tf_static', 'tf2_msgs/msg/TFMessage', -0.3, cdr(
            'tf2_msgs/msg/TFMessage', tf_message(*turns))))
    turn = rotation_of(OPTICAL).T
    if imu:
        for time, rates in zip(shaken.sampled, shaken.rates, strict=True):
            messages.append(('/imu', 'sensor_msgs/msg/Imu', time + offset, cdr(
                'sensor_msgs/msg/Imu', imu_message(time + offset, turn @ rates, body))))
    for number, (time, picture) in enumerate(zip(shaken.times, shaken.blurred, strict=True)):
        image = make_message(picture, number, frame_id=optical)
        stamp = image.header.stamp
        stamp.sec, stamp.nanosec = divmod(START + round(time * 1e9), 10**9)
        messages.append((topic, 'sensor_msgs/msg/Image', time, serialize_message(image)))
        if info:
            messages.append((
                '/front/camera_info', 'sensor_msgs/msg/CameraInfo', time, cdr(
                    'sensor_msgs/msg/CameraInfo',
                    info_message(time, optical, shaken.k if k is None else k))))
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        connections = {}
        for name, kind, time, data in sorted(messages, key=lambda one: one[2]):
            if name not in connections:
                connections[name] = writer.add_connection(name, kind, typestore=TYPES)
            writer.write(connections[name], START + LATE + round(time * 1e9), data)
