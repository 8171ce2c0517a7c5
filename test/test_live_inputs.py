"""Message types and fields that are found by name, and what values mean."""

from math import inf, nan

import pytest

from iov_restore_ros.node.live_inputs import (
    InputError,
    as_rain,
    as_speed,
    message_type,
    read_field,
)


@pytest.mark.parametrize(('name', 'path', 'value'), [
    ('geometry_msgs/msg/TwistStamped', 'twist.linear.x', 7.5),
    ('geometry_msgs/msg/TwistWithCovarianceStamped', 'twist.twist.linear.x', 7.5),
    ('nav_msgs/msg/Odometry', 'twist.twist.linear.x', 7.5),
    ('autoware_vehicle_msgs/msg/VelocityReport', 'longitudinal_velocity', 7.5),
    ('std_msgs/msg/Float32', 'data', 7.5),
    ('std_msgs/msg/UInt8', 'data', 7),
    ('std_msgs/msg/Bool', 'data', True),
    ('std_msgs/msg/String', 'data', 'rain'),
])
def test_fields_of_any_message(name, path, value):
    pytest.importorskip(name.partition('/')[0], reason='package not installed')
    message = message_type(name)()
    parent, _, last = path.rpartition('.')
    setattr(read_field(message, parent) if parent else message, last, value)
    assert read_field(message, path) == value


@pytest.mark.parametrize(('name', 'path', 'reason'), [
    ('TwistStamped', 'x', 'not a message type'),
    ('geometry_msgs/srv/TwistStamped', 'x', 'not a message type'),
    ('no_such_msgs/msg/Rain', 'data', 'install that package'),
    ('std_msgs/msg/Boolean', 'data', 'no message Boolean'),
    ('std_msgs/msg/Bool', '', "no field ''"),
    ('std_msgs/msg/Bool', 'data.x', 'goes beyond a field of type bool'),
    ('geometry_msgs/msg/TwistStamped', 'twist.linear.w', 'only x, y, z'),
])
def test_wrong_names_say_why(name, path, reason):
    with pytest.raises(InputError, match=reason):
        read_field(message_type(name)(), path)


def test_what_values_mean():
    assert [as_speed(v) for v in (-3.5, 4, nan, inf)] == [-3.5, 4.0, None, None]
    assert [as_rain(v, 0.5) for v in (True, False, 0.6, 0.5, 0, 200, inf, nan)] == [
        True, False, True, False, False, True, True, None
    ]
    assert [as_rain(v, 0.5) for v in ('rain', ' Rain\n', 'fog', 'clear', 'wet', '')] == [
        True, True, True, False, None, None
    ]
