"""The lifecycle node `restore`: parameters, states and diagnostics."""

import functools
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.lifecycle import (
    LifecycleNode,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from iov_restore_ros.node.camera import Camera
from iov_restore_ros.node.diagnostics import (
    camera_status,
    dirt_concern,
    restorer_values,
    status,
)
from iov_restore_ros.node.inertial_inputs import (
    INERTIAL_PARAMETERS,
    InertialInputs,
    rotation_problem,
)
from iov_restore_ros.node.loading import (
    MODEL_PARAMETERS,
    BackgroundLoader,
    load_restorer,
    weights_problem,
)
from iov_restore_ros.node.mode_chooser import ModeChooser
from iov_restore_ros.node.parameters import PARAMETERS, read_arguments, warnings
from iov_restore_ros.node.pipeline import FramePipeline
from iov_restore_ros.node.topics import check_topics

DIAGNOSTICS_PERIOD = 1.0  # s
BATCH_TIMEOUT = 60.0  # s that deactivate waits for the current batch
EXIT_TIMEOUT = 1.0  # s that the process waits for it after a signal
LOG_PERIOD = 10.0  # s between two log lines about callbacks that fail

Transition = Callable[['RestoreNode', LifecycleState], TransitionCallbackReturn]


def told(transition: Transition) -> Transition:
    """Let the node report the exceptions of ``transition``, which rclpy hides."""
    @functools.wraps(transition)
    def run(node: 'RestoreNode', state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:  # noqa: BLE001  of any kind: `on_error` follows
            node.report(f'{transition.__name__} failed: {error}')
            return TransitionCallbackReturn.ERROR

    return run


class RestoreNode(LifecycleNode):
    """Restores the frames of cameras and publishes them; README.md describes its interface."""

    def __init__(self) -> None:
        super().__init__('restore')
        self._pipeline: FramePipeline | None = None
        self._loader: BackgroundLoader | None = None
        self._cameras: list[Camera] = []
        self._inertial: InertialInputs | None = None
        self._problem = ''
        self.add_on_set_parameters_callback(self._check_parameters)
        try:
            for name, parameter in PARAMETERS.items():
                self.declare_parameter(name, parameter.default, parameter.descriptor())
        except ParameterException:
            self.destroy_node()
            raise
        for line in warnings(self._parameter_overrides):  # rclpy ignores them silently
            self.get_logger().warning(line)
        if 'imu' not in self._parameter_overrides and self._is_remapped('imu'):
            self.set_parameters([Parameter('imu', value=True)])
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._chooser = ModeChooser(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A steady clock, so that a stopped simulation does not stop the diagnostics.
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
        """Release everything of ROS, even while a thread still restores or loads."""
        super().destroy_node()
        # rclpy does not release this, so that the DDS participant and its shared memory stay.
        self._state_machine.destroy_when_not_in_use()

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights, run each generator once, create the publishers."""
        try:
            self._configure(self._values())
        except Exception as error:  # noqa: BLE001  of any kind: nothing may remain
            self._release()
            self.report(f'cannot configure: {error}')
            return TransitionCallbackReturn.FAILURE
        self._problem = ''
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start to receive, restore and publish."""
        assert self._pipeline is not None and self._inertial is not None
        super().on_activate(state)
        self._chooser.subscribe()
        self._inertial.subscribe()
        self._pipeline.activate()
        self.get_logger().info(f'active; {self._chooser.decide().reason}')
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop receiving and finish the current batch; if it takes too long, see ``on_error``."""
        self._stop(BATCH_TIMEOUT)
        return super().on_deactivate(state)

    @told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the publishers and the memory of the generators."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and clean up, from any state."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clean up after a failed transition: the node is then unconfigured."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def report(self, problem: str) -> None:
        """Log why the node does not work; `/diagnostics` shows it until configure succeeds."""
        self._problem = problem
        self.get_logger().error(problem)

    def stop_now(self) -> None:
        """Stop because the process ends; a batch that takes long is abandoned."""
        try:
            self._stop(EXIT_TIMEOUT)
        except TimeoutError as error:
            self.get_logger().warning(str(error))

    def _configure(self, value: dict[str, Any]) -> None:
        check_topics(self, value['cameras'])
        self._chooser.configure()
        self._inertial = InertialInputs(self, value['cameras'])
        restorer = load_restorer(value, self.get_logger())
        self._cameras = [Camera(self, name) for name in value['cameras']]
        self._pipeline = pipeline = FramePipeline(
            self, self._chooser, restorer, self._cameras, self._inertial
        )
        self._loader = BackgroundLoader(
            lambda value: pipeline.swap(load_restorer(value, self.get_logger())), self.get_logger()
        )
        self.get_logger().info(f'cameras: {", ".join(value["cameras"])}')
        for concern in self._concerns():
            self.get_logger().warning(concern)

    def _stop(self, timeout: float) -> None:
        """Stop receiving. Raises ``TimeoutError`` if the current batch is abandoned."""
        self._chooser.unsubscribe()
        try:
            if self._pipeline is not None:
                self._pipeline.stop(timeout)
        finally:
            if self._inertial is not None:
                self._inertial.unsubscribe()

    def _release(self) -> None:
        """Release everything of `configure` and `activate`; abandon what takes too long."""
        stops = [self._stop] if self._loader is None else [self._stop, self._loader.stop]
        for stop in stops:
            try:
                stop(BATCH_TIMEOUT)
            except TimeoutError as error:
                self.get_logger().error(str(error))
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = self._loader = self._inertial = None
        self._cameras = []
        # All publishers, including those of a camera whose creation failed.
        for publisher in list(self.publishers):
            if isinstance(publisher, LifecyclePublisher):
                self.destroy_lifecycle_publisher(publisher)

    # Parameters

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            known = PARAMETERS.get(parameter.name)
            if known is None:  # rclpy's own: use_sim_time, qos_overrides
                continue
            problem = known.problem(parameter.value)
            if problem is None and not known.dynamic and self._pipeline is not None:
                problem = (
                    f'{parameter.name} takes effect at configure: '
                    'set it after `ros2 lifecycle set` ... deactivate and cleanup'
                )
            if problem is None and self._pipeline is not None:
                problem = weights_problem(parameter.name, parameter.value) or rotation_problem(
                    parameter.name, parameter.value, len(self._cameras)
                )
            if problem is not None:
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: list[Parameter]) -> None:
        self._chooser.apply_parameters()
        self._chooser.decide()
        # Only for this parameter: subscribing itself declares parameters (qos_overrides).
        if any(parameter.name == 'lazy' for parameter in parameters):
            for camera in self._cameras:
                camera.follow()
        if self._inertial is not None and any(p.name in INERTIAL_PARAMETERS for p in parameters):
            self._inertial.apply_parameters()
        if self._loader is not None and any(p.name in MODEL_PARAMETERS for p in parameters):
            self._loader.request(self._values())

    def _is_remapped(self, topic: str) -> bool:
        """Return whether a remapping rule gives ``topic`` another name."""
        return self.resolve_topic_name(topic) != self.resolve_topic_name(topic, only_expand=True)

    def _values(self) -> dict[str, Any]:
        return {name: self.get_parameter(name).value for name in PARAMETERS}

    # Diagnostics

    def _diagnose(self) -> None:
        try:
            statuses = self._statuses()
        except Exception as error:  # noqa: BLE001  of any kind: it must be visible
            self.get_logger().error(
                f'diagnostics failed: {error}', throttle_duration_sec=LOG_PERIOD
            )
            statuses = [self._status(DiagnosticStatus.ERROR, f'diagnostics failed: {error}', {})]
        array = DiagnosticArray(status=statuses)
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _status(self, level: bytes, message: str, values: dict[str, object]) -> DiagnosticStatus:
        name = self.get_fully_qualified_name().lstrip('/')
        return status(level, f'{name}: restorer', str(values.get('device', '')), message, values)

    def _statuses(self) -> list[DiagnosticStatus]:
        for camera in self._cameras:  # an event may arrive before the graph knows the publisher
            camera.follow()
        self._chooser.follow()
        inertial = self._inertial
        if inertial is not None:
            inertial.follow()
        pipeline = self._pipeline
        decision = self._chooser.decide()
        if self._problem:
            level, message = DiagnosticStatus.ERROR, self._problem
        elif pipeline is None or not pipeline.active:
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
        if pipeline is not None:
            values |= restorer_values(pipeline.restorer)
        if inertial is not None:
            values |= inertial.describe(DIAGNOSTICS_PERIOD)
        statuses = [self._status(level, message, values)]
        if pipeline is not None and pipeline.active and inertial is not None:
            name = self.get_fully_qualified_name().lstrip('/')
            statuses += [
                camera_status(
                    name, camera, DIAGNOSTICS_PERIOD, inertial.describe_camera(camera.name),
                    inertial.concern(camera.name)
                    or dirt_concern(camera, self.get_parameter('dirty_glass').value),
                ) for camera in self._cameras
            ]
        return statuses

    def _concerns(self) -> list[str]:
        """Return what works, but not as it should work."""
        concerns = []
        assert self._pipeline is not None and self._loader is not None
        if (
            self.get_parameter('device').value == 'auto'
            and self._pipeline.restorer.device.type == 'cpu'
        ):
            concerns.append('on the CPU: device is auto, and PyTorch finds no CUDA device')
        if self._loader.problem:
            concerns.append(self._loader.problem)
        if warning := self._chooser.warning():
            concerns.append(warning)
        return concerns


def serve(node: LifecycleNode, executor: Executor, told_to_end: threading.Event) -> None:
    """Run the node's callbacks until ``told_to_end`` is set, whatever they raise."""
    while not told_to_end.is_set():
        try:
            executor.spin_once()
        except Exception:  # noqa: BLE001  one message is lost, but the stack must not go blind
            node.get_logger().error(
                f'a callback failed: {traceback.format_exc()}', throttle_duration_sec=LOG_PERIOD
            )


def main() -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status."""
    read_arguments(remove_ros_args(sys.argv)[1:])
    # rclpy's own handlers shut ROS down while the executor and a frame still use it. Ours let both
    # finish first, and a second signal changes nothing.
    signalled, reports = socket.socketpair()
    reports.setblocking(False)
    signal.set_wakeup_fd(reports.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # a wakeup needs a handler
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = RestoreNode()
    except ParameterException as error:
        get_logger('restore').fatal(str(error))
        rclpy.shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    told_to_end = threading.Event()
    ending = node.create_guard_condition(told_to_end.set)

    def wait_for_signal() -> None:  # Python calls no handlers while the executor waits
        signalled.recv(1)
        ending.trigger()

    waiting = threading.Thread(target=wait_for_signal, daemon=True)
    waiting.start()
    node.autostart()
    serve(node, executor, told_to_end)
    waiting.join()
    node.stop_now()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    if threading.active_count() > 1:
        # The computing thread may be busy with a long batch or a model. Python would end it inside
        # PyTorch, which aborts the process.
        os._exit(0)
    return 0


if __name__ == '__main__':
    sys.exit(main())
