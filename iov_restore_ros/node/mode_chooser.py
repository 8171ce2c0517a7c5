"""Applies the mode policy to the node's parameters, topics and clock."""

import threading
from dataclasses import fields

from rclpy.lifecycle import LifecycleNode

from iov_restore_ros.node.live_inputs import LiveInput, as_rain, as_speed
from iov_restore_ros.node.mode_policy import Decision, Inputs, Settings, decide


class ModeChooser:
    """Chooses the task of the next frame. The receiving and the restoring thread call it."""

    def __init__(self, node: LifecycleNode) -> None:
        """Read the parameters of ``node``, which must be declared."""
        self._node = node
        self._speed: LiveInput[float] | None = None
        self._rain: LiveInput[bool] | None = None
        self._silent: set[str] = set()
        self._lock = threading.Lock()
        self._before: Decision | None = None
        self.apply_parameters()

    def apply_parameters(self) -> None:
        """Apply the current values of the parameters."""
        with self._lock:
            self._settings = Settings(**{
                field.name: self._node.get_parameter(field.name).value
                for field in fields(Settings)
            })

    def configure(self) -> None:
        """Find the types of the topics that the parameters name. Raises ``InputError``."""
        self._speed = self._rain = None
        if self._node.get_parameter('vehicle_speed_type').value:
            self._speed = LiveInput(self._node, 'vehicle_speed', (float, int), as_speed)
        if self._node.get_parameter('rain_type').value:
            self._rain = LiveInput(
                self._node, 'rain', (bool, int, float, str),
                lambda value: as_rain(value, self._node.get_parameter('rain_threshold').value),
            )

    def subscribe(self) -> None:
        """Subscribe to the topics."""
        for live in self._inputs():
            live.subscribe()

    def unsubscribe(self) -> None:
        """Unsubscribe: only the parameters apply."""
        for live in self._inputs():
            live.unsubscribe()
        with self._lock:
            self._silent.clear()

    def follow(self) -> None:
        """Adapt the subscriptions to the QoS of the publishers."""
        for live in self._inputs():
            live.follow()

    def decide(self) -> Decision:
        """Return the decision for the current frame, and log changes."""
        with self._lock:
            now = self._node.get_clock().now().nanoseconds / 1e9
            self._watch(now)
            before = self._before
            self._before = decision = decide(now, self._settings, Inputs(
                speed=self._speed.reading(now) if self._speed else None,
                rain=self._rain.reading(now) if self._rain else None,
            ), before)
        if before is not None and (before.task, before.settings) != (
            decision.task, decision.settings
        ):
            self._node.get_logger().info(decision.reason)
        return decision

    def warning(self) -> str:
        """Return which topics are silent; empty if none is, or if mode is not auto."""
        with self._lock:
            if not self._silent or self._settings.mode != 'auto':
                return ''
            return f'no message on {" and ".join(sorted(self._silent))}: the parameters apply'

    def describe(self) -> dict[str, object]:
        """Return the diagnostics of the topics."""
        with self._lock:
            return {
                f'{live.topic} {key}': value for live in self._inputs() for key, value in (
                    ('topic', 'silent' if live.topic in self._silent else 'followed'),
                    ('ignored', live.ignored),
                )
            }

    def _inputs(self) -> list[LiveInput]:
        return [live for live in (self._speed, self._rain) if live is not None]

    def _watch(self, now: float) -> None:
        """Log once that a topic is silent, and once that it is back."""
        timeout = self._settings.input_timeout
        for live in self._inputs():
            silent = timeout > 0 and live.silence(now) > timeout
            if silent and live.topic not in self._silent:
                self._silent.add(live.topic)
                self._node.get_logger().warning(
                    f'no message on topic {live.topic} for {timeout} s (input_timeout): '
                    'the parameter applies again'
                )
            elif not silent and live.topic in self._silent:
                self._silent.remove(live.topic)
                self._node.get_logger().info(f'topic {live.topic} is used again')
