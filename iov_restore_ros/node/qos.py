"""
Quality of service: subscriptions that follow the publishers, and what to do about a mismatch.

A subscription is reliable if all publishers are: over a network a best-effort image is lost with
any of its fragments. If only some publishers are reliable, it is best effort, because the others
would not match. The same is true of durability.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSPolicyKind,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

OVERRIDABLE = (
    QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY
)
MATCHES_ANY = {'reliability': 'best_effort', 'durability': 'volatile'}  # on a subscriber's side

Policies = tuple[QoSReliabilityPolicy, QoSDurabilityPolicy]


# A function, because rclpy writes qos_overrides into the profile that it is given.
def qos_out() -> QoSProfile:
    """Return a reliable profile: every subscriber matches it, also a best-effort one."""
    return QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)


def settle(asked: Policies, offered: Sequence[QoSProfile]) -> Policies:
    """Replace BEST_AVAILABLE in ``asked`` by what all publishers offer; the minimum if none do."""
    reliability, durability = asked
    if reliability == QoSReliabilityPolicy.BEST_AVAILABLE:
        everywhere = all(o.reliability == QoSReliabilityPolicy.RELIABLE for o in offered)
        reliability = (
            QoSReliabilityPolicy.RELIABLE if offered and everywhere
            else QoSReliabilityPolicy.BEST_EFFORT
        )
    if durability == QoSDurabilityPolicy.BEST_AVAILABLE:
        everywhere = all(o.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL for o in offered)
        durability = (
            QoSDurabilityPolicy.TRANSIENT_LOCAL if offered and everywhere
            else QoSDurabilityPolicy.VOLATILE
        )
    return reliability, durability


class FollowingSubscription:
    """A subscription with the QoS that its publishers offer, unless `qos_overrides` set it."""

    remedy = 'see the log'

    def __init__(
        self, node: LifecycleNode, kind: type, topic: str, callback: Callable, depth: int,
        on_lost: Callable[[int], None] | None = None, **options: Any,
    ) -> None:
        """
        Subscribe. The executor's thread calls ``callback`` with each message.

        It calls ``on_lost`` with the number of messages that the middleware lost. ``options`` are
        those of rclpy's ``create_subscription``.
        """
        self._node = node
        self._on_lost = on_lost
        self._options = options
        self._arguments = kind, topic, callback
        self._depth = depth
        self._subscribe()

    @property
    def topic(self) -> str:
        """The topic's full name, remapped."""
        return self._subscription.topic_name

    def matched(self) -> int:
        """Return the number of publishers that it receives from."""
        return self._subscription.get_publisher_count()

    def trouble(self) -> str:
        """Return why no message can arrive: no publisher, another type or QoS; else empty."""
        if self.matched():
            return ''
        types = {info.topic_type for info in self._node.get_publishers_info_by_topic(self.topic)}
        if not types:
            return f'nobody publishes {self.topic}'
        kind, _, _ = self._arguments
        wanted = f'{kind.__module__.partition(".")[0]}/msg/{kind.__name__}'
        if wanted not in types:
            return f'{self.topic} has type {", ".join(sorted(types))}, expected {wanted}'
        return f'no publisher of {self.topic} has a matching QoS, {self.remedy}'

    def follow(self) -> None:
        """Subscribe again if the publishers now offer another QoS."""
        offered = self._offered()
        # Without publishers it stays unchanged: the one that left may return.
        if offered and settle(self._asked, offered) != self._settled:
            self.destroy()
            self._subscribe()

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self) -> None:
        qos = QoSProfile(
            depth=self._depth,
            reliability=QoSReliabilityPolicy.BEST_AVAILABLE,
            durability=QoSDurabilityPolicy.BEST_AVAILABLE,
        )
        self._subscription = self._node.create_subscription(
            *self._arguments, qos,
            # rclpy calls it after it has written the overrides into ``qos``. The middleware knows
            # BEST_AVAILABLE too. But without publishers it takes the maximum, which few match.
            qos_overriding_options=QoSOverridingOptions(OVERRIDABLE, callback=self._settle),
            event_callbacks=self._events(),
            **self._options,
        )

    def _events(self) -> SubscriptionEventCallbacks:
        on_lost = self._on_lost
        return SubscriptionEventCallbacks(
            matched=lambda _: self.follow(), incompatible_qos=self._on_incompatible,
            message_lost=on_lost and (lambda event: on_lost(event.total_count_change)),
            use_default_callbacks=False,  # for another type, which Fast DDS never reports
        )

    def _settle(self, qos: QoSProfile) -> SetParametersResult:
        self._asked = qos.reliability, qos.durability
        self._settled = settle(self._asked, self._offered())
        qos.reliability, qos.durability = self._settled
        return SetParametersResult(successful=True)

    def _offered(self) -> list[QoSProfile]:
        _, topic, _ = self._arguments
        return [info.qos_profile for info in self._node.get_publishers_info_by_topic(topic)]

    def _on_incompatible(self, event) -> None:
        settled = self._settled
        self.follow()
        if self._settled != settled:  # solved by subscribing again
            return
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        self._node.get_logger().error(
            f'{self.topic}: no messages from a publisher whose {policy} does not match: '
            f'set qos_overrides.{self.topic}.subscription.{policy} to best_available, '
            'or change the publisher'
        )


class PolledSubscription(FollowingSubscription):
    """
    A subscription whose messages wait, serialized, until they are taken.

    It is for many small messages: each time the executor wakes, it checks all entities of the node.
    The executor ignores this subscription, because untaken messages would wake it again and again.
    """

    remedy = 'look at qos_overrides'

    def __init__(self, node: LifecycleNode, kind: type, topic: str, depth: int) -> None:
        """Subscribe; if more than ``depth`` messages wait, the oldest are lost."""
        super().__init__(
            node, kind, topic, lambda _: None, depth, raw=True, callback_group=_Nobody()
        )

    def take(self) -> Iterator[bytes]:
        """Yield the waiting messages; in any thread, but in one at a time."""
        subscription = self._subscription
        try:
            with subscription.handle:
                while taken := subscription.handle.take_message(subscription.msg_type, True):
                    yield taken[0]
        except InvalidHandle:  # destroyed meanwhile
            return

    def _events(self) -> SubscriptionEventCallbacks:
        return SubscriptionEventCallbacks(use_default_callbacks=False)


class _Nobody(CallbackGroup):
    """Keeps the executor from this subscription."""

    def can_execute(self, entity: object) -> bool:
        return False

    def beginning_execution(self, entity: object) -> bool:
        return False

    def ending_execution(self, entity: object) -> None:
        pass


def create_publisher(
    node: LifecycleNode, kind: type, topic: str, matched: Callable[[], None]
) -> LifecyclePublisher:
    """Publish ``kind`` on ``topic``; call ``matched`` when a subscriber appears or leaves."""
    return node.create_lifecycle_publisher(
        kind, topic, qos_out(),
        qos_overriding_options=QoSOverridingOptions(OVERRIDABLE),
        event_callbacks=_publisher_events(node, topic, matched),
    )


def _publisher_events(
    node: LifecycleNode, topic: str, matched: Callable[[], None]
) -> PublisherEventCallbacks:
    """Call ``matched`` when a subscriber appears or leaves; report one that does not match."""
    def on_incompatible(event) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        name = node.resolve_topic_name(topic)
        override = f', or set qos_overrides.{name}.publisher.{policy}'
        node.get_logger().error(
            f'{name}: no messages to a subscriber whose {policy} does not match: it should be '
            f'{MATCHES_ANY.get(policy, "the default")} there'
            f'{override if policy in MATCHES_ANY else ""}'
        )

    return PublisherEventCallbacks(
        matched=lambda _: matched(), incompatible_qos=on_incompatible,
        use_default_callbacks=False,  # as above
    )
