"""
Where a frame's time goes, stage by stage: python benchmarks/stages.py

Another process gets each frame that is published here and answers with one, both over DDS.
`receive` is from before its publishing to the callback here, `publish` the call here. Between them
are the functions of the node, and the operations of the restorer one by one, each until the device
has done it. The last lines show what the restorer itself takes, in which stages may overlap or be
fused, and all but receive and publish.

The floor of the model is that of floor.py; of the other stages, the bytes that they must read and
write over the bandwidth of copies there, once (a copy between host and device: over that of the
bus). All is measured in turn in every round; medians. Not a test: nothing fails here.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from relay import STAMP, Middle, running, serialized  # first: it sets the environment for rclpy

# isort: split
import numpy as np
import rclpy
import torch
from common import as_size, make_restorer, new_table, show, timed
from floor import Machine, least_work
from rclpy.node import Node
from sensor_msgs.msg import Image

from iov_restore_ros.compute.cpu import compute
from iov_restore_ros.compute.device import pick_device
from iov_restore_ros.compute.precisions import prepare
from iov_restore_ros.model import Generator
from iov_restore_ros.node.images import from_rgb, to_rgb, view

SIZES = ('640x360', '1280x720', '1920x1080')
PATIENCE = 60.0  # s


def other(size: str) -> None:
    """Be the other process."""
    rclpy.init()
    node, frame = Node('other'), serialized(as_size(size))
    stamp = np.frombuffer(frame, '<u4', 2, STAMP)
    publisher = node.create_publisher(Image, 'there', 1)

    def answer(_: bytes) -> None:
        stamp[:] = divmod(time.monotonic_ns(), 10**9)
        publisher.publish(bytes(frame))

    node.create_subscription(Image, 'back', answer, 1, raw=True)
    rclpy.spin(node)


class Here(Node):
    """This process's end."""

    def __init__(self) -> None:
        super().__init__('here')
        self._got: list[tuple[Image, float]] = []
        self._publisher = self.create_publisher(Image, 'back', 1)
        self._subscription = self.create_subscription(Image, 'there', self._on_frame, 1)

    def _on_frame(self, message: Image) -> None:
        now = time.monotonic_ns()
        stamp = message.header.stamp
        self._got.append((message, (now - stamp.sec * 10**9 - stamp.nanosec) / 1e9))

    def wait(self) -> None:
        """Wait until the processes have found each other."""
        end = time.monotonic() + PATIENCE
        while not (
            self._publisher.get_subscription_count() and self._subscription.get_publisher_count()
        ):
            if time.monotonic() > end:
                raise TimeoutError(f'the other process did not come up in {PATIENCE} s')
            rclpy.spin_once(self, timeout_sec=0.1)
        time.sleep(1.0)  # the other one's side of the discovery

    def exchange(self, message: Image) -> tuple[Image, float, float]:
        """Publish ``message``; return the answer, the seconds of receive, and those of publish."""
        started = time.perf_counter()
        self._publisher.publish(message)
        publish = time.perf_counter() - started
        while not self._got:
            rclpy.spin_once(self)
        answer, receive = self._got.pop()
        return answer, receive, publish


class Stages:
    """The stages between receive and publish."""

    def __init__(self, model: str, device: str, precision: str) -> None:
        self.restorer = make_restorer(model, device, precision)
        self.device = self.restorer.device
        self._generator = Generator(model).eval()
        prepare(self._generator, self.device, self.restorer.precision)

    @torch.inference_mode()
    def run(self, message: Image) -> tuple[Image, dict[str, float]]:
        """Take a frame through all; return what is to be published, and the seconds of each."""
        seconds: dict[str, float] = {}

        def stage(name: str, work: Callable):
            result = []
            seconds[name] = timed(self.device, lambda: result.append(work()))
            return result[0]

        on_cuda = self.device.type == 'cuda'
        sent = torch.empty(1, message.height, message.width, 3, dtype=torch.uint8,
                           pin_memory=on_cuda)
        frame = stage('view', lambda: to_rgb(view(message), message.encoding))
        stage('gather', lambda: np.stack([frame], out=sent.numpy()))
        pixels = stage('copy in', lambda: sent.to(self.device)) if on_cuda else sent
        image = stage('convert', lambda: pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255))
        restored = stage('model', lambda: self._generator(image))
        pixels = stage('convert back', lambda: (
            torch.isfinite(restored.sum()),
            restored.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
            .permute(0, 2, 3, 1).contiguous(),
        ))[1]
        out = stage('copy out', lambda: sent.copy_(pixels)) if on_cuda else pixels
        result = stage('message', lambda: from_rgb(out.numpy()[0], message))
        seconds['Restorer.restore'] = timed(
            self.device, lambda: self.restorer.restore([frame], 'deblur'))
        return result, seconds


def floors(stages: Stages, rates: dict[str, float], model: str, size: str) -> dict[str, float]:
    """Return the least seconds that each stage can take."""
    width, height = as_size(size)
    frame = 3 * width * height  # bytes
    host, there = rates['cpu copies'], rates[f'{stages.device.type} copies']
    once = 2 * frame / host
    converting = 5 * frame / there  # uint8 and float32
    work = least_work(model, (width, height), stages.restorer.precision)
    network = max(work.seconds(rates, stages.device.type))
    return {
        'receive': once, 'view': 0.0, 'gather': once,
        'copy in': frame / rates.get('host to device', host), 'convert': converting,
        'model': network, 'convert back': converting,
        'copy out': frame / rates.get('device to host', host), 'message': once, 'publish': once,
        'Restorer.restore': network,
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description='Where the time of a frame goes.')
    parser.add_argument('--other', help=argparse.SUPPRESS)
    parser.add_argument('--device', default='auto')
    parser.add_argument('--precision', default='auto')
    parser.add_argument('--model', default='fast')
    parser.add_argument('--sizes', nargs='+', default=SIZES)
    parser.add_argument('--rounds', type=int, default=15)
    options = parser.parse_args()
    if options.other:
        other(options.other)
        return
    rclpy.init()
    machine = Machine(pick_device(options.device))
    stages = Stages(options.model, options.device, options.precision)
    tables = []
    for size in options.sizes:
        here, rounds, least = Here(), [], []
        with running([Middle('other', [sys.executable, __file__, '--other', size])]):
            here.wait()
            message = Image()
            for number in range(options.rounds + 1):
                message, receive, publish = here.exchange(message)
                message, inner = stages.run(message)
                if number:  # the first round warms up, and publishes an empty image
                    rounds.append({'receive': receive, **inner, 'publish': publish})
                    least.append(floors(stages, machine.all(), options.model, size))
        here.destroy_node()
        title = f'{options.model} {stages.restorer.precision} at {size}'
        tables.append(table(title, rounds, least))
    rclpy.shutdown()
    show(stages.device, *tables)


def table(title: str, rounds: list[dict[str, float]], least: list[dict[str, float]]):
    """Return the table of one size."""
    result = new_table(f'{title}, ms', 'stage', 'floor', 'median', 'p90', 'to the floor', 'share')
    stages = [name for name in rounds[0] if name != 'Restorer.restore']
    total = sum(statistics.median(r[name] for r in rounds) for name in stages)
    for name in (*stages, 'Restorer.restore'):
        took, floor = [r[name] for r in rounds], statistics.median(f[name] for f in least)
        ratio = f'{statistics.median(took) / floor:.2f}' if floor else ''
        result.add_row(
            name, f'{1000 * floor:.2f}', f'{1000 * statistics.median(took):.2f}',
            f'{1000 * np.percentile(took, 90):.2f}', ratio,
            f'{100 * statistics.median(took) / total:.1f} %')
    result.add_row('all stages', '', f'{1000 * total:.2f}', '', '', '100 %')
    return result


if __name__ == '__main__':
    compute(main)
