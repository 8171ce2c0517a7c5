"""The node's parameters in one table: what they are, may be, and when they may change."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_topic_name import validate_topic_name

from iov_restore_ros.inference import PRECISIONS
from iov_restore_ros.model import PRESETS
from iov_restore_ros.node.compressed import CODECS
from iov_restore_ros.node.mode_policy import MODES, WEATHERS
from iov_restore_ros.node.transports import TRANSPORTS


@dataclass(frozen=True)
class NodeParameter:
    """One parameter. ``dynamic`` ones may change at any time, the others until `configure`."""

    name: str
    default: Any
    description: str
    dynamic: bool = False
    choices: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None

    def descriptor(self) -> ParameterDescriptor:
        """Return what `ros2 param describe` shows."""
        return ParameterDescriptor(
            description=self.description,
            additional_constraints=f'one of {", ".join(self.choices)}' if self.choices else '',
            # A whole number is a good speed: `ros2 param set /restore vehicle_speed 20`.
            dynamic_typing=isinstance(self.default, float),
        )

    def problem(self, value: Any) -> str | None:
        """Return why ``value`` (of the parameter's ROS type) cannot be taken, or None."""
        if value is None:  # what an empty list on the command line comes to
            return f'{self.name} has no value'
        if self.choices and value not in self.choices:
            return f'{self.name} is {value!r}, but must be one of {", ".join(self.choices)}'
        if isinstance(self.default, float) and not _is_finite_number(value):
            return f'{self.name} is {value!r}, but must be a finite number'
        if self.minimum is not None and value < self.minimum:
            return f'{self.name} is {value}, but must be at least {self.minimum}'
        if self.maximum is not None and value > self.maximum:
            return f'{self.name} is {value}, but must be at most {self.maximum}'
        if self.name == 'cameras':
            return _camera_names_problem(list(value))
        return None


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _camera_names_problem(names: list[str]) -> str | None:
    if not names:
        return 'cameras is empty, but at least one camera is needed'
    if len(set(names)) < len(names):
        return f'cameras names one camera twice: {names}'
    for name in names:
        try:
            validate_topic_name(f'{name}/image_raw')
        except InvalidTopicNameException as error:
            return f'cameras holds {name!r}, which cannot be part of a topic name: {error}'
    return None


PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        NodeParameter('cameras', ['camera'], 'names of the cameras; each is a topic namespace'),
        NodeParameter('mode', 'auto', 'what is done to the frames', True, MODES),
        NodeParameter('weather', 'clear', 'the weather, for mode auto', True, WEATHERS),
        NodeParameter('vehicle_speed', 0.0, 'the speed in m/s, for mode auto', True),
        NodeParameter(
            'deblur_min_speed', 5.0, 'speed in m/s from which mode auto deblurs', True, minimum=0.0
        ),
        NodeParameter(
            'min_dwell', 2.0, 'seconds between two changes of the task that topics cause', True,
            minimum=0.0,
        ),
        NodeParameter(
            'vehicle_speed_type', '',
            'message type of the topic `vehicle_speed`, such as nav_msgs/msg/Odometry; '
            'empty: no topic',
        ),
        NodeParameter(
            'vehicle_speed_field', 'twist.linear.x', 'field of that message with the speed in m/s'
        ),
        NodeParameter(
            'rain_type', '',
            'message type of the topic `rain`, such as std_msgs/msg/Bool; empty: no topic',
        ),
        NodeParameter(
            'rain_field', 'data',
            'field of that message: a bool, a number, or a string (rain or clear)',
        ),
        NodeParameter('rain_threshold', 0.0, 'a number on `rain` above this means rain', True),
        NodeParameter(
            'input_timeout', 2.0,
            'seconds of silence after which parameters count instead of a topic; 0: never',
            True, minimum=0.0,
        ),
        NodeParameter(
            'skip_sharp', False, 'mode auto leaves sharp frames alone instead of deblurring them',
            True,
        ),
        NodeParameter(
            'on_error', 'passthrough', 'a frame that cannot be restored goes out as it is or not',
            True, ('passthrough', 'drop'),
        ),
        NodeParameter(
            'lazy', True, 'restore the frames of a camera only while somebody subscribes', True
        ),
        NodeParameter(
            'image_transport', 'raw', 'how the images come: compressed is JPEG or PNG',
            choices=TRANSPORTS,
        ),
        NodeParameter(
            'compressed_format', 'jpeg', 'how <output>/compressed is compressed', True,
            CODECS,
        ),
        NodeParameter(
            'jpeg_quality', 95, 'of <output>/compressed', True, minimum=1, maximum=100
        ),
        NodeParameter('model', 'fast', 'the generator', True, tuple(PRESETS)),
        NodeParameter(
            'deblur_weights', '', 'weight file (.safetensors); empty: the shipped one', True
        ),
        NodeParameter(
            'derain_weights', '', 'weight file (.safetensors); empty: the shipped one', True
        ),
        NodeParameter('device', 'auto', 'auto, cpu, cuda or cuda:N'),
        NodeParameter(
            'precision', 'auto', 'auto measures which is faster', choices=('auto', *PRECISIONS)
        ),
        NodeParameter(
            'max_batch', 0, 'frames that are restored together at most; 0: what suits the device',
            minimum=0, maximum=64,
        ),
        NodeParameter(
            'batch_wait', 0.002, 'seconds that an incomplete batch waits for the other cameras',
            minimum=0.0, maximum=1.0,
        ),
        NodeParameter(
            'threads', 0, 'threads of the CPU for restoring; 0: one per core, or OMP_NUM_THREADS',
            minimum=0, maximum=1024,
        ),
        NodeParameter('autostart', True, 'configure and activate at the start'),
    )
}
