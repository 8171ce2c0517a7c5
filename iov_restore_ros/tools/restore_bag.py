"""
Restore the images in a ROS 2 bag, every frame of it, however long that takes.

    python -m iov_restore_ros.tools.restore_bag BAG --output NEW_BAG --task derain

The new bag holds all that BAG holds, byte for byte, and beside each image topic the restored one
under the name that the node would give it, with the same time, header and encoding. The images of a
topic are one sequence, as they are for the node. A gyroscope in the bag helps to deblur them, see
docs/video.md. The new bag has its name when it is whole, not before.
"""

from __future__ import annotations  # without rosbags --help works, too

import argparse
import shutil
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from rclpy.serialization import deserialize_message, serialize_message
from rich.console import Console
from rich.progress import Progress
from sensor_msgs.msg import CompressedImage, Image

from iov_restore_ros.inference import History, RestoreError, Restorer, restore_next
from iov_restore_ros.node.compressed import decode, encode
from iov_restore_ros.node.images import (
    MalformedImageError,
    UnsupportedEncodingError,
    from_rgb,
    moment,
    to_rgb,
    view,
)
from iov_restore_ros.outputs import OutputError, Record, keep_apart
from iov_restore_ros.stop import INTERRUPTED, Stop, Stopped, until
from iov_restore_ros.tools.bag_imu import (
    INFO_TYPE,
    BagImu,
    CameraImu,
    ImuOptions,
    add_imu_options,
    imu_options_of,
    info_topic,
)
from iov_restore_ros.tools.known_rates import told
from iov_restore_ros.tools.restore_files import add_restorer_options, restorer_of

MISSING = ''
try:
    from rosbags.interfaces import Connection, ConnectionExtRosbag2
    from rosbags.rosbag2 import Reader, ReaderError, StoragePlugin, Writer, WriterError
    from rosbags.typesys import Stores, get_typestore
    from rosbags.typesys.store import Typestore
except ImportError as error:
    MISSING = f"{error}: pip install rosbags, or the extra: pip install '.[bags]'"

IMAGE_TYPES = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}
JPEG_QUALITY = 95
COMMAND = 'restore_bag'
STORAGES = 'sqlite3', 'mcap'
IMAGE_FAILURES = UnsupportedEncodingError, MalformedImageError, RestoreError  # of one image
Message: TypeAlias = 'tuple[Connection, int, bytes]'  # and when it was recorded, ns
Beside: TypeAlias = 'Callable[[Connection, int, bytes], bytes]'  # raises one of IMAGE_FAILURES
BAG_VERSION: Literal[9] = 9  # Jazzy and Kilted write this one


class BagError(Exception):
    """A bag that cannot be read or written, or holds nothing to restore; the message says why."""


def restored_topic(topic: str) -> str:
    """Return the node's name for what becomes of ``topic``: /a/restored/image of /a/image."""
    parts = topic.split('/')
    parts.insert(-2 if parts[-1] == 'compressed' else -1, 'restored')
    return '/'.join(parts)


def restore_message(
    data: bytes, kind: type, recorded: int, restorer: Restorer, task: str, history: History,
    imu: CameraImu | None = None,
) -> bytes:
    """
    Restore a serialized Image or CompressedImage (``kind``); a compressed one stays compressed.

    ``history`` is what the topic showed before, ``imu`` the gyroscope beside it; ``recorded`` (ns)
    is its time where it has no stamp.

    Raises ``UnsupportedEncodingError``, ``MalformedImageError`` or ``RestoreError``.
    """
    try:
        message: Image | CompressedImage = deserialize_message(data, kind)
    except Exception as error:  # the middleware raises what it likes
        raise MalformedImageError(f'no {kind.__name__}: {error}') from error
    image = message if isinstance(message, Image) else decode(message)
    frame = to_rgb(view(image), image.encoding)
    stamp = moment(message.header.stamp, recorded / 1e9)
    if imu is not None:
        imu.advance(history, stamp, message.header.frame_id, frame.shape[:2])
    pixels = restore_next(restorer, history, frame, stamp, task)
    restored = from_rgb(pixels, image)
    if isinstance(message, Image):
        return serialize(restored)
    codec = 'png' if 'png' in message.format else 'jpeg'
    return serialize(encode(restored, codec, JPEG_QUALITY))


def serialize(message: Image | CompressedImage) -> bytes:
    """Return ``message`` as the same bytes every time: the middleware leaves gaps as they were."""
    name = f'sensor_msgs/msg/{type(message).__name__}'
    types = typestore()
    return bytes(types.serialize_cdr(types.deserialize_cdr(serialize_message(message), name), name))


@cache
def typestore() -> Typestore:
    """Return the message types of the newest ROS, for bags that lack the definitions."""
    return get_typestore(Stores.LATEST)


def new_topics(connections: Iterable[Connection], wanted: Collection[str]) -> dict[str, str]:
    """
    Map the image topics to restore, and their camera_info, to the topics of the new bag.

    All image topics if none is ``wanted``, but a compressed one only where the raw one is not there
    as well. Raises ``BagError`` for one that is not there, or when the bag was restored already.
    """
    kinds = {connection.topic: connection.msgtype for connection in connections}
    images = [topic for topic, kind in kinds.items() if kind in IMAGE_TYPES]
    if missing := set(wanted) - set(images):
        raise BagError(f'no image topic {", ".join(missing)}, only {", ".join(images) or "none"}')
    once = [
        topic for topic in images
        if not (topic.endswith('/compressed') and topic.removesuffix('/compressed') in images)
    ]
    names = {topic: restored_topic(topic) for topic in wanted or once}
    if not names:
        raise BagError('no image topic in there')
    for topic in list(names):
        info = info_topic(topic)
        if kinds.get(info) == INFO_TYPE:
            names[info] = restored_topic(info)
    if there := set(names.values()) & set(kinds):
        raise BagError(f'{", ".join(there)} is in there already: name the others with --topic')
    return names


def imu_of(
    reader: Reader, topics: Collection[str], restorer: Restorer, task: str, options: ImuOptions,
    start: int | None = None, end: int | None = None, check: Callable[[], None] = lambda: None,
) -> BagImu | None:
    """
    Return the gyroscopes beside the images in ``topics`` of a bag, see ``BagImu``.

    None where they are not wanted, or of no use.
    """
    if options.none or task != 'deblur' or not restorer.uses_past:
        return None
    kinds = {connection.topic: connection.msgtype for connection in reader.connections}
    images = [topic for topic in topics if kinds[topic] in IMAGE_TYPES]
    return BagImu(reader, typestore(), images, options, start, end, check)


def restore_images(
    restorer: Restorer, task: str, shutter: float = 0.0, imu: BagImu | None = None
) -> Beside:
    """
    Return what restores a bag's images, a topic as one sequence.

    ``shutter``: see ``History``; ``imu``: the gyroscopes in the bag.
    """
    histories: defaultdict[str, History] = defaultdict(lambda: History(shutter=shutter))

    def beside(connection: Connection, recorded: int, data: bytes) -> bytes:
        kind, topic = IMAGE_TYPES[connection.msgtype], connection.topic
        camera = None if imu is None else imu.cameras[topic]
        return restore_message(data, kind, recorded, restorer, task, histories[topic], camera)

    return beside


def add_topic(writer: Writer, connection: Connection, topic: str) -> Connection:
    """Add ``topic`` to a new bag, of the type and QoS of ``connection`` of another bag."""
    assert isinstance(connection.ext, ConnectionExtRosbag2)
    return writer.add_connection(
        topic, connection.msgtype,
        typestore=typestore(),
        msgdef=connection.msgdef.data or None, rihs01=connection.digest or None,
        serialization_format=connection.ext.serialization_format,
        offered_qos_profiles=connection.ext.offered_qos_profiles,
    )


def copy_bag(
    reader: Reader, messages: Iterable[Message], writer: Writer, names: Mapping[str, str],
    beside: Beside,
) -> tuple[Counter[str], list[str]]:
    """
    Copy ``messages`` of an open bag and add, to each topic in ``names``, the one it is mapped to.

    ``beside`` makes the new images of the old ones. Returns how many images were written on each
    new topic, and a line for each that failed.
    """
    targets = {
        connection.id: [
            add_topic(writer, connection, topic)
            for topic in (connection.topic, names.get(connection.topic)) if topic
        ]
        for connection in reader.connections
    }
    written: Counter[str] = Counter()
    failures = []
    for connection, time, data in messages:
        copy, *new = targets[connection.id]
        writer.write(copy, time, data)
        image = connection.msgtype in IMAGE_TYPES
        for target in new:
            try:
                writer.write(target, time, beside(connection, time, data) if image else data)
                written[target.topic] += image
            except IMAGE_FAILURES as error:
                failures.append(f'{connection.topic} at {time} ns: {error}')
    return +written, failures


@contextmanager
def whole(bag: Path, overwrite: bool) -> Iterator[Path]:
    """
    Give a folder to write to, which becomes ``bag`` if all goes well, and else is removed.

    Raises ``BagError`` and ``OutputError`` where there is something else than what may be replaced.
    """
    def check() -> None:
        if bag.exists() and not overwrite:
            raise BagError(f'{bag} is there already; give --overwrite, or another --output')
        Record(bag, COMMAND).check_all()

    check()
    beside = part_of(bag)
    new, old = beside / bag.name, beside / 'old' / bag.name
    shutil.rmtree(beside, ignore_errors=True)  # of one that was killed
    old.parent.mkdir(parents=True)
    try:
        yield new  # the files in it have its name
        record = Record(new, COMMAND)
        for file in sorted(new.iterdir()):
            record.add(file)
        check()  # that took long
        if bag.exists():
            bag.rename(old)
        try:
            new.rename(bag)
        except OSError:
            if old.exists():
                old.rename(bag)
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def part_of(bag: Path) -> Path:
    """Return the folder in which ``bag`` is written."""
    return bag.parent / f'.{bag.name}.part'


def storage_of(bag: Path) -> str:
    """Return how ``bag`` is stored, one of ``STORAGES``."""
    return STORAGES[not (bag.suffix == '.db3' or any(bag.glob('*.db3*')))]


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description='Restore the images in a ROS 2 bag.')
    parser.add_argument('bag', type=Path, help='folder of a bag, sqlite3 or mcap')
    parser.add_argument('--output', type=Path, required=True, help='folder of the new bag')
    add_restorer_options(parser)
    parser.add_argument(
        '--topic', action='append', default=[],
        help='an image topic; again for more (default: all, of raw and compressed ones the raw)',
    )
    add_imu_options(parser)
    parser.add_argument('--storage', choices=STORAGES, help='default: as the bag has it')
    parser.add_argument(
        '--overwrite', action='store_true', help='replace what restore_bag made there before'
    )
    options = parser.parse_args()
    if MISSING:
        parser.error(MISSING)
    output = options.output.resolve()
    try:
        keep_apart((output, part_of(output)), (options.bag, *options.bag.glob('*')))
    except OutputError as error:
        parser.error(str(error))
    storage = StoragePlugin[(options.storage or storage_of(options.bag)).upper()]
    try:
        with Reader(options.bag) as reader, whole(output, options.overwrite) as new:
            names = new_topics(reader.connections, options.topic)
            images = {c.topic for c in reader.connections if c.msgtype in IMAGE_TYPES}
            restorer = restorer_of(options, parser)
            stop = Stop()  # before there is anything to leave behind
            imu = imu_of(
                reader, names, restorer, options.task, imu_options_of(options), check=stop.check
            )
            if imu is not None and options.imu not in ('', *imu.topics):
                there = ', '.join(imu.topics) or 'none'
                raise BagError(f'no sensor_msgs/Imu topic {options.imu}, only {there}')
            beside = restore_images(restorer, options.task, options.shutter, imu)
            with (
                Writer(new, version=BAG_VERSION, storage_plugin=storage) as writer,
                Progress(console=Console(stderr=True)) as progress,
            ):
                messages = progress.track(
                    until(stop, reader.messages()), reader.message_count, description='restoring'
                )
                written, failures = copy_bag(reader, messages, writer, names, beside)
    except Stopped:
        print('stopped, nothing is left of it; the same command begins anew', file=sys.stderr)
        return INTERRUPTED
    except OutputError as error:
        parser.error(str(error))
    except (BagError, ReaderError, WriterError, OSError, sqlite3.Error) as error:
        parser.error(f'{options.bag}: {error}')
    for line in failures:
        print(f'failed: {line}', file=sys.stderr)
    for topic, count in written.items():
        print(f'{count} images on {topic}')
    for topic, account in (imu.accounts() if imu is not None else {}).items():
        print(f'{topic}: {told(account)}')
    for topic in sorted(images - set(names)):
        print(f'{topic} is left as it is; --topic {topic} restores it')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
