"""Topics of any message type: the vehicle's speed, rain, and a camera's exposure."""

import importlib
import math
import re
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from rclpy.lifecycle import LifecycleNode

from iov_restore_ros.node.mode_policy import CLEAR, Reading
from iov_restore_ros.node.qos import FollowingSubscription
from iov_restore_ros.tasks import DERAIN

LOG_PERIOD = 10.0  # s between two log lines about ignored values

LONGEST_EXPOSURE = 1.0  # s
RAINS = {CLEAR: False, **dict.fromkeys(DERAIN.weathers, True)}

Value = TypeVar('Value')


class InputError(Exception):
    """A message type or field cannot be read; the message says why."""


def as_speed(value: Any) -> float | None:
    """Return a number as a speed in m/s, or None if it is not finite."""
    return float(value) if math.isfinite(value) else None


def as_exposure(value: Any) -> float | None:
    """Return a number as an exposure in s, or None if it is implausible, such as 5000 (us)."""
    return float(value) if 0 < value <= LONGEST_EXPOSURE else None


def as_rain(value: Any, threshold: float) -> bool | None:
    """
    Return whether ``value`` means rain (or fog), or None if it is not valid.

    A bool is the answer. A number means rain above ``threshold``. A string is one of ``RAINS``,
    in upper or lower case.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return RAINS.get(value.strip().lower())
    return None if math.isnan(value) else value > threshold


def message_type(name: str) -> type:
    """
    Return the class of a message type such as `std_msgs/msg/Bool`.

    Raises ``InputError``. It is imported here, because nothing else needs the package of the type.
    """
    match = re.fullmatch(r'(\w+)/msg/(\w+)', name)
    if match is None:
        raise InputError(f'{name!r} is not a message type such as std_msgs/msg/Bool')
    package, kind = match.groups()
    try:
        module = importlib.import_module(f'{package}.msg')
    except ImportError as error:
        raise InputError(
            f'cannot import {package}.msg ({error}): install that package, or source its workspace'
        ) from error
    if not hasattr(module, kind):
        raise InputError(f'{package} has no message {kind}')
    return getattr(module, kind)


def read_field(message: Any, path: str) -> Any:
    """Return the field of ``message`` at a dotted ``path``. Raises ``InputError``."""
    value = message
    for name in path.split('.'):
        if not hasattr(value, 'get_fields_and_field_types'):
            raise InputError(f'{path!r} goes beyond a field of type {type(value).__name__}')
        fields = value.get_fields_and_field_types()
        if name not in fields:
            raise InputError(
                f'{path!r}: {type(value).__name__} has no field {name!r}, only {", ".join(fields)}'
            )
        value = getattr(value, name)
    return value


class LiveInput(Generic[Value]):
    """One topic: its last valid value, its time of arrival, and the number of ignored values."""

    def __init__(
        self, node: LifecycleNode, topic: str, kinds: tuple[type, ...],
        understand: Callable[[Any], Value | None], parameters: str = '',
    ) -> None:
        """
        Read the parameters `<topic>_type` and `<topic>_field` of ``node``.

        ``parameters``, if given, replaces the topic in their names. The field's Python type must be
        one of ``kinds``. ``understand`` returns None for a value to ignore. Raises ``InputError``
        if type or field are wrong.
        """
        self.topic = topic
        self.ignored = 0
        self._node = node
        self._understand = understand
        prefix = parameters or topic
        self._path: str = node.get_parameter(f'{prefix}_field').value
        name: str = node.get_parameter(f'{prefix}_type').value
        try:
            self._type = message_type(name)
            kind = type(read_field(self._type(), self._path))
        except InputError as error:
            raise InputError(f'{prefix}_type, {prefix}_field: {error}') from error
        if kind not in kinds:
            raise InputError(
                f'{prefix}_field: {self._path!r} of {name} is of type {kind.__name__}, '
                f'but must be one of {", ".join(k.__name__ for k in kinds)}'
            )
        self._lock = threading.Lock()
        self._subscription: FollowingSubscription | None = None
        self._raw: Any = None
        # Time of the last value, or of subscribing; s, by the node's clock.
        self._heard = math.inf

    def subscribe(self) -> None:
        """Subscribe."""
        self._heard = self._now()
        self._subscription = FollowingSubscription(
            self._node, self._type, self.topic, self._on_message, depth=1
        )

    def follow(self) -> None:
        """Adapt the subscription to the publishers' QoS."""
        if self._subscription is not None:
            self._subscription.follow()

    def unsubscribe(self) -> None:
        """Unsubscribe, and clear the last value."""
        if self._subscription is not None:
            self._subscription.destroy()
            self._subscription = None
        with self._lock:
            self._raw, self._heard = None, math.inf

    def silence(self, time: float) -> float:
        """Return the seconds without a valid value at ``time``; 0 if not subscribed."""
        with self._lock:
            if self._heard == math.inf:
                return 0.0
            # After a jump back in time (a bag restarts) it counts from there.
            self._heard = min(self._heard, time)
            return time - self._heard

    def reading(self, time: float) -> Reading[Value] | None:
        """Return the last value at ``time``, interpreted by the current parameters, if any."""
        with self._lock:
            if self._raw is None:
                return None
            value = self._understand(self._raw)
            return None if value is None else Reading(value, min(self._heard, time))

    def _on_message(self, message: Any) -> None:
        raw = read_field(message, self._path)
        if self._understand(raw) is None:
            self.ignored += 1
            self._node.get_logger().warning(
                f'{self.topic}: {raw!r} ignored', throttle_duration_sec=LOG_PERIOD
            )
            return
        with self._lock:
            self._raw, self._heard = raw, self._now()

    def _now(self) -> float:
        return self._node.get_clock().now().nanoseconds / 1e9
