"""
The lifecycle node `restore`.

One thread (the executor's) receives: it looks at a message, puts it into its camera's slot and is
done. One thread (the scheduler's) restores and publishes.
"""

import itertools
import signal
import sys
import threading
import time
from dataclasses import dataclass

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
from sensor_msgs.msg import Image

from iov_restore_ros.inference import RestoreError, Restorer
from iov_restore_ros.model import TASKS, WeightsError
from iov_restore_ros.node.camera import Camera
from iov_restore_ros.node.diagnostics import camera_status, status
from iov_restore_ros.node.images import (
    MalformedImageError,
    UnsupportedEncodingError,
    from_rgb,
    to_rgb,
    view,
)
from iov_restore_ros.node.live_inputs import InputError
from iov_restore_ros.node.mode_chooser import ModeChooser
from iov_restore_ros.node.parameters import PARAMETERS
from iov_restore_ros.node.scheduler import FrameScheduler
from iov_restore_ros.node.statistics import Outcome

DIAGNOSTICS_PERIOD = 1.0  # s
LOG_PERIOD = 10.0  # s between two log lines about the same trouble
BATCH_TIMEOUT = 60.0  # s that deactivate waits for the batch at hand
EXIT_TIMEOUT = 1.0  # s that the process waits for it when told to end
SIGNAL_PERIOD = 0.2  # s until a signal is noticed, at most
WARM_UP_SIZE = 360, 640  # pixels


@dataclass(frozen=True)
class Frame:
    """A frame on its way: the message, a view of its pixels, and when it came (s, monotonic)."""

    message: Image
    pixels: np.ndarray
    received: float


class RestoreNode(LifecycleNode):
    """Restores the frames of cameras and publishes them; see the README for its interface."""

    def __init__(self) -> None:
        super().__init__('restore')
        self._restorer: Restorer | None = None
        self._cameras: list[Camera] = []
        self._scheduler: FrameScheduler[tuple[Camera, Frame]] | None = None
        self._problem = ''
        self.add_on_set_parameters_callback(self._check_parameters)
        for name, parameter in PARAMETERS.items():
            self.declare_parameter(name, parameter.default, parameter.descriptor())
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

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights, run each generator once, create the publishers."""
        value = {name: self.get_parameter(name).value for name in PARAMETERS}
        started = time.monotonic()
        try:
            self._chooser.configure()
            self._restorer = Restorer(
                model=value['model'],
                weights={task: value[f'{task}_weights'] for task in TASKS},
                device=value['device'],
                precision=value['precision'],
            )
            for task in TASKS:
                self._restorer.restore([np.zeros((*WARM_UP_SIZE, 3), np.uint8)], task)
        except (InputError, WeightsError, RestoreError, ValueError, RuntimeError) as error:
            self._restorer = None
            self._problem = f'cannot configure: {error}'
            self.get_logger().error(self._problem)
            return TransitionCallbackReturn.FAILURE
        self._problem = ''
        self._cameras = [Camera(self, name) for name in value['cameras']]
        self.get_logger().info(
            f'{value["model"]} on {self._restorer.device} in {self._restorer.precision}, '
            f'ready in {time.monotonic() - started:.1f} s; cameras: {", ".join(value["cameras"])}'
        )
        if value['device'] == 'auto' and self._restorer.device.type == 'cpu':
            self.get_logger().warning('no CUDA device found: restoring on the CPU')
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
            if problem is not None:
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: list[Parameter]) -> None:
        self._chooser.apply_parameters()
        self._chooser.decide()

    # Frames

    def _on_image(self, camera: Camera, message: Image) -> None:
        """Put a frame into its slot (executor's thread)."""
        received = time.monotonic()
        camera.statistics.receive()
        try:
            pixels = view(message)
        except (UnsupportedEncodingError, MalformedImageError) as error:
            unsupported = isinstance(error, UnsupportedEncodingError)
            camera.statistics.end(
                Outcome.DROPPED_ENCODING if unsupported else Outcome.DROPPED_MALFORMED
            )
            self.get_logger().error(
                f'{camera.name}: frame skipped, {error}', throttle_duration_sec=LOG_PERIOD
            )
            return
        assert self._scheduler is not None
        if self._scheduler.offer(camera.name, (camera, Frame(message, pixels, received))):
            camera.statistics.end(Outcome.DROPPED_FOR_NEWER)

    def _process(self, batch: list[tuple[Camera, Frame]]) -> None:
        """Restore and publish a batch (scheduler's thread)."""
        decision = self._chooser.decide()
        task = decision.task
        if task is None:
            for camera, frame in batch:
                self._publish(camera, frame, frame.message, Outcome.PASSED)
            return
        try:
            if task == 'deblur' and decision.settings.mode == 'auto':
                batch = self._pass_sharp(batch)
            restored = self._restore([frame for _, frame in batch], task)
        except Exception as error:  # noqa: BLE001  whatever it is, the stack must not go blind
            self.get_logger().error(
                f'{task} failed: {error}', throttle_duration_sec=LOG_PERIOD
            )
            for camera, frame in batch:
                if self.get_parameter('on_error').value == 'passthrough':
                    self._publish(camera, frame, frame.message, Outcome.PASSED_AFTER_ERROR)
                else:
                    camera.statistics.end(Outcome.DROPPED_AFTER_ERROR)
            return
        for (camera, frame), message in zip(batch, restored, strict=True):
            self._publish(camera, frame, message, Outcome.RESTORED)

    def _pass_sharp(self, batch: list[tuple[Camera, Frame]]) -> list[tuple[Camera, Frame]]:
        """Publish the frames that need no deblurring, if `skip_sharp` is set; return the others."""
        if not self.get_parameter('skip_sharp').value:
            return batch
        sharp = [
            camera.gauge.is_sharp(to_rgb(frame.pixels, frame.message.encoding))
            for camera, frame in batch
        ]
        for camera, frame in itertools.compress(batch, sharp):
            self._publish(camera, frame, frame.message, Outcome.PASSED_SHARP)
        return [item for item, is_sharp in zip(batch, sharp, strict=True) if not is_sharp]

    def _restore(self, frames: list[Frame], task: str) -> list[Image]:
        assert self._restorer is not None
        pictures = [to_rgb(frame.pixels, frame.message.encoding) for frame in frames]
        restored = self._restorer.restore(pictures, task)
        return [
            from_rgb(pixels, frame.message)
            for pixels, frame in zip(restored, frames, strict=True)
        ]

    def _publish(self, camera: Camera, frame: Frame, message: Image, outcome: Outcome) -> None:
        try:
            camera.publish(message)
        except Exception as error:  # noqa: BLE001  this thread must outlive any trouble
            camera.statistics.end(Outcome.DROPPED_AFTER_ERROR)
            if self.context.ok():
                self.get_logger().error(
                    f'{camera.name}: cannot publish: {error}', throttle_duration_sec=LOG_PERIOD
                )
            return
        camera.statistics.end(outcome, time.monotonic() - frame.received)

    # Diagnostics

    def _diagnose(self) -> None:
        name = self.get_fully_qualified_name().lstrip('/')
        restorer = self._restorer
        decision, warning = self._chooser.decide(), self._chooser.warning()
        if self._problem:
            level, message = DiagnosticStatus.ERROR, self._problem
        elif self._scheduler is None:
            level, message = DiagnosticStatus.WARN, 'not active'
        elif warning:
            level, message = DiagnosticStatus.WARN, warning
        else:
            level, message = DiagnosticStatus.OK, decision.reason
        values: dict[str, object] = {
            'mode': self.get_parameter('mode').value,
            'task': decision.task or 'none',
            'reason': decision.reason,
            **self._chooser.describe(),
        }
        if restorer is not None:
            values |= {
                'model': restorer.model, 'device': restorer.device,
                'precision': restorer.precision, 'batch': restorer.batch,
            }
        array = DiagnosticArray(status=[
            status(level, f'{name}: restorer', str(values.get('device', '')), message, values)
        ])
        array.header.stamp = self.get_clock().now().to_msg()
        if self._scheduler is not None:
            array.status += [
                camera_status(name, c.name, c.statistics.report(), DIAGNOSTICS_PERIOD)
                for c in self._cameras
            ]
        self._diagnostics.publish(array)


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
    return 0


if __name__ == '__main__':
    sys.exit(main())
