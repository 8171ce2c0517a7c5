"""Mode auto on live topics: the node as a process of its own, over DDS."""

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, Float32, String


class Feed:
    """Publishes to a topic of the node, once the node listens."""

    def __init__(self, rig, kind, topic):
        self.publisher = rig.node.create_publisher(kind, topic, 10)
        rig.wait(self.publisher.get_subscription_count)
        rig.spin(0.3)

    def __call__(self, message):
        self.publisher.publish(message)


def odometry(speed):
    """Return a message with that speed."""
    message = Odometry()
    message.twist.twist.linear.x = speed
    return message


def send_until(rig, task, *messages, level=DiagnosticStatus.OK):
    """Send (feed, message) pairs until diagnostics show task and level; return text and values."""
    def arrived():
        for feed, message in messages:
            feed(message)
        rig.diagnostics.clear()
        rig.spin(0.4)
        for status in (s for a in rig.diagnostics for s in a.status):
            values = {v.key: v.value for v in status.values}
            if (status.level, values.get('task')) == (level, task):
                return status.message, values
        return None
    return rig.wait(arrived)


def test_topics_choose_the_task_and_parameters_when_they_are_silent(rig):
    rig.start(
        mode='auto', vehicle_speed_type='nav_msgs/msg/Odometry', min_dwell=0.1,
        vehicle_speed_field='twist.twist.linear.x', rain_type='std_msgs/msg/String',
        input_timeout=2.0, device='cpu',
    )
    speed, rain = Feed(rig, Odometry, 'vehicle_speed'), Feed(rig, String, 'rain')

    def silences():
        """Return how many times topics fell silent and did not come back, by the log."""
        said = rig.said()
        return [
            said.count(f'no message on topic {t}') - said.count(f'topic {t} is used again')
            for t in ('vehicle_speed', 'rain')
        ]

    _, values = send_until(rig, 'deblur', (speed, odometry(-20.0)), (rain, String(data='clear')))
    assert '20.0 m/s (topic)' in values['reason']
    assert silences() == [0, 0]
    send_until(rig, 'derain', (speed, odometry(-20.0)), (rain, String(data='rain')))
    # Neither nonsense nor silence keeps a topic alive.
    nonsense = (speed, odometry(float('nan'))), (rain, String(data='mist'))
    message, values = send_until(rig, 'none', *nonsense, level=DiagnosticStatus.WARN)
    assert 'no message on rain and vehicle_speed: the parameters apply' in message
    assert '(parameter)' in values['reason']
    assert values['rain topic'] == values['vehicle_speed topic'] == 'silent'
    assert int(values['rain ignored']) > 0 and int(values['vehicle_speed ignored']) > 0
    rig.spin(1.5)
    assert silences() == [1, 1], 'said once, not once a second'
    send_until(rig, 'derain', (speed, odometry(0.0)), (rain, String(data='RAIN')))
    assert silences() == [0, 0]


def test_a_mode_set_by_hand_does_not_wait_for_the_dwell(rig, photograph):
    rig.start(
        mode='auto', rain_type='std_msgs/msg/Float32', rain_threshold=0.5, min_dwell=1000.0,
        input_timeout=0.0,
    )
    rain = Feed(rig, Float32, 'rain')
    crop = np.ascontiguousarray(photograph[:64, :96])

    def outcome(number):
        message = Image(encoding='rgb8', height=64, width=96, step=288, data=crop.tobytes())
        message.header.stamp.sec = number
        return bytes(rig.round_trip(message).data) == crop.tobytes()

    rain(Float32(data=0.9))
    rig.spin(0.5)
    assert outcome(1), 'the dwell is not over'
    rig.set_parameters(mode='derain')
    assert not outcome(2)
    rig.set_parameters(mode='passthrough')
    assert outcome(3)
    rig.set_parameters(mode='auto')
    assert not outcome(4), 'it rains'


def test_simulated_time_that_jumps_back(rig):
    """A bag that is played twice: at its second start nothing hangs in the first one's future."""
    rig.start(
        mode='auto', use_sim_time=True, vehicle_speed_type='geometry_msgs/msg/TwistStamped',
        min_dwell=1.0, input_timeout=5.0, device='cpu',
    )
    clock, speed = Feed(rig, Clock, '/clock'), Feed(rig, TwistStamped, 'vehicle_speed')
    fast = TwistStamped()
    fast.twist.linear.x = 30.0

    def play(second, message, task, level=DiagnosticStatus.OK):
        now = Clock()
        now.clock.sec = second
        feeds = [(clock, now)] + [(speed, message)] * (message is not None)
        return send_until(rig, task, *feeds, level=level)

    play(1000, fast, 'deblur')
    play(100, TwistStamped(), 'deblur')  # the dwell begins anew
    play(102, TwistStamped(), 'none')
    play(104, fast, 'deblur')
    play(110, None, 'none', DiagnosticStatus.WARN)  # silence in the second run's time


def test_sharp_frames_are_left_alone_when_asked_for(rig, photograph):
    rig.start(mode='auto', vehicle_speed=20.0, skip_sharp=True)

    def changed(picture, number):
        message = Image(
            encoding='bgr8', height=picture.shape[0], width=picture.shape[1],
            step=3 * picture.shape[1], data=picture.tobytes(),
        )
        message.header.stamp.sec = number
        return bytes(rig.round_trip(message).data) != picture.tobytes()

    blurred = cv2.blur(photograph, (9, 1))
    assert not changed(photograph, 1)
    assert changed(blurred, 2)
    assert not changed(photograph, 3)
    rig.set_parameters(mode='deblur')
    assert changed(photograph, 4), 'a mode set by hand has no exceptions'
    rig.spin(1.0)
    _, _, values = rig.next_status('camera camera')
    assert (values['passed, sharp already'], values['restored']) == ('2', '2')


def test_a_latched_topic(rig):
    """Said once, before the node was there."""
    qos = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    rig.node.create_publisher(Bool, 'rain', qos).publish(Bool(data=True))
    rig.start(mode='auto', rain_type='std_msgs/msg/Bool', input_timeout=0.0, device='cpu')
    send_until(rig, 'derain')


@pytest.mark.parametrize(('parameters', 'reason'), [
    ({'rain_type': 'no_such_msgs/msg/Rain'}, 'rain_type, rain_field: cannot import no_such_msgs'),
    ({'vehicle_speed_type': 'geometry_msgs/msg/TwistStamped', 'vehicle_speed_field': 'twist.x'},
     "Twist has no field 'x', only linear, angular"),
    ({'vehicle_speed_type': 'std_msgs/msg/Bool', 'vehicle_speed_field': 'data'},
     "'data' of std_msgs/msg/Bool is of type bool, but must be one of float, int"),
    ({'rain_type': 'std_msgs/msg/Header', 'rain_field': 'stamp'}, 'is of type Time'),
])
def test_wrong_type_or_field_stops_configure(rig, parameters, reason):
    rig.start(autostart=False, **parameters)
    assert not rig.call(ChangeState, '/restore/change_state', ChangeState.Request(
        transition=Transition(id=Transition.TRANSITION_CONFIGURE)
    )).success
    assert reason in rig.next_status('restorer')[1]
    assert reason in rig.said()
    assert 'Traceback' not in rig.said()
