"""Writing a new bag with the storage, compression and custom_data of another one."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinitionFormat
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from iov_restore_ros.tools.bag_reader import Bag

BAG_VERSION: Literal[9] = 9  # Jazzy and Kilted write this one
NO_HASH = f'RIHS01_{"0" * 64}'  # for an unknown type


@contextmanager
def new_bag(target: Path, bag: Bag, storage: str) -> Iterator[Writer]:
    """
    Yield a writer of the new bag ``target`` in ``storage``, with the compression of ``bag``.

    Its file has the name of the folder, with _ for the special characters of a URI, because rosbags
    passes the path to SQLite as a URI.
    """
    plain = re.sub('[#?%]', '_', target.name)
    with TemporaryDirectory() as folder:
        link = Path(folder, 'link')
        link.symlink_to(target.parent.resolve())
        writer = Writer(
            link / plain, version=BAG_VERSION, storage_plugin=StoragePlugin[storage.upper()]
        )
        if storage == 'mcap' or bag.compression != CompressionMode.STORAGE:
            writer.set_compression(bag.compression, CompressionFormat.ZSTD)
        for key, value in bag.custom_data.items():
            writer.set_custom_data(key, str(value))
        with writer:
            yield writer
    if plain != target.name:
        target.with_name(plain).rename(target)


def add_topic(writer: Writer, connection: Connection, topic: str) -> Connection:
    """Add ``topic`` to a new bag, with type and QoS of ``connection`` in another bag."""
    assert isinstance(connection.ext, ConnectionExtRosbag2)
    text, digest = described(connection)
    return writer.add_connection(
        topic, connection.msgtype, msgdef=text, rihs01=digest,
        serialization_format=connection.ext.serialization_format,
        offered_qos_profiles=connection.ext.offered_qos_profiles,
    )


def described(connection: Connection) -> tuple[str, str]:
    """
    Return the definition of a connection's type, and its hash.

    They are the bag's own if it has them, else those of the newest ROS. If neither knows the type,
    such as a private one in a bag of Humble, the text is empty; its messages are still copied.
    """
    name, text = connection.msgtype, connection.msgdef.data
    types = typestore()
    try:
        if text:
            types = Typestore()
            idl = connection.msgdef.format == MessageDefinitionFormat.IDL
            types.register(get_types_from_idl(text) if idl else get_types_from_msg(text, name))
        else:
            text, _ = types.generate_msgdef(name, ros_version=2)
        return text, connection.digest or types.hash_rihs01(name)
    except Exception:  # noqa: BLE001  the parsers raise a dozen types; messages are still copied
        return text, connection.digest or NO_HASH


@cache
def typestore() -> Typestore:
    """Return the message types of the newest ROS, for bags that lack the definitions."""
    return get_typestore(Stores.LATEST)
