"""
Restore all images of a ROS 2 bag.

    python -m iov_restore_ros.tools.restore_bag BAG --output NEW_BAG --task derain

The new bag contains all readable messages of BAG, byte for byte. Beside each image topic it has the
restored topic, with the node's topic name and the same time, header and encoding. The images of a
topic are one sequence, as in the node. A gyroscope in the bag helps to deblur them (docs/files.md).
docs/bags.md says what is not kept. The new bag gets its name when it is complete.
"""

from __future__ import annotations  # so that --help works without rosbags

import argparse
import shutil
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from rich.console import Console
from rich.progress import Progress
from sensor_msgs.msg import CompressedImage, Image

from iov_restore_ros.inference import History, RestoreError, Restorer, restore_next
from iov_restore_ros.node.compressed import encode, open_image
from iov_restore_ros.node.images import (
    MalformedImageError,
    UnsupportedEncodingError,
    from_rgb,
    moment,
)
from iov_restore_ros.outputs import OutputError, Record, keep_apart
from iov_restore_ros.stop import INTERRUPTED, Stop, Stopped, until
from iov_restore_ros.tasks import TASKS
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
from iov_restore_ros.video.rehearsal import rehearse

MISSING = ''
try:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Writer, WriterError

    from iov_restore_ros.tools.bag_file import BagError
    from iov_restore_ros.tools.bag_reader import Bag, Message, open_bag
    from iov_restore_ros.tools.bag_writer import add_topic, new_bag, typestore
except ImportError as error:
    MISSING = f"{error}: pip install rosbags, or the extra: pip install '.[bags]'"

IMAGE_TYPES = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}
DISTANCES = '16UC1', '32FC1'  # encodings of depth cameras
COPIED_BESIDE = {*IMAGE_TYPES, INFO_TYPE}
JPEG_QUALITY = 95
COMMAND = 'restore_bag'
STORAGES = 'sqlite3', 'mcap'
IMAGE_FAILURES = UnsupportedEncodingError, MalformedImageError, RestoreError  # of one image
Beside: TypeAlias = 'Callable[[Connection, int, bytes], bytes]'  # raises one of IMAGE_FAILURES


class Copied(NamedTuple):
    """The outcome of a bag."""

    written: Counter[str]  # images, by their new topic
    failures: list[str]  # a line for each image that could not be restored
    short: list[str]  # lines about messages that the bag declares, but that could not be read


def restored_topic(topic: str) -> str:
    """Return the node's topic name of restored images: /a/restored/image for /a/image."""
    parts = topic.split('/')
    parts.insert(-2 if parts[-1] == 'compressed' else -1, 'restored')
    return '/'.join(parts)


def restore_message(
    data: bytes, kind: type, recorded: int, restorer: Restorer, task: str, history: History,
    imu: CameraImu | None = None,
) -> bytes:
    """
    Restore a serialized Image or CompressedImage (``kind``); a compressed one stays compressed.

    ``history`` is that of the topic, ``imu`` the gyroscope of its camera. ``recorded`` (ns) is the
    time of a message without a stamp.

    Raises ``UnsupportedEncodingError``, ``MalformedImageError`` or ``RestoreError``.
    """
    message = message_of(data, kind)
    image, frame = opened(message)
    stamp = moment(message.header.stamp, recorded / 1e9)
    if imu is not None:
        imu.advance(history, stamp, message.header.frame_id, frame.shape[:2])
    pixels = restore_next(restorer, history, frame, stamp, task)
    restored = from_rgb(pixels, image)
    if isinstance(message, Image):
        return serialize(restored)
    codec = 'png' if 'png' in message.format else 'jpeg'
    return serialize(encode(restored, codec, JPEG_QUALITY))


def message_of(data: bytes, kind: type) -> Image | CompressedImage:
    """Return the message of type ``kind`` in ``data``. Raises ``MalformedImageError``."""
    try:
        return deserialize_message(data, kind)
    except Exception as error:  # the middleware raises many types
        raise MalformedImageError(f'no {kind.__name__}: {error}') from error


def opened(message: Image | CompressedImage) -> tuple[Image, np.ndarray]:
    """
    Return the image of ``message``, and its pixels as uint8 H x W x 3, RGB; see ``open_image``.

    It refuses depth images in a PNG, which could be decoded but cannot be restored.
    """
    if isinstance(message, CompressedImage):
        encoding, _, _ = message.format.partition(';')
        if encoding.strip() in DISTANCES:
            raise UnsupportedEncodingError(f'format {message.format!r} is a depth image')
    return open_image(message)


def serialize(message: Image | CompressedImage) -> bytes:
    """Return the same bytes for equal messages: the middleware does not clear padding."""
    name = f'sensor_msgs/msg/{type(message).__name__}'
    types = typestore()
    return bytes(types.serialize_cdr(types.deserialize_cdr(serialize_message(message), name), name))


def left_alone(bag: Bag) -> dict[str, str]:
    """
    Map each image topic that cannot be restored, such as a depth camera's, to the reason.

    The first readable image of a topic decides.
    """
    left = {}
    for connection in bag.connections:
        if connection.msgtype in IMAGE_TYPES:
            for _, _, data in bag.messages([connection]):
                try:
                    opened(message_of(data, IMAGE_TYPES[connection.msgtype]))
                except UnsupportedEncodingError as error:
                    left[connection.topic] = str(error)
                except MalformedImageError:
                    continue
                break
    return left


def new_topics(bag: Bag, wanted: Collection[str], left: Mapping[str, str]) -> dict[str, str]:
    """
    Map the image topics to restore, and their camera_info, to the topics of the new bag.

    Without ``wanted`` these are all image topics except those in ``left``, and a compressed topic
    only if the raw one is not restored. Raises ``BagError`` if a wanted topic is missing or in
    ``left``, or if the bag was restored already.
    """
    kinds = defaultdict(set)
    for connection in bag.connections:
        kinds[connection.topic].add(connection.msgtype)
    images = [topic for topic, kind in kinds.items() if kind & IMAGE_TYPES.keys()]
    if missing := set(wanted) - set(images):
        raise BagError(
            f'{bag.path}: no image topic {", ".join(missing)}, only {", ".join(images) or "none"}'
        )
    for topic in set(wanted) & set(left):
        raise BagError(f'{bag.path}: {topic} cannot be restored: {left[topic]}')
    images = [topic for topic in images if topic not in left]
    once = [
        topic for topic in images
        if not (topic.endswith('/compressed') and topic.removesuffix('/compressed') in images)
    ]
    names = {topic: restored_topic(topic) for topic in wanted or once}
    for topic in list(names):
        info = info_topic(topic)
        if INFO_TYPE in kinds.get(info, ()):
            names[info] = restored_topic(info)
    if there := set(names.values()) & set(kinds):
        raise BagError(
            f'{bag.path}: already contains {", ".join(there)}: name the other topics with --topic'
        )
    return names


def to_restore(bag: Bag, names: Collection[str]) -> list[Connection]:
    """Return the image topics of a bag that are in ``names``."""
    return [c for c in bag.connections if c.topic in names and c.msgtype in IMAGE_TYPES]


def imu_of(
    bag: Bag, names: Collection[str], restorer: Restorer, task: str, options: ImuOptions,
    start: int | None = None, end: int | None = None, check: Callable[[], None] = lambda: None,
) -> BagImu | None:
    """
    Return the gyroscopes for the image topics of a bag that are in ``names``, see ``BagImu``.

    None if they are turned off or not used by task and model.
    """
    images = [connection.topic for connection in to_restore(bag, names)]
    if not images or options.none or not TASKS[task].blur or not restorer.uses_past:
        return None
    return BagImu(bag, typestore(), images, options, start, end, check)


def restore_images(
    bag: Bag, names: Collection[str], restorer: Restorer, task: str, shutter: float = 0.0,
    imu: BagImu | None = None, start: int | None = None, check: Callable[[], None] = lambda: None,
) -> Beside:
    """
    Return a function that restores a bag's images, each topic in ``names`` as one sequence.

    ``shutter``: see ``History``; ``imu``: the gyroscopes in the bag. How well they fit is found out
    from the first images of each topic, from ``start`` (ns) on. ``check``: see ``rehearse``.
    """
    histories: defaultdict[str, History] = defaultdict(lambda: History(shutter=shutter))
    if imu is not None:
        for connection in to_restore(bag, names):
            history, camera = histories[connection.topic], imu.cameras[connection.topic]
            rehearse(history, received(bag, connection, history, camera, start), task, check)

    def beside(connection: Connection, recorded: int, data: bytes) -> bytes:
        kind, topic = IMAGE_TYPES[connection.msgtype], connection.topic
        camera = None if imu is None else imu.cameras[topic]
        return restore_message(data, kind, recorded, restorer, task, histories[topic], camera)

    return beside


def received(
    bag: Bag, connection: Connection, history: History, imu: CameraImu, start: int | None
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield stamps (s) and pixels of a topic's readable images; prepare ``history`` for each."""
    for _, recorded, data in bag.messages([connection], start):
        try:
            message = message_of(data, IMAGE_TYPES[connection.msgtype])
            _, frame = opened(message)
        except IMAGE_FAILURES:
            continue
        stamp = moment(message.header.stamp, recorded / 1e9)
        imu.advance(history, stamp, message.header.frame_id, frame.shape[:2])
        yield stamp, frame


def copy_bag(
    bag: Bag, messages: Iterable[Message], writer: Writer, names: Mapping[str, str],
    beside: Beside,
) -> Copied:
    """
    Copy ``messages`` of a bag, and add the topic that ``names`` has for each topic.

    ``beside`` makes the new images from the old ones.
    """
    targets = {
        connection.id: [
            add_topic(writer, connection, topic)
            for topic in (connection.topic, names.get(connection.topic))
            if topic == connection.topic or (topic and connection.msgtype in COPIED_BESIDE)
        ]
        for connection in bag.connections
    }
    written: Counter[str] = Counter()
    copied: Counter[int] = Counter()
    failures = []
    for connection, time, data in messages:
        copy, *new = targets[connection.id]
        writer.write(copy, time, data)
        copied[connection.id] += 1
        image = connection.msgtype in IMAGE_TYPES
        for target in new:
            try:
                writer.write(target, time, beside(connection, time, data) if image else data)
                written[target.topic] += image
            except IMAGE_FAILURES as error:
                failures.append(f'{connection.topic} at {time} ns: {error}')
    return Copied(+written, failures, bag.short(copied))


@contextmanager
def whole(bag: Path, overwrite: bool) -> Iterator[Path]:
    """
    Yield a folder to write to; it becomes ``bag`` on success, and is removed on failure.

    Raises ``BagError`` and ``OutputError`` if ``bag`` exists and must not be replaced.
    """
    def check() -> None:
        if bag.exists() and not overwrite:
            raise BagError(f'{bag} exists already; give --overwrite, or another --output')
        Record(bag, COMMAND).check_all()

    check()
    beside = part_of(bag)
    new, old = beside / bag.name, beside / 'old' / bag.name
    shutil.rmtree(beside, ignore_errors=True)  # left by a killed process
    old.parent.mkdir(parents=True)
    try:
        yield new  # the files in it are named after the bag
        record = Record(new, COMMAND)
        for file in sorted(new.iterdir()):
            record.add(file)
        check()  # again, because writing took long
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


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description='Restore the images in a ROS 2 bag.')
    parser.add_argument('bag', type=Path, help='folder of a bag, or its .mcap or .db3 file')
    parser.add_argument('--output', type=Path, required=True, help='folder of the new bag')
    add_restorer_options(parser)
    parser.add_argument(
        '--topic', action='append', default=[],
        help='an image topic; may be repeated (default: all; of raw and compressed the raw one)',
    )
    add_imu_options(parser)
    parser.add_argument('--storage', choices=STORAGES, help='default: that of BAG')
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
    try:
        with open_bag(options.bag) as bag, whole(output, options.overwrite) as new:
            left = left_alone(bag)
            names = new_topics(bag, options.topic, left)
            images = {c.topic for c in bag.connections if c.msgtype in IMAGE_TYPES}
            restorer = restorer_of(options, parser)
            stop = Stop()  # before anything is written
            imu = imu_of(
                bag, names, restorer, options.task, imu_options_of(options), check=stop.check
            )
            if imu is not None and options.imu not in ('', *imu.topics):
                there = ', '.join(imu.topics) or 'none'
                raise BagError(f'{bag.path}: no sensor_msgs/Imu topic {options.imu}, only {there}')
            beside = restore_images(
                bag, names, restorer, options.task, options.shutter, imu, check=stop.check
            )
            with (
                new_bag(new, bag, options.storage or bag.storage) as writer,
                Progress(console=Console(stderr=True)) as progress,
            ):
                messages = progress.track(
                    until(stop, bag.messages()), bag.message_count, description='restoring'
                )
                written, failures, short = copy_bag(bag, messages, writer, names, beside)
    except Stopped:
        print('stopped, nothing was kept; the same command starts again', file=sys.stderr)
        return INTERRUPTED
    except (OutputError, BagError) as error:
        parser.error(str(error))
    except (WriterError, OSError, sqlite3.Error) as error:
        parser.error(f'{output}: {error}')
    for line in failures:
        print(f'failed: {line}', file=sys.stderr)
    for line in short:
        print(f'missing: {line}', file=sys.stderr)
    for topic, count in written.items():
        print(f'{count} images on {topic}')
    for topic, account in (imu.accounts() if imu is not None else {}).items():
        print(f'{topic}: {told(account)}')
    for topic, why in left.items():
        print(f'{topic} is not restored: {why}')
    for topic in sorted(images - set(names) - set(left)):
        print(f'{topic} is not restored; --topic {topic} restores it')
    if not images:
        print('no image topic: everything is only copied')
    for extra in bag.extras:
        print(f'not kept: {extra}')
    return 1 if failures or short else 0


if __name__ == '__main__':
    sys.exit(main())
