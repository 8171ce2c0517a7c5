"""Checks the names of the cameras' topics: no output may be an input."""

from collections.abc import Iterable, Iterator

from rclpy.lifecycle import LifecycleNode

from iov_restore_ros.node.transports import compressed_topic


class TopicError(Exception):
    """Two topics must not be the same; the message says which."""


def check_topics(node: LifecycleNode, cameras: Iterable[str]) -> None:
    """
    Check the remapped topics of ``cameras``.

    Raises ``TopicError`` if an output is an input, which would make a loop, or another output,
    which would mix two cameras.
    """
    taken = {topic: name for camera in cameras for name, topic in _inputs(node, camera)}
    for camera in cameras:
        for name, topic in _outputs(node, camera):
            if topic in taken:
                raise TopicError(
                    f'{name} and {taken[topic]} are both {topic}: an output must not be an input '
                    'or another output; change the remapping, or cameras'
                )
            taken[topic] = name


def _inputs(node: LifecycleNode, camera: str) -> Iterator[tuple[str, str]]:
    """Yield each input topic: its name here, and its full, remapped name."""
    images = f'{camera}/image_raw'
    if node.get_parameter('image_transport').value == 'compressed':
        yield f'{images}/compressed', _compressed(node, images)
    else:
        yield images, node.resolve_topic_name(images)
    info = f'{camera}/camera_info'
    yield info, node.resolve_topic_name(info)


def _outputs(node: LifecycleNode, camera: str) -> Iterator[tuple[str, str]]:
    """Yield each output topic: its name here, and its full, remapped name."""
    for images in (f'{camera}/restored/image_raw', f'{camera}/restored/compare'):
        yield images, node.resolve_topic_name(images)
        yield f'{images}/compressed', _compressed(node, images)
    info = f'{camera}/restored/camera_info'
    yield info, node.resolve_topic_name(info)


def _compressed(node: LifecycleNode, images: str) -> str:
    return node.resolve_topic_name(compressed_topic(node, images))
