"""The node's parameters in one table: meaning, valid values, and when they may change."""

import argparse
import difflib
import re
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

from rcl_interfaces.msg import IntegerRange, ParameterDescriptor

from iov_restore_ros.compute.precisions import PRECISIONS
from iov_restore_ros.model import FINDERS, PRESETS
from iov_restore_ros.node.compressed import CODECS
from iov_restore_ros.node.mode_policy import MODES, WEATHERS
from iov_restore_ros.node.mounting import rotations
from iov_restore_ros.node.transports import TRANSPORTS
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.video.history import LONGEST_GAP


class Form(NamedTuple):
    """What a text (each text of a list) must match: a regular expression, and a description."""

    pattern: str
    words: str


class Numbers(NamedTuple):
    """What a list of numbers must be: a function that raises ``ValueError``, and a description."""

    read: Callable[[Any], object]
    words: str


TYPES = {
    bool: 'true or false', int: 'a whole number', float: 'a finite number', str: 'a text',
    list: 'a list of texts',
}
DEVICE = Form('auto|cpu|cuda(:[0-9]+)?', 'auto, cpu, cuda or cuda:N')
TOPIC_NAMESPACE = Form(
    '(~?/)?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*',
    'one or more topic namespaces (letters, digits, _ and /), none twice',
)
WEIGHTS = *TASKS, *FINDERS  # each has a parameter, <name>_weights
QUATERNIONS = Numbers(
    rotations, 'quaternions of length 1 (x, y, z, w): none, one, or one for each camera'
)


@dataclass(frozen=True)
class NodeParameter:
    """One parameter. A ``dynamic`` one may change at any time, another one until `configure`."""

    name: str
    default: Any
    description: str
    dynamic: bool = False
    choices: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    form: Form | None = None
    numbers: Numbers | None = None

    def constraint(self) -> str:
        """Return which values of its type are valid, in words; empty if all are."""
        if self.choices:
            return f'one of {", ".join(self.choices)}'
        if words := self.form or self.numbers:
            return words.words
        if self.minimum is None:
            return ''
        return f'at least {self.minimum}' + (f', at most {self.maximum}' if self.maximum else '')

    def text(self) -> str:
        """Return the description and the valid values."""
        return '; '.join(filter(None, (self.description, self.constraint())))

    def descriptor(self) -> ParameterDescriptor:
        """Return what `ros2 param describe` shows."""
        when = 'may change at any time' if self.dynamic else 'takes effect at configure'
        descriptor = ParameterDescriptor(
            description=self.description,
            additional_constraints='; '.join(filter(None, (self.constraint(), when))),
            # ``problem`` checks types. A whole number is a valid speed, and rclpy reports a wrong
            # type as "expected '4' got '1'".
            dynamic_typing=True,
        )
        if isinstance(self.default, int) and self.maximum:
            # Only with both ends: rqt draws a slider for it.
            descriptor.integer_range = [
                IntegerRange(from_value=self.minimum, to_value=self.maximum)
            ]
        return descriptor

    def problem(self, value: Any) -> str | None:
        """Return why ``value`` is not valid, or None."""
        if self.numbers:
            return self._numbers_problem(value)
        if value is None:  # rclpy's value of an empty list on the command line
            return f'{self.name} has no value'
        if not _is_of_type(value, type(self.default)):
            wanted = self.constraint() if self.choices else TYPES[type(self.default)]
        elif not self._fits(value):
            wanted = self.constraint()
        else:
            return None
        return f'{self.name} is {value!r}, but must be {wanted}'

    def _numbers_problem(self, value: Any) -> str | None:
        assert self.numbers is not None
        # rclpy turns an empty list into None, and other lists into arrays.
        numbers = [] if value is None else value
        if isinstance(numbers, list | tuple | array) and all(
            _is_of_type(number, float) for number in numbers
        ):
            try:
                self.numbers.read(numbers)
            except ValueError:
                pass
            else:
                return None
        return f'{self.name} is {value!r}, but must be {self.numbers.words}'

    def _fits(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if isinstance(self.default, list):
            return 0 < len(value) == len(set(value)) and all(map(self._has_form, value))
        if self.form:
            return self._has_form(value)
        return (self.minimum is None or value >= self.minimum) and (
            self.maximum is None or value <= self.maximum
        )

    def _has_form(self, text: str) -> bool:
        return self.form is None or re.fullmatch(self.form.pattern, text) is not None


def _is_of_type(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    if kind is float:
        return _is_of_type(value, int) or (isinstance(value, float) and isfinite(value))
    return type(value) is kind


PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        NodeParameter('cameras', ['camera'], 'names of the cameras', form=TOPIC_NAMESPACE),
        NodeParameter('mode', 'auto', 'what to do with the frames', True, MODES),
        NodeParameter('weather', 'clear', 'the weather, for mode auto', True, WEATHERS),
        NodeParameter('vehicle_speed', 0.0, 'speed of the vehicle in m/s, for mode auto', True),
        NodeParameter(
            'deblur_min_speed', 5.0, 'speed in m/s from which mode auto deblurs', True, minimum=0.0
        ),
        NodeParameter(
            'min_dwell', 2.0, 'shortest time in seconds between two changes of the task by topics',
            True, minimum=0.0,
        ),
        NodeParameter(
            'vehicle_speed_type', '', 'message type of the topic `vehicle_speed`; empty: no topic'
        ),
        NodeParameter(
            'vehicle_speed_field', 'twist.linear.x', 'field of that message with the speed in m/s'
        ),
        NodeParameter('rain_type', '', 'message type of the topic `rain`; empty: no topic'),
        NodeParameter(
            'rain_field', 'data', 'field of that message: a bool, a number, or a string'
        ),
        NodeParameter('rain_threshold', 0.0, 'a number on `rain` above this means rain', True),
        NodeParameter(
            'input_timeout', 2.0,
            'seconds without a message on a topic before the parameter applies; 0: never',
            True, minimum=0.0,
        ),
        NodeParameter(
            'skip_sharp', False, 'mode `auto` passes sharp frames instead of deblurring them', True
        ),
        NodeParameter(
            'use_past', True, 'restore each frame with the help of the previous frame', True
        ),
        NodeParameter(
            'unveil', True, 'remove the veil of fog and far rain before deraining', True
        ),
        NodeParameter(
            'clean_glass', True, 'remove drops and dirt on the glass before deraining', True
        ),
        NodeParameter(
            'dirty_glass', 0.1,
            'share of the glass under drops or dirt from which `/diagnostics` warns; 0: never',
            True, minimum=0.0, maximum=1.0,
        ),
        NodeParameter(
            'max_gap', LONGEST_GAP,
            "seconds between two frames after which a camera's history is cleared", True,
            minimum=0.0,
        ),
        NodeParameter(
            'shutter', 0.0,
            'share of the frame time that the shutter is open; 0: unknown, estimated from blurred '
            'frames', True, minimum=0.0, maximum=1.0,
        ),
        NodeParameter('imu', False, 'use the gyroscope on the topic `imu` for deblurring', True),
        NodeParameter(
            'imu_rotation', [],
            "rotation from the IMU's frame to the optical frame of the cameras; empty: from "
            '/tf_static', True, numbers=QUATERNIONS,
        ),
        NodeParameter(
            'imu_time_offset', 0.0,
            "seconds: the IMU's stamp of a moment minus the camera's stamp (Kalibr's convention); "
            'the estimate starts there', True, minimum=-1.0, maximum=1.0,
        ),
        NodeParameter(
            'readout', 0.0,
            'seconds from the first row to the last of a rolling shutter; negative if it is read '
            'from below; 0: a global shutter', True, minimum=-0.1, maximum=0.1,
        ),
        NodeParameter(
            'imu_wait', 0.01,
            'longest time in seconds that a frame waits for its gyroscope samples', True,
            minimum=0.0, maximum=1.0,
        ),
        NodeParameter(
            'exposure_type', '', 'message type of the topics `<camera>/exposure`; empty: no topics'
        ),
        NodeParameter(
            'exposure_field', 'data',
            'field of that message with the exposure in seconds; takes precedence over `shutter`',
        ),
        NodeParameter(
            'on_error', 'passthrough', 'what to do with a frame that cannot be restored', True,
            ('passthrough', 'drop'),
        ),
        NodeParameter(
            'lazy', True,
            'receive and restore the frames of a camera only while somebody subscribes to its '
            'output', True,
        ),
        NodeParameter(
            'image_transport', 'raw', 'transport of the input images', choices=TRANSPORTS
        ),
        NodeParameter(
            'compressed_format', 'jpeg', 'format of `<output>/compressed`', True, CODECS
        ),
        NodeParameter(
            'jpeg_quality', 95, 'JPEG quality of `<output>/compressed`', True,
            minimum=1, maximum=100,
        ),
        NodeParameter(
            'model', 'fast', 'the generator; only `fast` has shipped weights', True, tuple(PRESETS)
        ),
        *(
            NodeParameter(
                f'{name}_weights', '', 'a `.safetensors` file; empty: the shipped one', True
            ) for name in WEIGHTS
        ),
        NodeParameter('device', 'auto', 'device of the generators', form=DEVICE),
        NodeParameter(
            'precision', 'auto',
            'precision of the generators; `auto`: the fastest, measured at configure; `int8`: the '
            'residual blocks, on a CPU with VNNI', choices=('auto', *PRECISIONS),
        ),
        NodeParameter(
            'max_batch', 0,
            'largest number of frames in one batch; 0: by the device, 8 on CUDA, 1 on a CPU',
            minimum=0, maximum=64,
        ),
        NodeParameter(
            'batch_wait', 0.002,
            'longest time in seconds that an incomplete batch waits for other cameras',
            minimum=0.0, maximum=1.0,
        ),
        NodeParameter(
            'threads', 0, 'CPU threads for restoring; 0: one per core, or `OMP_NUM_THREADS`',
            minimum=0, maximum=1024,
        ),
        NodeParameter('autostart', True, 'configure and activate at the start'),
    )
}
# Parameters of rclpy, which every node has.
OTHERS = 'use_sim_time', 'start_type_description_service', 'qos_overrides.'


def warnings(names: Iterable[str]) -> list[str]:
    """Return a line for each name that is no parameter, with the most similar parameter."""
    lines = []
    for name in sorted(set(names) - set(PARAMETERS)):
        if not name.startswith(OTHERS):
            near = difflib.get_close_matches(name, PARAMETERS, 1)
            meant = f'; did you mean {near[0]}?' if near else ''
            lines.append(f'unknown parameter {name} is ignored{meant}')
    return lines


def read_arguments(arguments: list[str]) -> None:
    """Read a command line without its ``--ros-args``: --help, or nothing."""
    parser = argparse.ArgumentParser(
        prog='restore_node', formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='%(prog)s [--ros-args -p NAME:=VALUE ... --params-file FILE -r __node:=NAME ...]',
        description='Restore the frames of cameras and publish them; a lifecycle node.',
        epilog='parameters:\n' + '\n'.join(
            f'  {p.name} (default {p.default}): {p.text()}' for p in PARAMETERS.values()
        ),
    )
    parser.parse_args(arguments)
