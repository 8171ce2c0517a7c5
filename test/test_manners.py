"""How the node behaves towards others: subscriptions, QoS, names, clocks."""

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from ros_harness import Rig, make_info, make_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from iov_restore_ros.node.qos import settle

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
VOLATILE, LATCHED = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL
ANY = ReliabilityPolicy.BEST_AVAILABLE, DurabilityPolicy.BEST_AVAILABLE


@pytest.mark.parametrize(('asked', 'offered', 'expected'), [
    (ANY, [], (BEST_EFFORT, VOLATILE)),
    (ANY, [(RELIABLE, VOLATILE)], (RELIABLE, VOLATILE)),
    (ANY, [(RELIABLE, LATCHED)], (RELIABLE, LATCHED)),
    (ANY, [(RELIABLE, LATCHED), (BEST_EFFORT, VOLATILE)], (BEST_EFFORT, VOLATILE)),
    ((BEST_EFFORT, ANY[1]), [(RELIABLE, LATCHED)], (BEST_EFFORT, LATCHED)),
    ((RELIABLE, VOLATILE), [(BEST_EFFORT, LATCHED)], (RELIABLE, VOLATILE)),
])
def test_settled_qos(asked, offered, expected):
    profiles = [QoSProfile(depth=1, reliability=r, durability=d) for r, d in offered]
    assert settle(asked, profiles) == expected


def publisher_on(rig, topic, reliability, durability=VOLATILE):
    """Return a driver's publisher of images."""
    return rig.node.create_publisher(
        Image, topic, QoSProfile(depth=1, reliability=reliability, durability=durability)
    )


def watch(rig, topic, **qos):
    """Subscribe as a perception stack; return the subscription and the frames that come."""
    frames = []
    profile = QoSProfile(depth=5, **qos) if qos else qos_profile_sensor_data
    return rig.node.create_subscription(Image, topic, frames.append, profile), frames


def listening_with(rig, topic):
    """Return the reliability and durability that the node asks for on ``topic``, or None."""
    infos = rig.node.get_subscriptions_info_by_topic(topic)
    return [(i.qos_profile.reliability, i.qos_profile.durability) for i in infos]


def test_lazy_camera_listens_only_while_somebody_wants_its_frames(rig, crop):
    rig.launch(cameras='[front, rear]', mode='passthrough', precision='float32')
    drivers = {n: publisher_on(rig, f'/{n}/image_raw', RELIABLE) for n in ('front', 'rear')}
    viewer, frames = watch(rig, '/front/restored/image_raw')
    rig.wait(drivers['front'].get_subscription_count)
    rig.spin(0.3)
    for number in range(3):
        for driver in drivers.values():
            driver.publish(make_message(crop, number))
        rig.wait(lambda n=number: len(frames) > n)
    assert drivers['rear'].get_subscription_count() == 0
    assert rig.next_status('camera rear')[:2] == (
        DiagnosticStatus.OK, 'idle: nobody subscribes to its frames'
    )

    rig.node.destroy_subscription(viewer)
    rig.wait(lambda: drivers['front'].get_subscription_count() == 0)
    drivers['front'].publish(make_message(crop, 4))
    rig.spin(1.2)
    assert rig.next_status('camera front')[2]['received'] == '3'
    assert 'front: not listening' in rig.said()

    _, frames = watch(rig, '/front/restored/image_raw')
    rig.wait(drivers['front'].get_subscription_count)
    rig.spin(0.3)
    drivers['front'].publish(make_message(crop, 5))
    rig.wait(lambda: [m.header.stamp.sec for m in frames] == [1005])

    [result] = rig.set_parameters(lazy=False)
    assert result.successful
    rig.wait(drivers['rear'].get_subscription_count)
    [result] = rig.set_parameters(lazy=True)
    rig.wait(lambda: drivers['rear'].get_subscription_count() == 0)


def test_input_follows_the_publishers(rig, crop):
    rig.launch(mode='passthrough', precision='float32')
    topic = '/camera/image_raw'
    _, frames = watch(rig, '/camera/restored/image_raw')
    rig.wait(lambda: listening_with(rig, topic) == [(BEST_EFFORT, VOLATILE)])
    latched = publisher_on(rig, topic, RELIABLE, LATCHED)
    latched.publish(make_message(crop, 1))  # before the node has found it
    rig.wait(lambda: listening_with(rig, topic) == [(RELIABLE, LATCHED)])
    rig.wait(lambda: 1001 in [m.header.stamp.sec for m in frames])

    # A second one that offers less must be heard too.
    other = publisher_on(rig, topic, BEST_EFFORT)
    rig.wait(lambda: listening_with(rig, topic) == [(BEST_EFFORT, VOLATILE)])
    rig.wait(lambda: other.get_subscription_count() and latched.get_subscription_count())
    rig.spin(0.3)
    other.publish(make_message(crop, 2))
    rig.wait(lambda: 1002 in [m.header.stamp.sec for m in frames])
    latched.publish(make_message(crop, 3))
    rig.wait(lambda: 1003 in [m.header.stamp.sec for m in frames])


def test_mismatch_by_override_is_reported_with_the_remedy(rig):
    given = {'qos_overrides./camera/image_raw.subscription.reliability': 'reliable'}
    rig.launch(precision='float32', **given)
    watch(rig, '/camera/restored/image_raw')
    rig.wait(lambda: listening_with(rig, '/camera/image_raw') == [(RELIABLE, VOLATILE)])
    driver = publisher_on(rig, '/camera/image_raw', BEST_EFFORT)
    rig.wait(lambda: 'set qos_overrides./camera/image_raw.subscription.reliability' in rig.said())
    assert driver.get_subscription_count() == 0
    rig.wait(lambda: 'has a matching QoS' in rig.next_status('camera camera')[1])

    watch(rig, '/camera/restored/image_raw', durability=LATCHED)
    rig.wait(lambda: 'whose durability does not match: it should be volatile' in rig.said())
    assert 'qos_overrides./camera/restored/image_raw.publisher.durability' in rig.said()


def test_remapped_and_in_a_namespace(rig, crop):
    rig.launch(
        ['-r', '__ns:=/car', '-r', 'front/image_raw:=/driver/picture',
         '-r', 'front/restored/image_raw:=clean'],
        cameras='[front, rear]', mode='passthrough', precision='float32',
    )
    driver = publisher_on(rig, '/driver/picture', RELIABLE)
    _, frames = watch(rig, '/car/clean')
    rig.connect('car/rear')
    rig.wait_until_listening()
    rig.wait(driver.get_subscription_count)
    rig.spin(0.3)
    driver.publish(make_message(crop, 1))
    rig.wait(lambda: frames)
    rig.send(make_info(make_message(crop, 2)), 'car/rear')
    rig.round_trip(make_message(crop, 2), 'car/rear')
    rig.wait(lambda: rig.infos['car/rear'])
    assert rig.next_status('camera rear')[2]['received'] == '1'


def test_two_nodes_side_by_side(rig, tmp_path, crop):
    other = Rig(tmp_path / 'other.log', rig.domain)
    try:
        rig.launch(['-r', '__node:=restore_front'], cameras='[front]', mode='passthrough',
                   precision='float32')
        other.launch(['-r', '__node:=restore_rear'], cameras='[rear]', mode='passthrough',
                     precision='float32')
        rig.connect('front')
        other.connect('rear')
        rig.wait_until_listening()
        other.wait_until_listening()
        for number in range(3):
            rig.round_trip(make_message(crop, number), 'front')
            other.round_trip(make_message(crop, 10 + number), 'rear')
        assert rig.next_status('restore_front: camera front')[2]['received'] == '3'
        assert rig.next_status('restore_rear: camera rear')[2]['received'] == '3'
    finally:
        other.close()


def test_bag_that_starts_again_under_simulated_time(rig, crop):
    rig.start(mode='passthrough', use_sim_time=True)
    rig.round_trip(make_message(crop, 0))  # before there is any clock
    clock = rig.node.create_publisher(Clock, '/clock', 1)
    rig.wait(clock.get_subscription_count)
    for _ in range(2):  # the bag, twice
        for number in (50, 51, 52):
            message = make_message(crop, number)
            rig.images['camera'].clear()
            rig.infos['camera'].clear()
            clock.publish(Clock(clock=message.header.stamp))
            rig.send(make_info(message))
            rig.round_trip(message)
            rig.wait(lambda m=message: [i.header for i in rig.infos['camera']] == [m.header])
    rig.spin(1.2)
    _, _, values = rig.next_status('camera camera')
    assert values['received'] == values['passed through'] == '7'
    assert 0 <= float(values['age of the last frame s']) < 10
    assert abs(float(values['latency p50 ms'])) < 5000  # by the simulated clock
