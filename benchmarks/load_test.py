"""
The node under load, for minutes: python benchmarks/load_test.py [--minutes 10] [SCENARIO ...]

    one          one camera, 640x360 at 30 fps, mode deblur
    six          six cameras, 1280x720 at 30 fps, mode deblur
    flood        one camera at ten times the rate that the node holds (measured first)
    passthrough  as six, nothing restored

The node, every camera and the subscriber of the restored frames (this process) are processes of
their own on one machine, and compete for its cores. Prints a Markdown table; with --plot FILE.png
draws how the latency went (needs matplotlib). Not a test: nothing fails here.
"""

import argparse
import collections
import multiprocessing
import os
import re
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil, isnan, nan
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from threading import BrokenBarrierError

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image

from iov_restore_ros.tools.demo import process
from iov_restore_ros.tools.image_source import ImageSource

PROFILE = Path(__file__).parents[1] / 'config' / 'fastdds_large_images.xml'
FPS = 30.0
PICTURES = 4
MOST_OF_ONE_PROCESS = 200.0  # fps that a camera process can surely publish
OVERLOAD = 10
PROBE_FROM, PROBE = 2.5, 10.0  # fps, s
KEPT_UP = 0.95  # share of the frames that a node that holds a rate restores
SETTLED = 60.0  # s after which memory should not grow
PATIENCE = 60.0  # s
DISCOVERY = 1.0  # s
LAST_FRAMES = 2.0  # s that those on their way may take, and the next diagnostics


@dataclass(frozen=True)
class Scenario:
    """What is published, and what is done to it."""

    cameras: tuple[str, ...]
    fps: float
    mode: str
    size: tuple[int, int] = 1280, 720


SIX = tuple(f'camera{number}' for number in range(6))
SCENARIOS = {
    'one': Scenario(('camera',), FPS, 'deblur', (640, 360)),
    'six': Scenario(SIX, FPS, 'deblur'),
    'flood': Scenario(('camera',), 0.0, 'deblur'),  # the rate is measured
    'passthrough': Scenario(SIX, FPS, 'passthrough'),
}


# Cameras


class CountingCamera(ImageSource):
    """A camera that tells another process how many frames it has published."""

    def __init__(
        self, camera: str, fps: float, size: tuple[int, int], sent: Synchronized
    ) -> None:
        width, height = size
        rng = np.random.default_rng(0)
        small = rng.integers(0, 256, (PICTURES, height // 40, width // 40, 3), np.uint8)
        pictures = small.repeat(40, 1).repeat(40, 2)
        super().__init__(lambda number: pictures[number % PICTURES], camera, fps)
        self._sent = sent

    def wait_for_the_node(self) -> None:
        """Return when the node listens: what is sent before would count as lost."""
        while not all(publisher.get_subscription_count() for publisher in self.publishers
                      if publisher.topic_name.endswith('image_raw')):
            time.sleep(0.1)
        time.sleep(DISCOVERY)  # the node's side of it

    def publish(self, number: int) -> None:
        """Publish and count a frame."""
        super().publish(number)
        with self._sent:
            self._sent.value += 1


def run_camera(
    camera: str, fps: float, size: tuple[int, int], sent: Synchronized, ready: Barrier
) -> None:
    """Publish from when all are ``ready`` until SIGINT (a process of its own)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    rclpy.init()
    try:
        source = CountingCamera(camera, fps, size, sent)
        source.wait_for_the_node()
        ready.wait()
        source.run()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


class Cameras:
    """The processes that publish a scenario's frames."""

    def __init__(self, scenario: Scenario) -> None:
        """Start them; one camera at a rate too high for one process has several."""
        context = multiprocessing.get_context('spawn')
        share = ceil(scenario.fps / MOST_OF_ONE_PROCESS)
        self._sent = context.Value('Q')
        count = share * len(scenario.cameras)
        self._ready = context.Barrier(count + 1, timeout=PATIENCE)
        self._processes = [
            context.Process(
                target=run_camera,
                args=(name, scenario.fps / share, scenario.size, self._sent, self._ready),
            )
            for name in scenario.cameras for _ in range(share)
        ]
        for camera in self._processes:
            camera.start()

    def wait_until_they_begin(self) -> None:
        """Return when all publish. Raises ``BrokenBarrierError`` if they do not soon."""
        self._ready.wait()

    def sent(self) -> int:
        """Return how many frames all of them have published."""
        return self._sent.value

    def cpu(self) -> float:
        """Return the processor time that they have used, s."""
        return sum(cpu_seconds(camera.pid) for camera in self._processes if camera.pid)

    def stop(self) -> None:
        """Tell them to publish no more."""
        for camera in self._processes:
            if camera.pid:
                os.kill(camera.pid, signal.SIGINT)

    def end(self) -> None:
        """Wait for their end, or bring it about."""
        for camera in self._processes:
            camera.terminate()
            camera.join(10)
            camera.kill()


@contextmanager
def cameras_of(scenario: Scenario) -> Iterator[Cameras]:
    """Run the cameras of a scenario."""
    cameras = Cameras(scenario)
    try:
        yield cameras
    finally:
        cameras.end()


# What is seen


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def memory(pid: int) -> tuple[float, float]:
    """Return the resident memory of a process, and what of it is shared with others, MiB."""
    status = dict(
        line.split(':', 1) for line in Path(f'/proc/{pid}/status').read_text().splitlines()
    )
    resident, shared = (int(status[key].split()[0]) / 1024 for key in ('VmRSS', 'RssShmem'))
    return resident, shared


@dataclass
class Sample:
    """One look at the node, once a second."""

    time: float  # s since the begin
    resident: float  # MiB
    shared: float  # MiB
    status: dict[str, dict[str, str]]  # what /diagnostics says of each camera


@dataclass
class Seen:
    """All that was seen of one scenario."""

    fps: float
    seconds: float = 0.0
    sent: int = 0
    lost: int = 0  # before the node, as it says
    cpu: tuple[float, float, float] = 0.0, 0.0, 0.0  # cores: node, cameras, subscriber
    device: str = ''
    samples: list[Sample] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)  # s, camera to subscriber
    arrivals: list[float] = field(default_factory=list)  # s, monotonic; of the same frames
    got: collections.Counter[str] = field(default_factory=collections.Counter)
    accounts: dict[str, tuple[int, dict[str, int]]] = field(default_factory=dict)


class Subscriber(Node):
    """Wants the restored frames, and watches the node."""

    def __init__(self, scenario: Scenario, seen: Seen) -> None:
        super().__init__('load_test')
        self.status: dict[str, dict[str, str]] = {}
        self._seen = seen
        for camera in scenario.cameras:
            self.create_subscription(
                Image, f'{camera}/restored/image_raw',
                lambda data, camera=camera: self._on_frame(camera, data),
                qos_profile_sensor_data, raw=True,  # not turned into a message: that costs time
            )
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def lost(self) -> int:
        """Return how many frames the node missed, by its last diagnostics."""
        return sum(int(v['lost before the node'].split()[0]) for v in self.status.values())

    def spin(self, seconds: float) -> None:
        """Receive for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=left)

    def wait_for(self, condition, what: str) -> None:
        """Receive until ``condition`` holds. Raises ``TimeoutError``."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f'{what} did not happen within {PATIENCE:.0f} s')
            rclpy.spin_once(self, timeout_sec=0.1)

    def deactivate(self) -> None:
        """Let the node end its work, so that no frame is on its way."""
        client = self.create_client(ChangeState, 'restore/change_state')
        self.wait_for(client.service_is_ready, 'the lifecycle service')
        future = client.call_async(ChangeState.Request(
            transition=Transition(id=Transition.TRANSITION_DEACTIVATE)
        ))
        self.wait_for(future.done, 'deactivate')

    def _on_frame(self, camera: str, data: bytes) -> None:
        seconds, nanoseconds = struct.unpack_from('<iI', data, 4)  # the stamp is what comes first
        self._seen.got[camera] += 1
        self._seen.latencies.append(time.time() - seconds - nanoseconds / 1e9)
        self._seen.arrivals.append(time.monotonic())

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            values = {pair.key: pair.value for pair in status.values}
            _, _, name = status.name.rpartition('camera ')
            if name != status.name:
                self.status[name] = values
            else:
                self._seen.device = f'{values["model"]}, {values["device name"]}, ' \
                                    f'{values["precision"]}' if 'model' in values else ''


# Runs


def account(log: str) -> dict[str, tuple[int, dict[str, int]]]:
    """Return for each camera how many frames came and how they ended, from the node's log."""
    return {
        camera: (int(received), {
            name: int(count) for count, name in re.findall(r'(\d+) ([^+\n]+?)(?= \+|$)', ends)
        })
        for camera, received, ends in re.findall(r': (\S+): (\d+) received = (.*)', log)
    }


def load(scenario: Scenario, seconds: float, node_arguments: list[str]) -> Seen:
    """Run a scenario and return what was seen."""
    seen = Seen(scenario.fps)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / 'node.log'
        arguments = [
            '--ros-args', '-p', f'cameras:=[{", ".join(scenario.cameras)}]',
            '-p', f'mode:={scenario.mode}', *node_arguments,
        ]
        rclpy.init()
        subscriber = Subscriber(scenario, seen)
        try:
            with process('node.restore_node', *arguments, log=log) as node:
                with cameras_of(scenario) as cameras:
                    cameras.wait_until_they_begin()
                    watch(subscriber, seen, node.pid, cameras, seconds)
                    cameras.stop()
                    subscriber.spin(LAST_FRAMES)
                    seen.sent, seen.lost = cameras.sent(), subscriber.lost()
                subscriber.deactivate()
                subscriber.spin(LAST_FRAMES)
            seen.accounts = account(log.read_text())
        except (TimeoutError, BrokenBarrierError):
            sys.stderr.write(log.read_text())
            raise
        finally:
            subscriber.destroy_node()
            rclpy.try_shutdown()
    return seen


def watch(
    subscriber: Subscriber, seen: Seen, pid: int, cameras: Cameras, seconds: float
) -> None:
    """Receive for ``seconds``, and look at the node once in each of them."""
    def cpu() -> np.ndarray:
        return np.array([cpu_seconds(pid), cameras.cpu(), cpu_seconds(os.getpid())])

    started, before = time.monotonic(), cpu()
    while (elapsed := time.monotonic() - started) < seconds:
        seen.samples.append(Sample(elapsed, *memory(pid), dict(subscriber.status)))
        subscriber.spin(min(1.0, seconds - elapsed))
    seen.seconds = elapsed
    seen.cpu = tuple((cpu() - before) / elapsed)


def held_rate(scenario: Scenario, node_arguments: list[str]) -> float:
    """Double the rate until the node no longer restores all; return what it restores then."""
    fps = PROBE_FROM
    while True:
        seen = load(Scenario(scenario.cameras, fps, scenario.mode), PROBE, node_arguments)
        out = sum(published(seen)) / seen.seconds
        if out < KEPT_UP * seen.sent / seen.seconds:
            return out
        fps *= 2


# Figures


def published(seen: Seen) -> list[int]:
    """Return how many frames of each camera the node published."""
    return [
        sum(n for name, n in ends.items() if not name.startswith('dropped'))
        for _, ends in seen.accounts.values()
    ]


def growth(seen: Seen) -> tuple[float, float]:
    """Return by how much the node's own and the shared memory grow in 10 minutes, MiB."""
    settled = [(s.time, s.resident - s.shared, s.shared) for s in seen.samples if s.time >= SETTLED]
    if len(settled) < 2:
        return nan, nan
    times, own, shared = zip(*settled, strict=True)
    return tuple(600 * np.polyfit(times, values, 1)[0] for values in (own, shared))


def diagnosed(seen: Seen, name: str) -> list[float]:
    """Return all values of a time that /diagnostics gave, ms; one NaN if there were none."""
    values = [
        float(values[f'{name} ms']) for sample in seen.samples for values in sample.status.values()
    ]
    return [value for value in values if not isnan(value)] or [nan]


def figures(seen: Seen) -> dict[str, str]:
    """Return the rows of the table."""
    received = sum(n for n, _ in seen.accounts.values())
    ends = collections.Counter[str]()
    for _, of_camera in seen.accounts.values():
        ends.update(of_camera)
    out = np.array(published(seen)) / seen.seconds
    settled = next((s for s in seen.samples if s.time >= SETTLED), seen.samples[-1])
    last = seen.samples[-1]
    adds_up = all(n == sum(e.values()) for n, e in seen.accounts.values())
    node, cameras, subscriber = seen.cpu
    return {
        'seconds': f'{seen.seconds:.0f}',
        'frames sent': f'{seen.sent} ({seen.sent / seen.seconds:.1f} per s)',
        'received by the node': f'{received} ({100 * received / max(1, seen.sent):.1f} %)',
        'lost before the node, as it counted': str(seen.lost),
        'restored': str(ends.pop('restored', 0)),
        'passed': str(sum(n for name, n in ends.items() if name.startswith('passed'))),
        **{name: str(n) for name, n in sorted(ends.items()) if name.startswith('dropped')},
        'received = sum of the ends, every camera': 'yes' if adds_up else 'NO',
        'fps out per camera, least and most': f'{out.min():.2f}, {out.max():.2f}',
        "Jain's index of fairness": f'{out.sum() ** 2 / (len(out) * (out**2).sum()):.5f}',
        'published, and got by the subscriber': f'{sum(published(seen))}, {seen.got.total()}',
        'restoring p50, ms (median)': f'{median(diagnosed(seen, "restoring p50")):.0f}',
        'in the node p50, ms (median)':
            f'{median(diagnosed(seen, "in the node p50")):.0f}',
        'in the node p99, ms (worst)':
            f'{max(diagnosed(seen, "in the node p99")):.0f}',
        'camera to subscriber p50, p99, most, ms': ', '.join(
            f'{1000 * v:.0f}' for v in np.percentile(seen.latencies, (50, 99, 100))
        ),
        f'RSS after {settled.time:.0f} s, at the end, MiB':
            f'{settled.resident:.0f}, {last.resident:.0f}',
        'of it shared memory, MiB': f'{settled.shared:.0f}, {last.shared:.0f}',
        'growth per 10 minutes: own, shared, MiB':
            '{:+.1f}, {:+.1f}'.format(*growth(seen)),
        'cores used by the node, cameras, subscriber':
            f'{node:.2f}, {cameras:.2f}, {subscriber:.2f}',
    }


def machine() -> str:
    """Return the name of the processor."""
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    name = next((line for line in lines if line.startswith('model name')), ': CPU')
    return f'{os.cpu_count()} x {name.partition(":")[2].strip()}'


def show(results: dict[str, Seen]) -> None:
    """Print the table."""
    rows = {name: figures(seen) for name, seen in results.items()}
    table = Table(box=MARKDOWN, title=f'{machine()}; {next(iter(results.values())).device}')
    for heading in ('', *rows):
        table.add_column(heading)
    for figure in dict.fromkeys(name for row in rows.values() for name in row):
        table.add_row(figure, *(row.get(figure, '0') for row in rows.values()))
    Console(width=160).print(table)


def draw(results: dict[str, Seen], path: Path) -> None:
    """Draw median and 99th percentile of the latency in each second, and write a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure((9, 2.6 * len(results)), layout='constrained')
    plots = figure.subplots(len(results), squeeze=False)[:, 0]
    for axes, (name, seen) in zip(plots, results.items(), strict=True):
        seconds = (np.array(seen.arrivals) - min(seen.arrivals, default=0)).astype(int)
        latencies = 1000 * np.array(seen.latencies)
        when = np.unique(seconds)
        for percent in (50, 99):
            values = [np.percentile(latencies[seconds == second], percent) for second in when]
            axes.plot(when, values, label=f'p{percent}')
        axes.set(xlabel='s', ylabel='camera to subscriber, ms', ylim=(0, None))
        axes.set_title(f'{name}: {seen.fps:.1f} fps; {machine()}; {seen.device}', fontsize='small')
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run the scenarios, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description='The node under load.')
    parser.add_argument('scenarios', nargs='*', help=f'{", ".join(SCENARIOS)}; all if none')
    parser.add_argument('--minutes', type=float, default=10.0)
    parser.add_argument('--device', default='auto', help="the node's")
    parser.add_argument(
        '--plot', type=Path, metavar='FILE.png', help='draw the latency over time there'
    )
    options = parser.parse_args()
    if options.plot:
        try:
            import matplotlib  # noqa: F401  before anything is measured
        except ImportError as error:
            parser.error(f"{error}: pip install matplotlib, or the extra: pip install '.[plots]'")
        if not options.plot.absolute().parent.is_dir():
            parser.error(f'--plot: there is no folder {options.plot.absolute().parent}')
    if unknown := set(options.scenarios) - set(SCENARIOS):
        parser.error(f'no such scenario: {", ".join(unknown)}')
    prefix = 'FASTRTPS' if os.environ.get('ROS_DISTRO') == 'jazzy' else 'FASTDDS'
    os.environ.setdefault(f'{prefix}_DEFAULT_PROFILES_FILE', str(PROFILE))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    node_arguments = ['-p', f'device:={options.device}']
    results: dict[str, Seen] = {}
    try:
        for name in options.scenarios or SCENARIOS:
            scenario = SCENARIOS[name]
            if name == 'flood':
                held = held_rate(scenario, node_arguments)
                print(f'flood: {held:.1f} fps are held, {OVERLOAD * held:.1f} published')
                scenario = Scenario(scenario.cameras, OVERLOAD * held, scenario.mode)
            print(f'{name}: {len(scenario.cameras)} cameras at {scenario.fps:.1f} fps, '
                  f'{options.minutes:g} minutes ...')
            results[name] = load(scenario, 60 * options.minutes, node_arguments)
    finally:
        if results:
            show(results)
            if options.plot:
                draw(results, options.plot)


if __name__ == '__main__':
    main()
