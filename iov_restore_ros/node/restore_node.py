"""
The lifecycle node `restore`.

One thread (the executor's) receives: it looks at a message, puts it into its camera's slot and is
done; a frame that only passes it hands on itself, as waking the other thread would cost more than
that. One thread (the scheduler's) restores and publishes.
"""

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

from iov_restore_ros.inference import Restorer
from iov_restore_ros.node.camera import Camera
from iov_restore_ros.node.compressed import check_compressed, decode
from iov_restore_ros.node.diagnostics import camera_status, restorer_values, status
from iov_restore_ros.node.images import (
    MalformedImageError,
    UnsupportedEncodingError,
    check,
    from_rgb,
    to_rgb,
    view,
)
from iov_restore_ros.node.live_inputs import InputError
from iov_restore_ros.node.loading import (
    LOAD_ERRORS,
    MODEL_PARAMETERS,
    BackgroundLoader,
    load_restorer,
    weights_problem,
)
from iov_restore_ros.node.mode_chooser import ModeChooser
from iov_restore_ros.node.parameters import PARAMETERS
from iov_restore_ros.node.scheduler import FrameScheduler
from iov_restore_ros.node.statistics import Outcome, Timing

DIAGNOSTICS_PERIOD = 1.0  # s
LOG_PERIOD = 10.0  # s between two log lines about the same trouble
BATCH_TIMEOUT = 60.0  # s that deactivate waits for the batch at hand
EXIT_TIMEOUT = 1.0  # s that the process waits for it when told to end
SIGNAL_PERIOD = 0.2  # s until a signal is noticed, at most


@dataclass(frozen=True)
class Frame:
    """A frame on its way: the message, and when it came (s, monotonic)."""

    message: Image | CompressedImage
    received: float


Picture = tuple[Image, np.ndarray]  # a frame's image and its pixels, uint8 H x W x 3, RGB
Opened = tuple[Camera, Frame, Picture]


class RestoreNode(LifecycleNode):
    """Restores the frames of cameras and publishes them; see the README for its interface."""

    def __init__(self) -> None:
        super().__init__('restore')
        self._restorer: Restorer | None = None
        self._restorer_in_use = threading.Lock()
        self._loader: BackgroundLoader | None = None
        self._not_loaded = ''
        self._cameras: list[Camera] = []
        self._scheduler: FrameScheduler[tuple[Camera, Frame]] | None = None
        self._problem = ''
        self.add_on_set_parameters_callback(self._check_parameters)
        try:
            for name, parameter in PARAMETERS.items():
                self.declare_parameter(name, parameter.default, parameter.descriptor())
        except ParameterException:
            self.destroy_node()
            raise
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._chooser = ModeChooser(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # By the wall clock, so that a stopped simulation does not silence the diagnostics.
        self.create_timer(
            DIAGNOSTICS_PERIOD, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def autostart(self) -> None:
        """Configure and activate, if the parameter `autostart` says so."""
        if not self.get_parameter('autostart').value:
            return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def destroy_node(self) -> None:
        """Let go of all that is ROS, also while a thread still restores or loads."""
        super().destroy_node()
        # rclpy forgets this, which keeps the DDS participant and its shared memory.
        self._state_machine.destroy_when_not_in_use()

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights, run each generator once, create the publishers."""
        value = self._values()
        try:
            self._chooser.configure()
            self._restorer = load_restorer(value, self.get_logger())
        except (InputError, *LOAD_ERRORS) as error:
            self._problem = f'cannot configure: {error}'
            self.get_logger().error(self._problem)
            return TransitionCallbackReturn.FAILURE
        self._problem = ''
        self._loader = BackgroundLoader(self._load_beside)
        self._cameras = [Camera(self, name) for name in value['cameras']]
        self.get_logger().info(f'cameras: {", ".join(value["cameras"])}')
        for concern in self._concerns():
            self.get_logger().warning(concern)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to receive, restore and publish."""
        assert self._restorer is not None
        super().on_activate(state)
        self._scheduler = FrameScheduler(
            [camera.name for camera in self._cameras], self._process, self._restorer.batch
        )
        self._chooser.subscribe()
        for camera in self._cameras:
            camera.subscribe(self._on_image)
        self.get_logger().info(f'active; {self._chooser.decide().reason}')
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop receiving, finish the batch at hand."""
        self._stop(BATCH_TIMEOUT)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give back the publishers and the memory of the generators."""
        for camera in self._cameras:
            camera.destroy()
        self._cameras = []
        if self._loader is not None:
            loader, self._loader = self._loader, None
            loader.stop(BATCH_TIMEOUT)
            self._not_loaded = ''
        if self._restorer is not None:
            self._restorer.close()
            self._restorer = None
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and clean up, from whatever state."""
        self._stop(BATCH_TIMEOUT)
        return self.on_cleanup(state)

    def stop_now(self) -> None:
        """Stop because the process ends: a batch that takes long is left behind."""
        try:
            self._stop(EXIT_TIMEOUT)
        except TimeoutError as error:
            self.get_logger().warning(str(error))

    def _stop(self, timeout: float) -> None:
        self._chooser.unsubscribe()
        for camera in self._cameras:
            camera.unsubscribe()
        if self._scheduler is not None:
            scheduler, self._scheduler = self._scheduler, None
            for camera, _ in scheduler.stop(timeout):
                camera.statistics.end(Outcome.DROPPED_STOPPING)
            for camera in self._cameras:
                self.get_logger().info(f'{camera.name}: {camera.statistics.report()}')

    # Parameters

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            known = PARAMETERS.get(parameter.name)
            if known is None:  # rclpy's own: use_sim_time, qos_overrides
                continue
            problem = known.problem(parameter.value)
            if problem is None and not known.dynamic and self._restorer is not None:
                problem = (
                    f'{parameter.name} takes effect at configure: '
                    'set it after `ros2 lifecycle set` ... deactivate and cleanup'
                )
            if problem is None and self._restorer is not None:
                problem = weights_problem(parameter.name, parameter.value)
            if problem is not None:
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: list[Parameter]) -> None:
        self._chooser.apply_parameters()
        self._chooser.decide()
        # Not for every parameter: subscribing declares some (qos_overrides).
        if any(parameter.name == 'lazy' for parameter in parameters):
            for camera in self._cameras:
                camera.follow()

        if self._loader is not None and any(p.name in MODEL_PARAMETERS for p in parameters):
            self._loader.request(self._values())

    def _load_beside(self, value: Mapping[str, Any]) -> None:
        """Load other generators and swap them in between two batches (loader's thread)."""
        try:
            restorer = load_restorer(value, self.get_logger())
        except Exception as error:  # noqa: BLE001  whatever it is, those of before still work
            self._not_loaded = f'the generators of before stay: {error}'
            self.get_logger().error(self._not_loaded)
            return
        with self._restorer_in_use:
            before, self._restorer = self._restorer, restorer
        self._not_loaded = ''
        assert before is not None
        before.close()

    def _values(self) -> dict[str, Any]:
        return {name: self.get_parameter(name).value for name in PARAMETERS}

    # Frames

    def _on_image(self, camera: Camera, message: Image | CompressedImage) -> None:
        """Put a frame into its slot, or pass it on (executor's thread)."""
        received = time.monotonic()
        camera.statistics.receive()
        try:
            check(message) if isinstance(message, Image) else check_compressed(message)
        except (UnsupportedEncodingError, MalformedImageError) as error:
            self._skip(camera, error)
            return
        assert self._scheduler is not None
        frame = Frame(message, received)
        # Not ahead of an older frame, and nothing here that takes its time.
        at_once = self._scheduler.idle(camera.name) and not camera.converts(message)
        if at_once and self._chooser.decide().task is None:
            self._publish(camera, frame, message, Outcome.PASSED)
        elif self._scheduler.offer(camera.name, (camera, frame)):
            camera.statistics.end(Outcome.DROPPED_FOR_NEWER)

    def _skip(self, camera: Camera, error: Exception) -> None:
        """Count and name a frame that is of no use."""
        unsupported = isinstance(error, UnsupportedEncodingError)
        camera.statistics.end(
            Outcome.DROPPED_ENCODING if unsupported else Outcome.DROPPED_MALFORMED
        )
        self.get_logger().error(
            f'{camera.name}: frame skipped, {error}', throttle_duration_sec=LOG_PERIOD
        )

    def _process(self, batch: list[tuple[Camera, Frame]]) -> None:
        """Restore and publish a batch (scheduler's thread)."""
        decision = self._chooser.decide()
        task = decision.task
        if task is None:
            for camera, frame in batch:
                self._publish(camera, frame, frame.message, Outcome.PASSED)
            return
        opened: list[Opened] = [
            (*entry, picture) for entry in batch if (picture := self._open(*entry))
        ]
        try:
            if task == 'deblur' and decision.settings.mode == 'auto':
                opened = self._pass_sharp(opened)
            started = time.monotonic()
            restored = self._restore([pixels for _, _, (_, pixels) in opened], task)
            took = time.monotonic() - started
            messages = [
                from_rgb(pixels, image)
                for pixels, (_, _, (image, _)) in zip(restored, opened, strict=True)
            ]
        except Exception as error:  # noqa: BLE001  whatever it is, the stack must not go blind
            self.get_logger().error(
                f'{task} failed: {error}', throttle_duration_sec=LOG_PERIOD
            )
            for camera, frame, _ in opened:
                if self.get_parameter('on_error').value == 'passthrough':
                    self._publish(camera, frame, frame.message, Outcome.PASSED_AFTER_ERROR)
                else:
                    camera.statistics.end(Outcome.DROPPED_AFTER_ERROR)
            return
        for (camera, frame, _), message in zip(opened, messages, strict=True):
            self._publish(camera, frame, message, Outcome.RESTORED, took)

    def _open(self, camera: Camera, frame: Frame) -> Picture | None:
        """Return a frame's image and its RGB pixels; None, counted, when there are none."""
        try:
            message = frame.message
            image = message if isinstance(message, Image) else decode(message)
            return image, to_rgb(view(image), image.encoding)
        except Exception as error:  # noqa: BLE001  this thread must outlive any trouble
            self._skip(camera, error)
            return None

    def _pass_sharp(self, opened: list[Opened]) -> list[Opened]:
        """Publish the frames that need no deblurring, if `skip_sharp` is set; return the others."""
        if not self.get_parameter('skip_sharp').value:
            return opened
        sharp = [camera.gauge.is_sharp(pixels) for camera, _, (_, pixels) in opened]
        for camera, frame, _ in itertools.compress(opened, sharp):
            self._publish(camera, frame, frame.message, Outcome.PASSED_SHARP)
        return [item for item, is_sharp in zip(opened, sharp, strict=True) if not is_sharp]

    def _restore(self, frames: list[np.ndarray], task: str) -> list[np.ndarray]:
        with self._restorer_in_use:
            assert self._restorer is not None
            return self._restorer.restore(frames, task)

    def _publish(
        self, camera: Camera, frame: Frame, message: Image | CompressedImage, outcome: Outcome,
        restoring: float = nan,
    ) -> None:
        try:
            camera.publish(message)
        except (UnsupportedEncodingError, MalformedImageError) as error:
            self._skip(camera, error)
            return
        except Exception as error:  # noqa: BLE001  this thread must outlive any trouble
            camera.statistics.end(Outcome.DROPPED_AFTER_ERROR)
            if self.context.ok():
                self.get_logger().error(
                    f'{camera.name}: cannot publish: {error}', throttle_duration_sec=LOG_PERIOD
                )
            return
        stamp = message.header.stamp  # not as a Time, which refuses a negative one
        since_stamp = self.get_clock().now().nanoseconds - stamp.sec * 10**9 - stamp.nanosec
        camera.statistics.end(outcome, Timing(
            since_stamp / 1e9, time.monotonic() - frame.received, restoring
        ))

    # Diagnostics

    def _diagnose(self) -> None:
        for camera in self._cameras:  # events may come before the graph knows what they are about
            camera.follow()
        name = self.get_fully_qualified_name().lstrip('/')
        restorer = self._restorer
        decision = self._chooser.decide()
        if self._problem:
            level, message = DiagnosticStatus.ERROR, self._problem
        elif self._scheduler is None:
            level, message = DiagnosticStatus.WARN, 'not active'
        else:
            level, message = DiagnosticStatus.OK, decision.reason
            for concern in self._concerns():
                level, message = DiagnosticStatus.WARN, f'{message}; {concern}'
        values: dict[str, object] = {
            'mode': self.get_parameter('mode').value,
            'task': decision.task or 'none',
            'reason': decision.reason,
            **self._chooser.describe(),
        }
        if restorer is not None:
            values |= restorer_values(restorer)
        array = DiagnosticArray(status=[
            status(level, f'{name}: restorer', str(values.get('device', '')), message, values)
        ])
        array.header.stamp = self.get_clock().now().to_msg()
        if self._scheduler is not None:
            array.status += [
                camera_status(name, camera, DIAGNOSTICS_PERIOD) for camera in self._cameras
            ]
        self._diagnostics.publish(array)

    def _concerns(self) -> list[str]:
        """Return what works, but not as it should."""
        concerns = []
        assert self._restorer is not None
        if self.get_parameter('device').value == 'auto' and self._restorer.device.type == 'cpu':
            concerns.append('on the CPU: device is auto, and PyTorch finds no CUDA device')
        if self._not_loaded:
            concerns.append(self._not_loaded)
        if warning := self._chooser.warning():
            concerns.append(warning)
        return concerns


def main() -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status."""
    # rclpy's own handlers shut ROS down under the executor and the frame at hand. Ours let both
    # come to an end first, and a second signal changes nothing.
    told_to_end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told_to_end.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = RestoreNode()
    except ParameterException as error:
        get_logger('restore').fatal(str(error))
        rclpy.shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    node.autostart()
    while not told_to_end.is_set():
        executor.spin_once(timeout_sec=SIGNAL_PERIOD)
    node.stop_now()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    if threading.active_count() > 1:
        # A long batch or a model being loaded: Python would end that thread inside PyTorch, which
        # aborts the process.
        os._exit(0)
    return 0


if __name__ == '__main__':
    sys.exit(main())
