"""
The whole path on one machine: a camera process, the node, and a perception stack's eyes.

    make demo [SOURCE=clip.mp4]

The camera shows photographs that come with scikit-image, seen by a panning camera, with motion
blur and then with rain made by fixed seeds; or SOURCE. The mode is switched while all of it runs.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rclpy.node import Node
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import qos_profile_sensor_data
from rich.console import Console
from sensor_msgs.msg import Image
from skimage import data as photographs

from iov_restore_ros.evaluation.metrics import psnr
from iov_restore_ros.node.images import view
from iov_restore_ros.pictures.degradations import DEGRADATIONS, MARGIN
from iov_restore_ros.tools.demo_report import (
    Row,
    Sample,
    print_table,
    write_before_after,
    write_report,
)

PHOTOGRAPHS = ('stereo_motorcycle', 'coffee', 'astronaut', 'rocket')
FRAMES_EACH = 6
HEIGHT, WIDTH = 320, 480
PAN = 8  # pixels per frame
FPS = 8.0
SECONDS = 8.0  # per mode
PATIENCE = 60.0  # seconds until something that should come has come
SAMPLES = 3  # pictures per mode in the report


@dataclass
class Scene:
    """What the camera shows: its source, and the pictures (RGB) if they are known."""

    name: str
    source: str
    modes: tuple[str, ...]
    degraded: list[np.ndarray] = field(default_factory=list)
    sharp: list[np.ndarray] = field(default_factory=list)


def pan_over_photographs() -> list[np.ndarray]:
    """Return the sharp frames, with ``MARGIN`` more on every side for the blur."""
    frames = []
    for name in PHOTOGRAPHS:
        photograph = getattr(photographs, name)()
        photograph = photograph[0] if isinstance(photograph, tuple) else photograph
        for number in range(FRAMES_EACH):
            left = min(PAN * number, photograph.shape[1] - WIDTH)
            top = (photograph.shape[0] - HEIGHT) // 2
            view_ = photograph[top : top + HEIGHT, left : left + WIDTH]
            frames.append(cv2.copyMakeBorder(view_, *[MARGIN] * 4, cv2.BORDER_REFLECT_101))
    return frames


def make_scene(name: str, task: str, modes: tuple[str, ...], folder: Path) -> Scene:
    """Degrade the frames as ``task`` wants to undo it and write them where the camera reads."""
    scene = Scene(name, str(folder), modes)
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(pan_over_photographs()):
        sharp = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
        if task == 'derain':
            sharp = sharp[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
        rng = torch.Generator().manual_seed(number)
        pair = DEGRADATIONS[task](sharp, torch.ones(1), rng)
        degraded, target = (
            image[0].mul(255).round().byte().permute(1, 2, 0).numpy() for image in pair
        )
        scene.degraded.append(degraded)
        scene.sharp.append(target)
        cv2.imwrite(str(folder / f'{number:03}.png'), cv2.cvtColor(degraded, cv2.COLOR_RGB2BGR))
    return scene


@contextlib.contextmanager
def process(module: str, *arguments: str, log: Path) -> Iterator[subprocess.Popen]:
    """Run a module of ours as a process of its own; ends it with SIGINT."""
    with log.open('w') as file:
        command = [sys.executable, '-m', f'iov_restore_ros.{module}', *arguments]
        # A child must find its own way to the ROS wheels' libraries.
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
    """The eyes of a perception stack: sees restored frames, and what the node says of itself."""

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
        """Look at the camera's own frames too, to show them beside the restored ones."""
        self.create_subscription(
            Image, 'camera/image_raw',
            lambda message: self.degraded.update({stamp_ns(message): view(message).copy()}),
            qos_profile_sensor_data,
        )

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Spin until ``condition`` holds. Raises ``TimeoutError``."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f'{what} did not happen within {PATIENCE:.0f} s')
            rclpy.spin_once(self, timeout_sec=0.1)

    def saw_since(self, moment: int) -> bool:
        """Tell whether a frame has come whose stamp is behind ``moment``, ns."""
        return any(stamp_ns(message) > moment for message, _ in self.frames)

    def set_mode(self, mode: str) -> None:
        """Switch the mode by the parameter service, as `ros2 param set` does."""
        values = {'mode': mode, 'weather': 'rain'}
        future = self.parameters.set_parameters([
            ParameterMessage(name=name, value=ParameterValue(
                type=ParameterType.PARAMETER_STRING, string_value=value
            )) for name, value in values.items()
        ])
        self.wait_for(future.done, f'setting the mode to {mode}')
        response = future.result()
        for result in response.results if response else []:
            if not result.successful:
                raise RuntimeError(f'the node refused mode {mode}: {result.reason}')

    def next_count(self, mode: str) -> dict[str, int]:
        """Wait for the node's next diagnostics in ``mode``; return what it counted."""
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


def run_mode(stack: Stack, scene: Scene, mode: str) -> tuple[Row, list[Sample]]:
    """Watch ``mode`` at work for ``SECONDS``; return a row of the table, and pictures."""
    stack.set_mode(mode)
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
    scores, samples = [], []
    for message, _ in stack.frames:
        picture = view(message)
        if scene.sharp:
            number = stamp_ns(message) // round(1e9 / FPS) % len(scene.sharp)
            degraded, sharp = scene.degraded[number], scene.sharp[number]
            scores.append((psnr(degraded, sharp), psnr(picture, sharp)))
            samples.append(Sample(degraded, picture, sharp))
        elif (seen := stack.degraded.get(stamp_ns(message))) is not None:
            samples.append(Sample(seen, picture, None))
    stack.degraded.clear()
    row = Row(
        scene.name, mode, stack.status['task'], counts['received'], counts['restored'], dropped,
        out / took,
        *(1000 * np.percentile(latencies, (50, 99)) if latencies else (np.nan, np.nan)),
        *(np.mean(scores, axis=0) if scores else (None, None)),
    )
    step = max(1, len(samples) // SAMPLES)
    return row, samples[step // 2 :: step][:SAMPLES]


def run(output: Path, source: str | None) -> int:
    """Play the scenes through the node; returns the exit status."""
    console = Console()
    console.width = max(console.width, 120)  # the table's, also where there is no terminal
    output.mkdir(parents=True, exist_ok=True)
    if source:
        scenes = [Scene(Path(source).name, source, ('passthrough', 'deblur', 'derain'))]
    else:
        console.print('making blurred and rainy pictures ...')
        scenes = [
            make_scene('motion blur', 'deblur', ('passthrough', 'deblur'), output / 'blur'),
            make_scene('rain', 'derain', ('passthrough', 'derain', 'auto'), output / 'rain'),
        ]
    rclpy.init()
    stack = Stack()
    if source:
        stack.watch_input()
    rows: list[Row] = []
    pictures: list[tuple[Row, list[Sample]]] = []
    node_log = output / 'node.log'
    try:
        with process('node.restore_node', log=node_log):
            for scene in scenes:
                arguments = (scene.source, '--fps', str(FPS))
                with process('tools.image_source', *arguments, log=output / 'camera.log'):
                    console.print(f'{scene.name}: waiting for the first frame ...')
                    # Frames of the camera before may still come.
                    seen = partial(stack.saw_since, time.time_ns())
                    stack.wait_for(seen, 'a frame from the node')
                    for mode in scene.modes:
                        console.print(f'{scene.name}: mode {mode} for {SECONDS:.0f} s ...')
                        pictures.append(run_mode(stack, scene, mode))
                        rows.append(pictures[-1][0])
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
    print_table(console, rows, device)
    write_report(output / 'report.html', pictures, device)
    write_before_after(output / 'before_after.jpg', pictures)
    console.print(f'pictures: {output / "report.html"}')
    return 0


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description='Show the node at work.')
    parser.add_argument('--output', type=Path, default=Path('demo'))
    parser.add_argument('--source', help='a video, or the number of a camera')
    options = parser.parse_args()
    return run(options.output, options.source)


if __name__ == '__main__':
    sys.exit(main())
