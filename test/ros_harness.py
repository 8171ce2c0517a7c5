"""What the node tests share: a node process, and a ROS participant that feeds and watches it."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from iov_restore_ros.node.encodings import ENCODINGS
from iov_restore_ros.node.images import from_rgb

PATIENCE = 30.0  # s
SIMULATED = 10**6  # s; the simulated clocks of tests are below
# Each of the processes that share the tests has domains of its own.
WORKERS = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', '1'))
WORKER = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))
_domains = itertools.count(os.getpid() % 90 // WORKERS * WORKERS + WORKER, WORKERS)


def free_domain():
    """Return a ROS domain (1..90) in which nobody on this machine is, as a string."""
    for number in itertools.islice(_domains, 90):
        domain = number % 90 + 1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
            try:  # the first participant of a domain has this one (RTPS 2.5, Sec. 9.6.2.3)
                port.bind(('', 7410 + 250 * domain))
            except OSError:
                continue
        return str(domain)
    raise OSError('somebody is in each of the ROS domains 1 to 90')


def make_message(pixels, number, encoding='rgb8', frame_id='lens'):
    """Return an image message of RGB ``pixels`` in ``encoding``; ``number`` makes its stamp."""
    template = Image(encoding=encoding, height=pixels.shape[0], width=pixels.shape[1])
    template.header.frame_id = frame_id
    template.header.stamp.sec, template.header.stamp.nanosec = 1000 + number, 123_456_789
    if ENCODINGS[encoding][0] == 4:
        alpha = np.full((*pixels.shape[:2], 4), 77, np.uint8)
        template.step, template.data = 4 * pixels.shape[1], alpha.tobytes()
    return from_rgb(pixels, template)


def message_at(pixels, time, encoding='rgb8'):
    """Return an image message of RGB ``pixels``, taken at ``time`` s."""
    message = make_message(pixels, 0, encoding)
    message.header.stamp.sec = int(time)
    message.header.stamp.nanosec = round((time - int(time)) * 1e9)
    return message


def make_info(message, k=500.0):
    """Return the camera_info that goes with ``message``."""
    info = CameraInfo(header=message.header, height=message.height, width=message.width)
    info.k[0] = k
    return info


def seconds(stamp):
    """Return a stamp as a number."""
    return stamp.sec + stamp.nanosec / 1e9


class Rig:
    """A ROS domain of its own with one node under test and one participant, this object."""

    def __init__(self, log: Path, domain=None):
        self.domain = domain or free_domain()
        self.log = log
        self.process = None
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=int(self.domain))
        self.node = Node('test_participant', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.images = {}
        self.infos = {}
        self.diagnostics = []
        self._publishers = {}
        self._clients = {}
        self.node.create_subscription(
            DiagnosticArray, '/diagnostics', self.diagnostics.append, 10
        )

    def launch(self, ros_args=(), **parameters):
        """Start the node as a process."""
        command = [
            sys.executable, '-m', 'iov_restore_ros.node.restore_node', '--ros-args', *ros_args
        ]
        for name, value in parameters.items():
            command += ['-p', f'{name}:={value}']
        # A child must find its own way to the libraries of the ROS wheels.
        environment = {
            k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'
        } | {'ROS_DOMAIN_ID': self.domain}
        with self.log.open('w') as file:
            self.process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    def connect(self, camera):
        """Be the driver of ``camera`` and the one who wants its restored frames."""
        self.images[camera], self.infos[camera] = [], []
        for kind, topic, messages in (
            (Image, 'image_raw', self.images[camera]),
            (CameraInfo, 'camera_info', self.infos[camera]),
        ):
            self._publishers[camera, topic] = self.node.create_publisher(
                kind, f'{camera}/{topic}', 10
            )
            self.node.create_subscription(
                kind, f'{camera}/restored/{topic}', messages.append, qos_profile_sensor_data
            )

    def start(self, cameras=('camera',), **parameters):
        """Start the node and, unless autostart is off, wait until it listens to all cameras."""
        self.launch(cameras=f'[{", ".join(cameras)}]', precision='float32', **parameters)
        for camera in cameras:
            self.connect(camera)
        if parameters.get('autostart', True) is True:
            self.wait_until_listening()

    def wait_until_listening(self):
        """Wait until the node and this participant have found each other."""
        self.wait(lambda: all(
            publisher.get_subscription_count() and
            self.node.count_publishers(f'{camera}/restored/{topic}')
            for (camera, topic), publisher in self._publishers.items()
        ))
        self.spin(0.3)  # the node's side of the discovery

    def send(self, message, camera='camera'):
        """Publish an Image or CameraInfo."""
        topic = 'image_raw' if isinstance(message, Image) else 'camera_info'
        self._publishers[camera, topic].publish(message)

    def round_trip(self, message, camera='camera'):
        """Publish an image and return what the node made of it."""
        self.send(message, camera)
        return self.wait(lambda: next(
            (m for m in self.images[camera] if m.header == message.header), None
        ))

    def spin(self, seconds):
        """Receive for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def wait(self, condition):
        """Receive until ``condition`` gives something true, and return that."""
        end = time.monotonic() + PATIENCE
        while not (result := condition()):
            assert time.monotonic() < end, f'waited in vain; the node said:\n{self.said()}'
            self.executor.spin_once(timeout_sec=0.02)
        return result

    def call(self, kind, service, request):
        """Call a service of the node under test and return the answer."""
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
        client = self._clients[service]
        if not client.service_is_ready():
            self.wait(client.service_is_ready)
            self.spin(0.5)  # the node's side of the discovery: it would lose the answer
        future = client.call_async(request)
        self.wait(future.done)
        return future.result()

    def set_parameters(self, **values):
        """Set parameters through the service, each on its own; return the results."""
        request = SetParameters.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ])
        return self.call(SetParameters, '/restore/set_parameters', request).results

    def next_status(self, name, saying=''):
        """Return (level, message, values) of the next diagnostics about ``name`` that say so."""
        self.diagnostics.clear()
        now = self.node.get_clock().now().nanoseconds / 1e9
        found = self.wait(lambda: [
            s for array in self.diagnostics for s in array.status
            if s.name.endswith(name) and saying in s.message
            and not SIMULATED < seconds(array.header.stamp) < now
        ])
        return found[0].level, found[0].message, {v.key: v.value for v in found[0].values}

    def said(self):
        """Return what the node has logged so far."""
        return self.log.read_text()

    def stop(self, how=signal.SIGINT):
        """Signal the node; return its exit status and how long it took to end (s)."""
        started = time.monotonic()
        self.process.send_signal(how)
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        return status, time.monotonic() - started

    def close(self):
        """End everything."""
        if self.process and self.process.poll() is None:
            self.stop()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
