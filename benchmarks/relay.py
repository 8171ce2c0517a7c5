"""
What the node costs beside a bare rclpy relay: python benchmarks/relay.py

A relay subscribes and publishes the same message, nothing else. Relay and nodes (`passthrough`,
`deblur`) are processes of their own; they get frames in turns, some seconds each, round after
round. This process publishes the frames, serialized beforehand, and takes them back serialized, so
that its own share of the latency (from before publishing to the callback) is small. CPU is that of
the process in the middle, with all its threads and its diagnostics. A frame that is restored is
followed by the next one when it is back, or after the frame period if that is longer: so none
waits for another. Beside restoring are what the node and what the whole way took: differences of
medians, true on a quiet machine.

Ratios are medians of the rounds'. Not a test: nothing fails here.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Before rclpy is imported, which may start Python anew to find its libraries.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ.setdefault('ROS_DOMAIN_ID', str(os.getpid() % 90 + 1))
FAST_DDS = 'FASTRTPS' if os.environ.get('ROS_DISTRO') == 'jazzy' else 'FASTDDS'
os.environ.setdefault(f'{FAST_DDS}_DEFAULT_PROFILES_FILE', str(
    Path(__file__).parents[1] / 'config' / 'fastdds_large_images.xml'
))

import numpy as np
import rclpy
import torch
from common import as_size, new_table, random_frame, show
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

SIZES = ('640x360', '1280x720')
FPS = 30
PATIENCE = 60.0  # s until processes have found each other
LOST = 10.0  # s after which a frame comes no more
STAMP = 4  # where the stamp lies in a serialized message


def relay() -> None:
    """Be the bare relay."""
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.init()
        node = Node('relay')
        publisher = node.create_publisher(Image, 'relay/restored/image_raw', 5)
        node.create_subscription(
            Image, 'relay/image_raw', publisher.publish,
            QoSProfile(depth=1, reliability=qos_profile_sensor_data.reliability))
        rclpy.spin(node)


@dataclass
class Middle:
    """A process between camera and stack, and what was measured of it, by rounds."""

    name: str
    command: list[str]
    process: subprocess.Popen | None = None
    sent: int = 0
    latencies: list[list[float]] = field(default_factory=list)  # s
    cpu: list[float] = field(default_factory=list)  # s per frame
    account: dict[str, str] = field(default_factory=dict)  # its own, of its last 300 frames

    def used(self) -> float:
        """Return the CPU time (s) that the process has used."""
        assert self.process is not None
        # What clock_getcpuclockid(3) returns; /proc/PID/stat counts in steps of 10 ms only.
        return time.clock_gettime(~self.process.pid << 3 | 2)


def middles(options: argparse.Namespace) -> list[Middle]:
    """Return the relay and the nodes, not started yet."""
    nodes = [
        Middle(mode, [
            sys.executable, '-m', 'iov_restore_ros.node.restore_node', '--ros-args',
            '-r', f'__node:={mode}', '-p', f'cameras:=[{mode}]', '-p', f'mode:={mode}',
            '-p', f'device:={options.device}', '-p', f'precision:={options.precision}',
        ]) for mode in ('passthrough', 'deblur')
    ]
    return [Middle('relay', [sys.executable, __file__, '--relay']), *nodes]


@contextlib.contextmanager
def running(parts: list[Middle]) -> Iterator[None]:
    """Run the processes; ends them with SIGINT."""
    # A child must find its own way to the ROS wheels' libraries.
    environment = {k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
    try:
        for middle in parts:
            middle.process = subprocess.Popen(
                middle.command, env=environment, stderr=subprocess.DEVNULL)
        yield
    finally:
        for middle in parts:
            if middle.process is not None:
                middle.process.send_signal(2)
                middle.process.wait()


class Ends(Node):
    """The camera before, and the stack behind, every process in the middle."""

    def __init__(self, parts: list[Middle]) -> None:
        super().__init__('ends')
        self.arrived: dict[str, list[float]] = {}  # latencies, s
        self.status: dict[str, dict[str, str]] = {}
        self._ways = {}
        for middle in parts:
            publisher = self.create_publisher(
                Image, f'{middle.name}/image_raw', qos_profile_sensor_data)
            subscription = self.create_subscription(
                Image, f'{middle.name}/restored/image_raw',
                lambda data, name=middle.name: self._on_frame(name, data),
                qos_profile_sensor_data, raw=True)
            self._ways[middle.name] = publisher, subscription
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def _on_frame(self, name: str, data: bytes) -> None:
        now = time.monotonic_ns()
        sec, nanosec = np.frombuffer(data, '<u4', 2, STAMP).tolist()
        self.arrived[name].append((now - sec * 10**9 - nanosec) / 1e9)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        self.status |= {s.name: {v.key: v.value for v in s.values} for s in array.status}

    def spin(self, until: float) -> None:
        """Receive until that time, monotonic."""
        while (left := until - time.monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=left)

    def wait(self) -> None:
        """Wait until all have found each other."""
        end = time.monotonic() + PATIENCE
        while not all(
            publisher.get_subscription_count() and subscription.get_publisher_count()
            for publisher, subscription in self._ways.values()
        ):
            if time.monotonic() > end:
                raise TimeoutError(f'a process did not come up in {PATIENCE} s')
            self.spin(time.monotonic() + 0.1)
        self.spin(time.monotonic() + 1.0)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Receive until ``condition`` holds, or something must be lost."""
        end = time.monotonic() + LOST
        while not condition() and time.monotonic() < end:
            rclpy.spin_once(self, timeout_sec=0.1)

    def drive(self, middle: Middle, frame: bytearray, seconds: float) -> None:
        """Give frames to a process for some time and measure."""
        publisher, _ = self._ways[middle.name]
        stamp = np.frombuffer(frame, '<u4', 2, STAMP)
        arrived = self.arrived[middle.name] = []
        sent, before, started = 0, middle.used(), time.monotonic()
        while (due := started + sent / FPS) < started + seconds:
            self.spin(due)
            if middle.name != 'passthrough':
                self.wait_for(lambda: len(arrived) >= sent)  # noqa: B023  called at once
                if time.monotonic() > started + seconds:
                    break
            stamp[:] = divmod(time.monotonic_ns(), 10**9)
            publisher.publish(bytes(frame))
            sent += 1
        self.wait_for(lambda: len(arrived) >= sent)
        middle.cpu.append((middle.used() - before) / sent)
        middle.latencies.append(arrived)
        middle.sent += sent


def serialized(size: tuple[int, int]) -> bytearray:
    """Return a frame of noise as it goes over the wire."""
    width, height = size
    message = Image(
        height=height, width=width, encoding='rgb8', step=3 * width,
        data=random_frame(size).tobytes())
    message.header.frame_id = 'camera'
    return bytearray(serialize_message(message))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description='What the node costs beside a bare relay.')
    parser.add_argument('--relay', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--device', default='auto')
    parser.add_argument('--precision', default='auto')
    parser.add_argument('--sizes', nargs='+', default=SIZES)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=3.0, help='of a turn')
    options = parser.parse_args()
    if options.relay:
        relay()
        return
    rclpy.init()
    table = new_table(
        f'{FPS} fps; latency and CPU of a frame in ms', 'size, process', 'arrived', 'p50', 'p99',
        'of relay', 'CPU', 'of relay', 'restoring', 'node beside', 'all beside')
    for size in options.sizes:
        parts = middles(options)
        frame = serialized(as_size(size))
        with running(parts):
            ends = Ends(parts)
            ends.wait()
            for number in range(options.rounds + 1):
                for middle in parts:
                    ends.drive(middle, frame, options.seconds)
                    if number == 0:  # that one warms up
                        middle.sent, middle.latencies, middle.cpu = 0, [], []
            ends.spin(time.monotonic() + 1.5)
            parts[-1].account = ends.status['deblur: camera deblur']
            ends.destroy_node()
        for middle in parts:
            table.add_row(f'{size} {middle.name}', *row(middle, parts[0]))
    rclpy.shutdown()
    show(torch.device('cpu'), table)


def row(middle: Middle, relay: Middle) -> list[str]:
    """Return the figures of a process as text."""
    latencies = 1000 * np.concatenate(middle.latencies)
    p50 = float(np.median(latencies))
    of_relay = statistics.median(
        statistics.median(a) / statistics.median(b)
        for a, b in zip(middle.latencies, relay.latencies, strict=True))
    cpu = statistics.median(a / b for a, b in zip(middle.cpu, relay.cpu, strict=True))
    return [
        f'{len(latencies)} of {middle.sent}', f'{p50:.2f}', f'{np.percentile(latencies, 99):.2f}',
        f'{of_relay:.2f}', f'{1000 * statistics.median(middle.cpu):.2f}', f'{cpu:.2f}',
        *beside_restoring(p50, middle.account),
    ]


def beside_restoring(latency: float, account: dict[str, str]) -> list[str]:
    """Return the time (ms) of restoring, and what the node, and the whole way, took beside it."""
    if not account:
        return ['', '', '']
    restoring, in_node = (float(account[f'{key} p50 ms']) for key in ('restoring', 'in the node'))
    return [f'{value:.1f}' for value in (restoring, in_node - restoring, latency - restoring)]


if __name__ == '__main__':
    main()
