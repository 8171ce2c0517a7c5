"""
What it costs the node to listen to a gyroscope: python benchmarks/imu.py

A node with six cameras that pass their frames, without frames and with some, is told to listen to
`imu` and not to, in turns, while this process publishes samples. Printed is the CPU time that its
process takes more with them, all its threads and the middleware's, as a share of one core: the
median of the rounds. Of frames that are deblurred it includes finding their paths.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

# Before rclpy is imported, which may start Python anew to find its libraries.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ.setdefault('ROS_DOMAIN_ID', str(os.getpid() % 90 + 1))
FAST_DDS = 'FASTRTPS' if os.environ.get('ROS_DISTRO') == 'jazzy' else 'FASTDDS'
os.environ.setdefault(f'{FAST_DDS}_DEFAULT_PROFILES_FILE', str(
    Path(__file__).parents[1] / 'config' / 'fastdds_large_images.xml'
))

import rclpy
import torch
from common import new_table, show
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, Imu

CAMERAS = [f'camera{number}' for number in range(6)]
SIZE = 48, 64  # height and width: what deblurs them should not hide what is measured


class Feeder(Node):
    """The IMU, the cameras' drivers, and the one who sets parameters."""

    def __init__(self, process: subprocess.Popen) -> None:
        super().__init__('feeder')
        self._process = process
        self._imu = self.create_publisher(Imu, 'imu', 100)
        self._images = [self.create_publisher(Image, f'{c}/image_raw', 1) for c in CAMERAS]
        self._infos = [self.create_publisher(CameraInfo, f'{c}/camera_info', 1) for c in CAMERAS]
        self._client = self.create_client(SetParameters, '/restore/set_parameters')
        self._taken = [
            self.create_subscription(Image, f'{c}/restored/image_raw', lambda _: None, 1, raw=True)
            for c in CAMERAS
        ]

    def set(self, **values: object) -> None:
        """Set parameters of the node."""
        assert self._client.wait_for_service(60)
        future = self._client.call_async(SetParameters.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]))
        rclpy.spin_until_future_complete(self, future, timeout_sec=60)
        assert all(result.successful for result in future.result().results)

    def used(self) -> float:
        """Return the CPU time (s) that the node has used."""
        # What clock_getcpuclockid(3) returns; /proc/PID/stat counts in steps of 10 ms only.
        return time.clock_gettime(~self._process.pid << 3 | 2)

    def drive(self, seconds: float, rate: float, fps: float) -> float:
        """Publish for some time; return the share of a core that the node takes."""
        sample = Imu()
        sample.header.frame_id = 'imu_link'
        image = Image(
            height=SIZE[0], width=SIZE[1], encoding='rgb8', step=3 * SIZE[1],
            data=bytes(3 * SIZE[0] * SIZE[1]),
        )
        info = CameraInfo(k=[60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0])
        before, started, shown = self.used(), time.monotonic(), 0
        for number in range(round(seconds * rate)):
            time.sleep(max(0, started + number / rate - time.monotonic()))
            now = time.time_ns()
            sample.header.stamp.sec, sample.header.stamp.nanosec = divmod(now, 10**9)
            self._imu.publish(serialize_message(sample))
            if fps and number / rate >= shown / fps:
                shown += 1
                image.header.stamp = info.header.stamp = sample.header.stamp
                for images, infos in zip(self._images, self._infos, strict=True):
                    infos.publish(info)
                    images.publish(image)
        return (self.used() - before) / (time.monotonic() - started)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description='What it costs to listen to a gyroscope.')
    parser.add_argument('--rate', type=float, default=400.0, help='samples per second')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=5.0, help='of a turn')
    options = parser.parse_args()
    # A child must find its own way to the ROS wheels' libraries.
    environment = {k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
    process = subprocess.Popen([
        sys.executable, '-m', 'iov_restore_ros.node.restore_node', '--ros-args',
        '-p', f'cameras:=[{", ".join(CAMERAS)}]', '-p', 'mode:=passthrough', '-p', 'device:=cpu',
        '-p', 'imu_rotation:=[0.0, 0.0, 0.0, 1.0]', '-p', 'precision:=float32',
        '-p', 'shutter:=0.02',
    ], env=environment, stderr=subprocess.DEVNULL)
    rclpy.init()
    table = new_table(
        f'{len(CAMERAS)} cameras, {options.rate:.0f} samples per second, % of a core',
        'frames', 'without imu', 'with imu', 'more', 'least', 'most')
    try:
        feeder = Feeder(process)
        for name, mode, fps in (
            ('none', 'passthrough', 0.0), ('passing, 10 fps', 'passthrough', 10.0),
            ('deblurred, 2 fps', 'deblur', 2.0),
        ):
            feeder.set(mode=mode)
            rounds = []
            for number in range(options.rounds + 1):
                shares = []
                for imu in (False, True):
                    feeder.set(imu=imu)
                    feeder.drive(1.0, options.rate, fps)
                    shares.append(100 * feeder.drive(options.seconds, options.rate, fps))
                if number:  # the first one warms up
                    rounds.append(shares)
            more = [after - before for before, after in rounds]
            table.add_row(name, *(f'{value:.1f}' for value in (
                *(statistics.median(each) for each in zip(*rounds, strict=True)),
                statistics.median(more), min(more), max(more),
            )))
    finally:
        process.send_signal(2)
        process.wait()
    rclpy.shutdown()
    show(torch.device('cpu'), table)


if __name__ == '__main__':
    main()
