"""The names of the cameras' topics: none that goes out may come in again."""

from collections.abc import Iterable, Iterator

from rclpy.lifecycle import LifecycleNode

from iov_restore_ros.node.transports import compressed_topic


class TopicError(Exception):
    """Topics that must not be the same; the message says which."""


def check_topics(node: LifecycleNode, cameras: Iterable[str]) -> None:
    """
    Look at where remapping leads the topics of ``cameras``.

    Raises ``TopicError`` where an output is an input, so that frames would go in circles, or is
    another output, so that two cameras would become one.
    """
    taken = {topic: name for camera in cameras for name, topic in _inputs(node, camera)}
    for camera in cameras:
        for name, topic in _outputs(node, camera):
            if topic in taken:
                raise TopicError(
                    f'{name} and {taken[topic]} are both {topic}: what goes out must not come in '
                    'again, nor go out as something else; change the remapping, or cameras'
                )
            taken[topic] = name


def _inputs(node: LifecycleNode, camera: str) -> Iterator[tuple[str, str]]:
    """Yield each topic that is listened to: its name here, and its full, remapped name."""
    images = f'{camera}/image_raw'
    if node.get_parameter('image_transport').value == 'compressed':
        yield f'{images}/compressed', _compressed(node, images)
    else:
        yield images, node.resolve_topic_name(images)
    info = f'{camera}/camera_info'
    yield info, node.resolve_topic_name(info)


def _outputs(node: LifecycleNode, camera: str) -> Iterator[tuple[str, str]]:
    """Yield each topic that is published, likewise."""
    for images in (f'{camera}/restored/image_raw', f'{camera}/restored/compare'):
        yield images, node.resolve_topic_name(images)
        yield f'{images}/compressed', _compressed(node, images)
    info = f'{camera}/restored/camera_info'
    yield info, node.resolve_topic_name(info)


def _compressed(node: LifecycleNode, images: str) -> str:
    return node.resolve_topic_name(compressed_topic(node, images))
