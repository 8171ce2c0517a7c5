"""Reading metadata.yaml of a bag."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from rosbags.interfaces import Connection, ConnectionExtRosbag2
from ruamel.yaml import YAML

from iov_restore_ros.tools.bag_file import Note, definition, qos_of

METADATA = 'metadata.yaml'
INFORMATION = 'rosbag2_bagfile_information'  # key of all its content
NEWEST = 9  # newest supported version


class Metadata(NamedTuple):
    """Its content: ``files`` are names in its folder; ``topics`` have no definitions yet."""

    files: list[str]
    topics: list[Connection]
    by_message: bool  # each message is compressed on its own
    custom_data: dict[str, str]


def read_metadata(folder: Path, note: Note) -> Metadata:
    """Read it; ``note`` gets a line about a broken QoS. Raises one of ``BROKEN``."""
    file = folder / METADATA
    if not file.exists():
        raise FileNotFoundError('not found')
    told = (YAML(typ='safe').load(file.read_text()) or {})[INFORMATION]
    if told['version'] > NEWEST:
        raise ValueError(f'version {told["version"]} is not supported, only up to {NEWEST}')
    mode = str(told.get('compression_mode') or 'none').lower()
    if mode != 'none' and told['compression_format'] != 'zstd':
        raise ValueError(f'compressed as {told["compression_format"]}, only zstd can be read')
    files = [PurePosixPath(name).name for name in told['relative_file_paths']]
    if not files:
        raise ValueError('it lists no file')
    custom = {str(k): str(v) for k, v in dict(told.get('custom_data') or {}).items()}
    return Metadata(
        files, list(_topics(told['topics_with_message_count'], note)), mode == 'message', custom
    )


def _topics(told: list[dict[str, Any]], note: Note) -> Iterator[Connection]:
    for topic in told:
        one = topic['topic_metadata']
        yield Connection(
            0, str(one['name']), str(one['type']), definition('', ''),
            str(one.get('type_description_hash') or ''), int(topic['message_count']),
            ConnectionExtRosbag2(
                str(one.get('serialization_format') or 'cdr'),
                qos_of(one.get('offered_qos_profiles', ''), note),
            ),
            None,
        )
