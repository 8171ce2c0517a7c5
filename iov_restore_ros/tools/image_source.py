"""
A camera made of files: publishes a folder of pictures, a video or a camera device to ROS.

    python -m iov_restore_ros.tools.image_source SOURCE --camera camera --fps 10

Stamps lie on the grid of the frame period, as a triggered camera's do, and with a folder the
picture shown at stamp k x period is number k modulo their count: who knows the folder knows from
the stamp which picture it was.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image

from iov_restore_ros.pictures.files import list_images, read_image


def open_source(source: str) -> Callable[[int], np.ndarray]:
    """
    Return a function from a frame's number to its picture, uint8 H x W x 3, RGB.

    A video starts again at its end. Raises ``DataError`` or ``ValueError`` for a bad source.
    """
    if Path(source).is_dir():
        pictures = [read_image(path) for path in list_images(Path(source))]
        return lambda number: pictures[number % len(pictures)]
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        raise ValueError(f'{source}: not a folder of pictures, a readable video or a camera')

    def next_frame(_: int) -> np.ndarray:
        good, frame = capture.read()
        if not good:
            capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            good, frame = capture.read()
        if not good:
            raise ValueError(f'{source}: no more frames')
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    return next_frame


class ImageSource(Node):
    """Publishes `<camera>/image_raw` (rgb8) and `<camera>/camera_info`."""

    def __init__(self, picture: Callable[[int], np.ndarray], camera: str, fps: float) -> None:
        super().__init__('image_source')
        self._picture = picture
        self._camera = camera
        self._period = round(1e9 / fps)
        self._images = self.create_publisher(
            Image, f'{camera}/image_raw', qos_profile_sensor_data
        )
        self._infos = self.create_publisher(
            CameraInfo, f'{camera}/camera_info', qos_profile_sensor_data
        )

    def run(self) -> None:
        """Publish until ROS is shut down."""
        number = time.time_ns() // self._period + 1
        while rclpy.ok():
            time.sleep(max(0.0, (number * self._period - time.time_ns()) / 1e9))
            self.publish(number)
            number = max(number + 1, time.time_ns() // self._period)

    def publish(self, number: int) -> None:
        """Publish frame ``number``."""
        picture = self._picture(number)
        height, width, _ = picture.shape
        image = Image(height=height, width=width, encoding='rgb8', step=3 * width)
        image.header.frame_id = self._camera
        stamp = image.header.stamp
        stamp.sec, stamp.nanosec = divmod(number * self._period, 10**9)
        image.data.frombytes(np.ascontiguousarray(picture).data.cast('B'))
        self._images.publish(image)
        self._infos.publish(CameraInfo(header=image.header, height=height, width=width))


def main() -> int:
    """Run the command line; returns the exit status."""
    rclpy.init()
    parser = argparse.ArgumentParser(description='Publish pictures, a video or a camera to ROS.')
    parser.add_argument('source', help='a folder of pictures, a video, or the number of a camera')
    parser.add_argument('--camera', default='camera', help='its name: the namespace of its topics')
    parser.add_argument('--fps', type=float, default=10.0)
    options = parser.parse_args(remove_ros_args(sys.argv)[1:])
    try:
        node = ImageSource(open_source(options.source), options.camera, options.fps)
        node.run()
    except ValueError as error:
        parser.error(str(error))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
