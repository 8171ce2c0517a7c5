"""
A camera made of files: publishes a folder of pictures, a video or a camera device to ROS.

    python -m iov_restore_ros.tools.image_source SOURCE --camera camera --fps 10 --shake 8

Stamps are multiples of the frame period, like those of a triggered camera. With a folder, the
picture at the stamp k x period is number k modulo their count, so the stamp identifies the picture.
With --shake the camera is on a bad road, and its IMU is on the topic `imu`. With --imu the rates
come from a file.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image, Imu

from iov_restore_ros.pictures.files import IMAGE_SUFFIXES, DataError, list_images, read_image
from iov_restore_ros.pictures.movies import Movie, MovieError
from iov_restore_ros.tools.file_imu import camera_numbers
from iov_restore_ros.tools.shaken_source import ImuBeside, played, shaken

IMU_PERIOD = 5_000_000  # ns
READY = 10_000_000  # ns after its exposure, when a frame is sent if there is an IMU
NONE = -1.0  # first element of a covariance without readings (REP 145)


def open_source(source: str) -> Callable[[int], np.ndarray | None]:
    """
    Return a function from a frame's number to its picture, uint8 H x W x 3, RGB.

    The pictures of a folder are in the order of ``files_below``. None replaces a picture that
    cannot be read. A video restarts at its end. Raises ``ValueError`` for a bad source.
    """
    path = Path(source)
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return _pictures(list_images(path) if path.is_dir() else [path])
    return _camera(int(source)) if source.isdigit() else _video(source)


def _pictures(paths: list[Path]) -> Callable[[int], np.ndarray | None]:
    pictures: list[np.ndarray | None] = []
    for path in paths:
        try:
            pictures.append(read_image(path))
        except DataError as error:
            print(f'{error}: no frame is published at its times', file=sys.stderr)
            pictures.append(None)
    if all(picture is None for picture in pictures):
        raise ValueError(f'{paths[0].parent}: none of its pictures can be read')
    return lambda number: pictures[number % len(pictures)]


def _camera(device: int) -> Callable[[int], np.ndarray]:
    # OpenCV supports the cameras of every system, and chooses their mode.
    capture = cv2.VideoCapture(device)
    if not capture.isOpened():
        raise ValueError(f'{device}: no such camera')

    def next_frame(_: int) -> np.ndarray:
        good, frame = capture.read()
        if not good:
            raise ValueError(f'{device}: no more frames')
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    return next_frame


def _video(source: str) -> Callable[[int], np.ndarray]:
    def shots() -> Iterator[np.ndarray]:
        while True:
            count = 0
            with Movie(source) as movie:
                for count, shot in enumerate(movie.shots(), 1):  # noqa: B007  0: there was none
                    yield shot.pixels
            if not count:
                raise MovieError('no frame could be read')

    try:
        with Movie(source):
            frames = shots()
    except MovieError as error:
        raise ValueError(
            f'{source}: not a folder of pictures, a readable video or a camera ({error})'
        ) from error
    return lambda _: next(frames)


class ImageSource(Node):
    """Publishes `<camera>/image_raw` (rgb8), `<camera>/camera_info`, and `imu` if there is one."""

    def __init__(
        self, picture: Callable[[int], np.ndarray | None], camera: str, fps: float,
        imu: ImuBeside | None = None,
    ) -> None:
        super().__init__('image_source')
        self._picture = picture
        self._camera = camera
        self._period = round(1e9 / fps)
        self._imu = imu
        if imu is not None:
            # After a slow picture many are sent at once, and none may be lost.
            self._samples = self.create_publisher(Imu, 'imu', QoSProfile(depth=200))
        self._images = self.create_publisher(
            Image, f'{camera}/image_raw', qos_profile_sensor_data
        )
        self._infos = self.create_publisher(
            CameraInfo, f'{camera}/camera_info', qos_profile_sensor_data
        )

    def run(self) -> None:
        """Publish until ROS is shut down."""
        number = time.time_ns() // self._period + 1
        sample = time.time_ns() // IMU_PERIOD + 1
        late = 0 if self._imu is None else round(self._imu.exposure / 2 * 1e9) + READY
        while rclpy.ok():
            due = number * self._period + late
            while self._imu is not None and rclpy.ok() and sample * IMU_PERIOD <= due:
                _sleep_until(sample * IMU_PERIOD)
                self.publish_sample(sample * IMU_PERIOD, self._imu)
                sample += 1
            _sleep_until(due)
            self.publish(number)
            number = max(number + 1, (time.time_ns() - late) // self._period)

    def publish(self, number: int) -> None:
        """Publish frame ``number``, if it can be read."""
        picture = self._picture(number)
        if picture is None:
            return
        height, width, _ = picture.shape
        image = Image(height=height, width=width, encoding='rgb8', step=3 * width)
        image.header.frame_id = self._camera
        stamp = image.header.stamp
        stamp.sec, stamp.nanosec = divmod(number * self._period, 10**9)
        image.data.frombytes(np.ascontiguousarray(picture).data.cast('B'))
        self._images.publish(image)
        info = CameraInfo(header=image.header, height=height, width=width)
        if self._imu is not None:
            fx, fy, cx, cy = self._imu.camera
            info.distortion_model, info.d = 'plumb_bob', [0.0] * 5
            info.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
            info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
            info.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        self._infos.publish(info)

    def publish_sample(self, moment: int, imu: ImuBeside) -> None:
        """Publish the IMU's sample at ``moment``, ns."""
        message = Imu()
        message.header.frame_id = self._camera
        stamp, rates = message.header.stamp, message.angular_velocity
        stamp.sec, stamp.nanosec = divmod(moment, 10**9)
        rates.x, rates.y, rates.z = imu.rates(moment / 1e9).tolist()
        message.orientation_covariance[0] = message.linear_acceleration_covariance[0] = NONE
        self._samples.publish(message)


def _sleep_until(moment: int) -> None:
    """Sleep until ``moment``, ns of the system's clock."""
    time.sleep(max(0.0, (moment - time.time_ns()) / 1e9))


def main() -> int:
    """Run the command line; returns the exit status."""
    rclpy.init()
    parser = argparse.ArgumentParser(description='Publish pictures, a video or a camera to ROS.')
    parser.add_argument('source', help='a folder of pictures, a video, or the number of a camera')
    parser.add_argument('--camera', default='camera', help='its name, the namespace of its topics')
    parser.add_argument('--fps', type=float, default=10.0)
    parser.add_argument(
        '--shake', type=float, metavar='PIXELS',
        help='simulate a bad road with this many pixels of blur, and an IMU',
    )
    parser.add_argument(
        '--imu', type=Path, metavar='CSV', help='rates for a folder, from its first picture on: '
        't (s), wx, wy, wz (rad/s); needs --intrinsics'
    )
    parser.add_argument('--intrinsics', type=camera_numbers, metavar='FX,FY,CX,CY', help='pixels')
    parser.add_argument(
        '--exposure', type=float, default=0.0, metavar='S',
        help='exposure of the pictures in seconds, for --imu',
    )
    options = parser.parse_args(remove_ros_args(sys.argv)[1:])
    if options.imu and (options.intrinsics is None or options.shake):
        parser.error('--imu needs --intrinsics, and cannot be combined with --shake')
    if options.imu and not Path(options.source).is_dir():
        parser.error('--imu is for a folder of pictures')
    try:
        picture, imu = open_source(options.source), None
        period = round(1e9 / options.fps) / 1e9
        if options.imu:
            length = len(list_images(Path(options.source))) * period
            imu = played(options.imu, length, options.intrinsics, options.exposure)
        elif options.shake:
            picture, imu = shaken(picture, 1 / period, time.time(), options.shake)
        node = ImageSource(picture, options.camera, options.fps, imu)
        node.run()
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
