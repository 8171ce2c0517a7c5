"""The node's parameters in one table: what they are, may be, and when they may change."""

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
    """What a text (each text of a list) must look like: a regular expression, and in words."""

    pattern: str
    words: str


class Numbers(NamedTuple):
    """What a list of numbers must be: a function that raises ``ValueError``, and in words."""

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
    """One parameter. ``dynamic`` ones may change at any time, the others until `configure`."""

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
        """Return which values of its type are good, in words; nothing if all are."""
        if self.choices:
            return f'one of {", ".join(self.choices)}'
        if words := self.form or self.numbers:
            return words.words
        if self.minimum is None:
            return ''
        return f'at least {self.minimum}' + (f', at most {self.maximum}' if self.maximum else '')

    def text(self) -> str:
        """Return what it is and what values are good."""
        return '; '.join(filter(None, (self.description, self.constraint())))

    def descriptor(self) -> ParameterDescriptor:
        """Return what `ros2 param describe` shows."""
        when = 'may change at any time' if self.dynamic else 'takes effect at configure'
        descriptor = ParameterDescriptor(
            description=self.description,
            additional_constraints='; '.join(filter(None, (self.constraint(), when))),
            # Types are checked here. A whole number is a good speed, and rclpy would say of a wrong
            # one "expected '4' got '1'".
            dynamic_typing=True,
        )
        if isinstance(self.default, int) and self.maximum:
            # Not for the others: rqt draws a slider, which needs both ends.
            descriptor.integer_range = [
                IntegerRange(from_value=self.minimum, to_value=self.maximum)
            ]
        return descriptor

    def problem(self, value: Any) -> str | None:
        """Return why ``value`` cannot be taken, or None."""
        if self.numbers:
            return self._numbers_problem(value)
        if value is None:  # what an empty list on the command line comes to
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
        # None is what an empty list comes to; rclpy has arrays of its own.
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
        NodeParameter('mode', 'auto', 'what is done to the frames', True, MODES),
        NodeParameter('weather', 'clear', 'the weather, for mode auto', True, WEATHERS),
        NodeParameter('vehicle_speed', 0.0, 'm/s, for mode auto', True),
        NodeParameter(
            'deblur_min_speed', 5.0, 'm/s from which mode auto deblurs', True, minimum=0.0
        ),
        NodeParameter(
            'min_dwell', 2.0, 's between two changes of the task that topics cause', True,
            minimum=0.0,
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
            's of silence after which parameters count instead of a topic; 0: never',
            True, minimum=0.0,
        ),
        NodeParameter(
            'skip_sharp', False, 'mode `auto` leaves sharp frames alone instead of deblurring them',
            True,
        ),
        NodeParameter(
            'use_past', True, 'each frame is restored with what the one before it shows', True
        ),
        NodeParameter(
            'unveil', True, 'the veil of fog and far rain is taken off what is derained', True
        ),
        NodeParameter(
            'clean_glass', True, 'drops and dirt on the glass are taken off what is derained', True
        ),
        NodeParameter(
            'dirty_glass', 0.1,
            'share of the glass that drops or dirt cover, from which on `/diagnostics` warns; '
            '0: never', True, minimum=0.0, maximum=1.0,
        ),
        NodeParameter(
            'max_gap', LONGEST_GAP,
            's between two frames of a camera beyond which they have nothing to do with each other',
            True, minimum=0.0,
        ),
        NodeParameter(
            'shutter', 0.0,
            'share of the time between two frames that the shutter is open; 0: unknown, it is '
            'looked for in blurred frames', True, minimum=0.0, maximum=1.0,
        ),
        NodeParameter(
            'imu', False, 'blur is undone by the gyroscope on the topic `imu`', True
        ),
        NodeParameter(
            'imu_rotation', [],
            "from the IMU's frame to the cameras' optical ones; empty: as /tf_static says", True,
            numbers=QUATERNIONS,
        ),
        NodeParameter(
            'imu_time_offset', 0.0,
            "s: a moment's stamp by the IMU less that by the camera, as Kalibr has it; where the "
            'search for it begins', True, minimum=-1.0, maximum=1.0,
        ),
        NodeParameter(
            'readout', 0.0,
            's from the first row of a frame to the last, of a rolling shutter; negative if it is '
            'read from below; 0: a global shutter', True, minimum=-0.1, maximum=0.1,
        ),
        NodeParameter(
            'imu_wait', 0.01, 's that a frame waits for its samples of the gyroscope', True,
            minimum=0.0, maximum=1.0,
        ),
        NodeParameter(
            'exposure_type', '', 'message type of the topics `<camera>/exposure`; empty: no topics'
        ),
        NodeParameter(
            'exposure_field', 'data',
            'field of that message: for how many s the frames are exposed; counts before `shutter`',
        ),
        NodeParameter(
            'on_error', 'passthrough', 'what becomes of a frame that cannot be restored', True,
            ('passthrough', 'drop'),
        ),
        NodeParameter(
            'lazy', True,
            "a camera's frames are received and restored only while somebody subscribes to its "
            'output', True,
        ),
        NodeParameter('image_transport', 'raw', 'how the images come', choices=TRANSPORTS),
        NodeParameter(
            'compressed_format', 'jpeg', 'how `<output>/compressed` is compressed', True, CODECS
        ),
        NodeParameter(
            'jpeg_quality', 95, 'of `<output>/compressed` as JPEG', True, minimum=1, maximum=100
        ),
        NodeParameter(
            'model', 'fast', 'the generator; only `fast` comes with weights', True, tuple(PRESETS)
        ),
        *(
            NodeParameter(
                f'{name}_weights', '', 'a `.safetensors` file; empty: the shipped one', True
            ) for name in WEIGHTS
        ),
        NodeParameter('device', 'auto', 'where the generators run', form=DEVICE),
        NodeParameter(
            'precision', 'auto',
            'of the computation; `auto`: the fastest, measured at configure; `int8`: the residual '
            'blocks, on a CPU with VNNI', choices=('auto', *PRECISIONS),
        ),
        NodeParameter(
            'max_batch', 0,
            'frames restored together at most; 0: what suits the device, 8 on CUDA, 1 on a CPU',
            minimum=0, maximum=64,
        ),
        NodeParameter(
            'batch_wait', 0.002, 's that an incomplete batch waits for the other cameras',
            minimum=0.0, maximum=1.0,
        ),
        NodeParameter(
            'threads', 0, 'of the CPU, for restoring; 0: one per core, or `OMP_NUM_THREADS`',
            minimum=0, maximum=1024,
        ),
        NodeParameter('autostart', True, 'configure and activate at the start'),
    )
}
# Those of rclpy and of every node.
OTHERS = 'use_sim_time', 'start_type_description_service', 'qos_overrides.'


def warnings(names: Iterable[str]) -> list[str]:
    """Return a line for each name that is no parameter, with the one that may have been meant."""
    lines = []
    for name in sorted(set(names) - set(PARAMETERS)):
        if not name.startswith(OTHERS):
            near = difflib.get_close_matches(name, PARAMETERS, 1)
            meant = f'; is {near[0]} meant?' if near else ''
            lines.append(f'there is no parameter {name}, it does nothing{meant}')
    return lines


def read_arguments(arguments: list[str]) -> None:
    """Take what is left of a command line without ``--ros-args``: --help, or nothing."""
    parser = argparse.ArgumentParser(
        prog='restore_node', formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='%(prog)s [--ros-args -p NAME:=VALUE ... --params-file FILE -r __node:=NAME ...]',
        description='Restore the frames of cameras and publish them; a lifecycle node.',
        epilog='parameters:\n' + '\n'.join(
            f'  {p.name} (default {p.default}): {p.text()}' for p in PARAMETERS.values()
        ),
    )
    parser.parse_args(arguments)
