"""
The demo: a camera process, the node, and a subscriber, on one machine.

    make demo [SOURCE=clip.mp4]

The camera moves over photographs of scikit-image: fast enough for motion blur, then on bad roads
with an IMU, then in rain, then behind glass with drops. Or it shows SOURCE. The demo changes mode,
use_past and imu while everything runs, so the same node also shows each frame alone. At the end it
saves a comparison.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import qos_profile_sensor_data
from rich.console import Console
from sensor_msgs.msg import CompressedImage, Image

from iov_restore_ros.node.images import view
from iov_restore_ros.outputs import OutputError, keep_apart
from iov_restore_ros.pictures.picture import Picture
from iov_restore_ros.pictures.write import write_picture
from iov_restore_ros.tools.demo_footage import (
    BUMPY_SHUTTER,
    FPS,
    FRAMES_EACH,
    Footage,
    behind_glass,
    blurred,
    bumpy,
    rainy,
)
from iov_restore_ros.tools.demo_report import (
    Row,
    Sample,
    Seen,
    measure_drives,
    print_table,
    write_before_after,
    write_report,
)
from iov_restore_ros.whole import write_whole

SECONDS = 8.0  # per mode: longer than the footage
PATIENCE = 60.0  # seconds to wait for anything


class Setting(NamedTuple):
    """The mode of the node, and whether it uses the previous frame and the gyroscope."""

    mode: str
    use_past: bool = True
    imu: bool = False


@dataclass(frozen=True)
class Scene:
    """What the camera shows, options of ``image_source``, and the settings of the node."""

    name: str
    source: str
    settings: tuple[Setting, ...]
    footage: Footage | None = None  # None if there are no sharp frames
    options: tuple[str, ...] = ()
    shutter: float = 0.0  # the node's parameter; 0: it estimates it
    about: str = ''  # a description for the report


def film(folder: Path) -> list[Scene]:
    """Return our own scenes, with their frames below ``folder``."""
    blur, bumps, rain, glass = blurred(), bumpy(), rainy(), behind_glass()
    rates, intrinsics = folder / 'bumps.csv', ','.join(map(str, bumps.intrinsics))
    np.savetxt(rates, bumps.rates, '%.6f', ',', header='t,wx,wy,wz', comments='')
    passthrough, alone = Setting('passthrough'), Setting('deblur', use_past=False)
    return [
        Scene(
            'blur', write_footage(blur, folder / 'blur'),
            (passthrough, alone, Setting('deblur')), blur,
        ),
        Scene(
            'bumps', write_footage(bumps, folder / 'bumps'),
            (passthrough, alone, Setting('deblur'), Setting('deblur', imu=True)), bumps,
            (
                '--imu', str(rates), '--intrinsics', intrinsics,
                '--exposure', str(BUMPY_SHUTTER / FPS),
            ), BUMPY_SHUTTER,
        ),
        Scene(
            'rain', write_footage(rain, folder / 'rain'),
            (
                passthrough, Setting('derain', use_past=False), Setting('derain'),
                Setting('auto'),
            ), rain,
        ),
        Scene(
            'glass', write_footage(glass, folder / 'glass'), (passthrough, Setting('derain')),
            glass, about=(
                'Drops gather on the glass in front of the lens. A wiper removes most of them, and '
                'new ones gather. Where a drop is found, the scene is filled in from earlier '
                'frames and from the surroundings. The wiper stays.'
            ),
        ),
    ]


def write_footage(footage: Footage, folder: Path) -> str:
    """Write the frames for the camera; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(footage.degraded):
        write_picture(folder / f'{number:03}.png', Picture(frame))
    return str(folder)


@contextlib.contextmanager
def process(module: str, *arguments: str, log: Path) -> Iterator[subprocess.Popen]:
    """Run a module of this package as a process; end it with SIGINT."""
    with log.open('w') as file:
        command = [sys.executable, '-m', f'iov_restore_ros.{module}', *arguments]
        # The child must set up the libraries of the ROS wheels itself.
        environment = {
            k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'
        }
        child = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment
        )
        try:
            yield child
        finally:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()


class Stack(Node):
    """A subscriber like a perception stack: gets restored frames and the node's diagnostics."""

    def __init__(self) -> None:
        super().__init__('perception_stack')
        self.frames: list[tuple[Image, float]] = []
        self.status: dict[str, str] = {}
        self.counted_at = 0.0
        self.degraded: dict[int, np.ndarray] = {}
        qos = qos_profile_sensor_data
        self.create_subscription(Image, 'camera/restored/image_raw', self._on_frame, qos)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.parameters = AsyncParameterClient(self, 'restore')

    def watch_input(self) -> None:
        """Subscribe to the camera's own frames too, to show them beside the restored ones."""
        self.create_subscription(
            Image, 'camera/image_raw',
            lambda message: self.degraded.update({stamp_ns(message): view(message).copy()}),
            qos_profile_sensor_data,
        )

    def save_comparison(self, path: Path) -> None:
        """Write one of the node's comparisons as a JPEG file."""
        seen: list[CompressedImage] = []
        looking = self.create_subscription(
            CompressedImage, 'camera/restored/compare/compressed', seen.append,
            qos_profile_sensor_data,
        )
        self.wait_for(lambda: len(seen) > 3, 'comparisons')  # the first one shows no rate
        self.destroy_subscription(looking)
        write_whole(path, bytes(seen[-1].data))

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Spin until ``condition`` holds. Raises ``TimeoutError``."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f'{what} did not happen within {PATIENCE:.0f} s')
            rclpy.spin_once(self, timeout_sec=0.1)

    def saw_since(self, moment: int) -> bool:
        """Return whether a frame with a stamp after ``moment`` (ns) was received."""
        return any(stamp_ns(message) > moment for message, _ in self.frames)

    def adjust(self, **values: str | bool | float | list[float]) -> None:
        """Set parameters of the node with its service, as `ros2 param set` does."""
        future = self.parameters.set_parameters(
            [Parameter(name, value=value) for name, value in values.items()]
        )
        self.wait_for(future.done, f'setting {values}')
        response = future.result()
        for result in response.results if response else []:
            if not result.successful:
                raise RuntimeError(f'the node refused {values}: {result.reason}')

    def next_count(self, mode: str) -> dict[str, int]:
        """Wait for the node's next diagnostics in ``mode``; return its counts."""
        since = self.counted_at
        self.wait_for(
            lambda: self.counted_at > since and self.status.get('mode') == mode,
            f'diagnostics in mode {mode}',
        )
        return {k: int(v) for k, v in self.status.items() if v.isdigit()}

    def _on_frame(self, message: Image) -> None:
        self.frames.append((message, time.time_ns() / 1e9))

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        if len(array.status) < 2:  # not active yet
            return
        self.status = {pair.key: pair.value for s in array.status for pair in s.values}
        self.counted_at = time.monotonic()


def stamp_ns(message: Image) -> int:
    """Return a message's stamp in ns."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def run_mode(stack: Stack, scene: Scene, setting: Setting) -> Seen:
    """Run a mode for ``SECONDS``, and measure it."""
    mode, use_past, imu = setting
    stack.adjust(
        mode=mode, use_past=use_past, imu=imu, imu_rotation=[0.0, 0.0, 0.0, 1.0],
        shutter=scene.shutter, weather='rain',
    )
    before = stack.next_count(mode)
    started = stack.counted_at
    stack.frames.clear()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        rclpy.spin_once(stack, timeout_sec=0.1)
    after = stack.next_count(mode)
    took = stack.counted_at - started

    counts = {key: after[key] - before.get(key, 0) for key in after}
    dropped = sum(n for key, n in counts.items() if key.startswith('dropped'))
    out = sum(counts[key] for key in counts if key == 'restored' or key.startswith('passed'))
    latencies = [received - stamp_ns(message) / 1e9 for message, received in stack.frames]
    p50, p99 = 1000 * np.percentile(latencies, (50, 99)) if latencies else (np.nan, np.nan)
    drives = drives_of(stack, scene.footage)
    stack.degraded.clear()
    row = Row(
        scene.name, mode, use_past, imu, stack.status['task'], counts['received'],
        counts['restored'], dropped, out / took, p50, p99, measure_drives(drives),
    )
    return Seen(row, drives if row.shown() else [], scene.about)


def drives_of(stack: Stack, footage: Footage | None) -> list[list[Sample]]:
    """Return the last received frames of each drive, or of a source."""
    messages = {stamp_ns(message): message for message, _ in stack.frames}
    period = round(1e9 / FPS)
    if footage is None:
        return [[
            Sample(stamp // period, stack.degraded[stamp], view(message), None)
            for stamp, message in messages.items() if stamp in stack.degraded
        ][-FRAMES_EACH:]]
    count = len(footage.sharp)
    pictures = {stamp // period % count: view(message) for stamp, message in messages.items()}
    return [
        [
            Sample(n, footage.degraded[n], pictures[n], footage.sharp[n])
            for n in range(first, first + footage.each) if n in pictures
        ]
        for first in range(0, count, footage.each)
    ]


def run(output: Path, source: str | None) -> int:
    """Play the scenes through the node; returns the exit status."""
    console = Console()
    console.width = max(console.width, 120)  # for the table, also without a terminal
    output.mkdir(parents=True, exist_ok=True)
    if source:
        settings = tuple(map(Setting, ('passthrough', 'deblur', 'derain')))
        scenes = [Scene(Path(source).name, source, settings)]
    else:
        console.print('filming in motion, on bad roads, in rain and behind a wet glass ...')
        scenes = film(output)
    rclpy.init()
    stack = Stack()
    if source:
        stack.watch_input()
    seen: list[Seen] = []
    node_log = output / 'node.log'
    try:
        with process('node.restore_node', log=node_log):
            for scene in scenes:
                arguments = (scene.source, '--fps', str(FPS), *scene.options)
                with process('tools.image_source', *arguments, log=output / 'camera.log'):
                    console.print(f'{scene.name}: waiting for the first frame ...')
                    # Frames of the previous camera may still arrive.
                    new = partial(stack.saw_since, time.time_ns())
                    stack.wait_for(new, 'a frame from the node')
                    for setting in scene.settings:
                        how = '' if setting.use_past else ', each frame alone,'
                        how += ' with the gyroscope' if setting.imu else ''
                        console.print(
                            f'{scene.name}: mode {setting.mode}{how} for {SECONDS:.0f} s ...'
                        )
                        seen.append(run_mode(stack, scene, setting))
                    stack.save_comparison(output / 'compare.jpg')
    except (TimeoutError, RuntimeError) as error:
        for log in (node_log, output / 'camera.log'):
            console.print(f'--- {log}\n{log.read_text() if log.exists() else ""}')
        console.print(f'error: {error}')
        return 1
    finally:
        stack.destroy_node()
        rclpy.try_shutdown()
    device = f'{stack.status.get("model")} on {stack.status.get("device")}'
    device += f' in {stack.status.get("precision")}, {os.cpu_count()} cores'
    print_table(console, [one.row for one in seen], device)
    write_report(output / 'report.html', seen, device)
    write_before_after(output / 'before_after.jpg', seen)
    console.print(f'pictures: {output / "report.html"}')
    return 0


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description='Demonstrate the node.')
    parser.add_argument('--output', type=Path, default=Path('demo'))
    parser.add_argument('--source', help='a video, or the number of a camera')
    options = parser.parse_args()
    if options.source and not options.source.isdigit():
        try:  # it must not write into a folder of source pictures
            keep_apart([options.output / 'compare.jpg'], [Path(options.source)])
        except OutputError as error:
            parser.error(str(error))
    return run(options.output, options.source)


if __name__ == '__main__':
    sys.exit(main())
