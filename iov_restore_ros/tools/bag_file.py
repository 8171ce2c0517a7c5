"""Common parts of reading the files of a bag, for all storages."""

import sqlite3
import struct
import sys
from collections.abc import Callable
from typing import TypeAlias

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Qos
from rosbags.rosbag2 import ReaderError
from rosbags.rosbag2.metadata import parse_qos
from ruamel.yaml.error import YAMLError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ['BROKEN', 'BagError', 'Note', 'definition', 'qos_of', 'reason', 'zstd']

# Everything that the libraries raise for a broken file: struct, YAML, zstd, lz4 (RuntimeError),
# sqlite3, text that is not UTF-8 (ValueError), and an impossible length (MemoryError).
BROKEN = (
    struct.error, YAMLError, zstd.ZstdError, RuntimeError, sqlite3.Error, ReaderError, ValueError,
    LookupError, TypeError, AttributeError, EOFError, MemoryError, OSError,
)
Note: TypeAlias = Callable[[str], None]  # takes a line about data that cannot be read
FORMATS = {'ros2msg': MessageDefinitionFormat.MSG, 'ros2idl': MessageDefinitionFormat.IDL}


class BagError(Exception):
    """A bag cannot be read or restored; the message names it and says why."""


def reason(error: BaseException) -> str:
    """Return the error as one line of text; a MemoryError has no text of its own."""
    if isinstance(error, KeyError):
        return f'{error} is missing'
    return ' '.join(str(error).split()) or type(error).__name__


def definition(encoding: str, text: str) -> MessageDefinition:
    """Return a message definition; an empty one if ROS does not know the encoding."""
    if encoding not in FORMATS:
        return MessageDefinition(MessageDefinitionFormat.NONE, '')
    return MessageDefinition(FORMATS[encoding], text)


def qos_of(text: str, note: Note) -> list[Qos]:
    """Return the QoS of ``text`` (YAML); if it is broken, none, and a line to ``note``."""
    try:
        return parse_qos(text)
    except BROKEN as error:
        note(f'unreadable QoS left out: {reason(error)}')
        return []
