"""Bags that are damaged, or not what their metadata.yaml says: what is read, and what is told."""

import random
import shutil
import sqlite3
import struct
from collections import Counter

import lz4.frame
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from iov_restore_ros.tools.bag_file import BagError
from iov_restore_ros.tools.bag_reader import open_bag
from iov_restore_ros.tools.bag_writer import new_bag
from iov_restore_ros.tools.restore_bag import copy_bag

STRING, PRIVATE = 'std_msgs/msg/String', 'fleet_msgs/msg/Brake'
TYPES = get_typestore(Stores.LATEST)
STORAGES = 'mcap', 'sqlite3'
START = 1_700_000_000_000_000_000  # ns
TIME = '{sec: 1, nsec: 2}'
QOS = (
    '{history: keep_all, depth: 0, reliability: reliable, durability: volatile, '
    f'deadline: {TIME}, lifespan: {TIME}, liveliness: automatic, '
    f'liveliness_lease_duration: {TIME}, avoid_ros_namespace_conventions: false}}'
)
HEAD = b'\x00\x01\x00\x00'  # of every message: CDR, little endian


def write(path, storage, count=6, size=20, mode=CompressionMode.NONE, custom=()):
    """Write a bag of ``count`` messages of ``size`` bytes on /a, and half as many on /b."""
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_compression(mode, CompressionFormat.ZSTD)
    for key, value in custom:
        writer.set_custom_data(key, value)
    noise = random.Random(1)  # noqa: S311
    with writer:
        a, b = (writer.add_connection(topic, STRING, typestore=TYPES) for topic in ('/a', '/b'))
        for number in range(count):
            writer.write(a, START + number, HEAD + noise.randbytes(size))
            if number % 2:
                writer.write(b, START + number, HEAD + noise.randbytes(4))
    return path


def read(bag):
    """Return the messages on each topic, (time, content), and what is told to be short."""
    content, counts = {}, Counter()
    for connection, time, data in bag.messages():
        content.setdefault(connection.topic, []).append((time, data))
        counts[connection.id] += 1
    return content, bag.short(counts)


def copy(path, target, storage=None):
    """Copy a bag, as restore_bag does one without images; returns what is short."""
    with open_bag(path) as bag, new_bag(target, bag, storage or bag.storage) as writer:
        return copy_bag(bag, bag.messages(), writer, {}, None).short


def edit(bag, old, new, count=-1):
    file = bag / 'metadata.yaml'
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, count))


def record(kind, content):
    return struct.pack('<BQ', kind, len(content)) + content


def text(value):
    data = value.encode()
    return struct.pack('<I', len(data)) + data


def mcap(*records, head='ros2'):
    """Return an MCAP file without chunks and index, as the preset `fastwrite` of rosbag2 has it."""
    magic = b'\x89MCAP0\r\n'
    return b''.join((
        magic, record(1, text(head) + text('test')), *records, record(15, bytes(4)),
        record(2, bytes(20)), magic,
    ))


def schema(number, name, encoding='ros2msg', definition='string data\n'):
    return record(3, struct.pack('<H', number) + text(name) + text(encoding) + text(definition))


def channel(number, kind, topic, encoding='cdr'):
    return record(4, struct.pack('<HH', number, kind) + text(topic) + text(encoding) + bytes(4))


def message(number, time, data=HEAD):
    return record(5, struct.pack('<HIQQ', number, 0, START + time, START) + data)


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('change', ['qos', 'topic', 'type hash'])
def test_the_files_say_what_there_is(tmp_path, storage, change):
    bag = write(tmp_path / 'bag', storage)
    with open_bag(bag) as opened:
        whole, short = read(opened)
    assert not short and {topic: len(there) for topic, there in whole.items()} == {'/a': 6, '/b': 3}
    if change == 'qos':
        edit(bag, 'offered_qos_profiles: []', f'offered_qos_profiles: [{QOS}]')
    if change == 'topic':
        edit(bag, '/b', '/c')
    if change == 'type hash':
        edit(bag, 'RIHS01_', 'RIHS01_f')
    with open_bag(bag) as opened:
        content, short = read(opened)
        assert content == whole
        assert short == (['/c: 0 of 3 messages'] if change == 'topic' else [])
        if change == 'qos':  # as ROS takes it
            assert all(one.ext.offered_qos_profiles[0].lifespan.sec == 1
                       for one in opened.connections)


@pytest.mark.parametrize('storage', STORAGES)
def test_counts_are_held_against_metadata(tmp_path, storage):
    bag = write(tmp_path / 'bag', storage)
    edit(bag, 'message_count: 6', 'message_count: 8')
    assert copy(bag, tmp_path / 'new') == ['/a: 6 of 8 messages']


@pytest.mark.parametrize('mode', ['WAL', 'DELETE'])
def test_what_a_killed_recorder_left_beside_is_read_and_stays(tmp_path, mode):
    bag, kept = write(tmp_path / 'bag', 'sqlite3'), tmp_path / 'kept'
    base = sqlite3.connect(bag / 'bag.db3', isolation_level=None)
    base.execute(f'PRAGMA journal_mode = {mode}')
    base.execute('PRAGMA cache_spill = 1')
    base.execute('PRAGMA cache_size = 1')
    base.execute('BEGIN')
    for number in range(9):
        base.execute('INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)',
                     (START + 10 + number, HEAD + bytes(9000)))
    if mode == 'WAL':
        base.execute('COMMIT')
    shutil.copytree(bag, kept)  # a half transaction beside its journal, or a log
    base.close()
    (kept / 'bag.db3-shm').unlink(missing_ok=True)
    before = {file: file.read_bytes() for file in kept.iterdir()}
    assert any(file.name.endswith(('-wal', '-journal')) and data for file, data in before.items())
    with open_bag(kept) as opened:
        content, short = read(opened)
    assert not short
    assert len(content['/a']) == (15 if mode == 'WAL' else 6)
    assert {file: file.read_bytes() for file in kept.iterdir()} == before


@pytest.mark.parametrize(('mode', 'left'), [
    (CompressionMode.NONE, 5), (CompressionMode.STORAGE, 4),
])
def test_a_damaged_chunk_costs_itself_only(tmp_path, mode, left):
    bag = write(tmp_path / 'bag', 'mcap', 6, 600_000, mode)  # two messages of /a a chunk
    file = bag / 'bag.mcap'
    data = bytearray(file.read_bytes())
    # There is no checksum: only damage to the first bytes of a message or chunk is seen.
    head = b'\x05' + struct.pack('<Q', 600_026) if mode == CompressionMode.NONE else b'(\xb5/\xfd'
    middle = data.index(head, len(data) // 3)
    data[middle : middle + 1000] = b'\xff' * 1000
    file.write_bytes(data)
    short = copy(bag, tmp_path / 'new')
    assert f'/a: {left} of 6 messages' in short
    assert any('bag.mcap: damaged at byte' in line for line in short)
    with open_bag(tmp_path / 'new') as new:
        content, short = read(new)
    assert not short and len(content['/a']) == left


def test_a_damaged_row_costs_itself_only(tmp_path):
    bag = write(tmp_path / 'bag', 'sqlite3', 6, 40_000)
    file = bag / 'bag.db3'
    data = bytearray(file.read_bytes())
    page = len(data) // 4096 // 2 * 4096
    data[page : page + 4096] = b'\xff' * 4096
    file.write_bytes(data)
    short = copy(bag, tmp_path / 'new')
    assert short[0] == '/a: 5 of 6 messages'
    assert 'bag.db3: message' in short[1] and 'malformed' in short[1]


@pytest.mark.parametrize('cut', ['end', 'last chunk', 'index'])
def test_an_mcap_without_a_good_end_is_read(tmp_path, cut):
    file = write(tmp_path / 'bag', 'mcap', 6, 600_000) / 'bag.mcap'
    data = bytearray(file.read_bytes())
    summary = struct.unpack('<Q', data[-28:-20])[0]
    if cut == 'index':
        data[summary : summary + 60] = b'\xff' * 60
    else:
        del data[-20 if cut == 'end' else len(data) * 5 // 6 :]
    file.write_bytes(data)
    with open_bag(file) as bag:
        content, short = read(bag)
    assert len(content['/a']) == (4 if cut == 'last chunk' else 6)
    assert ('its index is damaged' if cut == 'index' else 'it is truncated') in short[0]


def test_messages_that_no_index_names_are_read_in_their_order(tmp_path):
    file = tmp_path / 'bag.mcap'
    file.write_bytes(mcap(
        schema(1, STRING), schema(2, PRIVATE, 'unknown', ''), channel(1, 1, '/a'),
        channel(2, 1, '/a'), channel(3, 2, '/brake'),
        message(1, 5), message(2, 3, b'\x00\x01'), message(3, 4, b'\x00\x07\x00'), message(9, 1),
        record(9, bytes(16) + text('calibration.yaml') + text('') + bytes(12)),
        record(12, text('vehicle') + bytes(4)), message(1, 4),
    ))
    with open_bag(file) as bag:
        content, short = read(bag)
        assert bag.extras == ['attachment calibration.yaml', 'metadata vehicle']
        assert (bag.start_time, bag.end_time) == (START + 1, START + 6)
    assert [time - START for time, _ in content['/a']] == [3, 4, 5]  # of two channels
    assert content['/brake'] == [(START + 4, b'\x00\x07\x00')]
    assert short == [f'{file}: 1 messages of channel 9, which has no name']
    assert copy(file, tmp_path / 'new')  # the type that nobody knows too
    with Reader(tmp_path / 'new') as reader:  # by rosbags itself
        assert {c.topic: (c.msgtype, c.msgcount) for c in reader.connections} == {
            '/a': (STRING, 3), '/brake': (PRIVATE, 1)
        }


def test_private_types_of_old_sqlite_bags_are_copied(tmp_path):
    folder = write(tmp_path / 'bag', 'sqlite3')
    base = sqlite3.connect(folder / 'bag.db3')
    for table in ('schema', 'metadata', 'message_definitions'):  # Humble has no such
        base.execute(f'DROP TABLE {table}')
    base.execute('ALTER TABLE topics DROP COLUMN type_description_hash')
    base.execute('UPDATE topics SET type = ? WHERE name = ?', (PRIVATE, '/b'))
    base.commit()
    base.close()
    file = folder / 'bag.db3'
    for storage in STORAGES:
        assert copy(file, tmp_path / storage, storage) == []
        with Reader(tmp_path / storage) as reader, open_bag(file) as old:
            assert [(t, bytes(d)) for _, t, d in reader.messages()] == [
                (t, d) for _, t, d in old.messages()
            ]
            assert {c.msgtype for c in reader.connections} == {STRING, PRIVATE}


@pytest.mark.parametrize('storage', STORAGES)
def test_marks_of_uris_in_paths(tmp_path, storage):
    folder = tmp_path / 'a#b?mode=memory' / '50%20'
    folder.mkdir(parents=True)
    bag = write(tmp_path / 'bag', storage)
    shutil.move(bag, folder / 'drive#1?')
    assert copy(folder / 'drive#1?', folder / 'new#1?%41') == []
    assert {path.name for path in folder.iterdir()} == {'drive#1?', 'new#1?%41'}
    with open_bag(folder / 'drive#1?') as old, open_bag(folder / 'new#1?%41') as new:
        assert read(old) == read(new)


@pytest.mark.parametrize(('storage', 'mode'), [
    ('mcap', CompressionMode.FILE), ('mcap', CompressionMode.MESSAGE),
    ('mcap', CompressionMode.STORAGE), ('sqlite3', CompressionMode.FILE),
    ('sqlite3', CompressionMode.MESSAGE),
])
def test_compression_and_custom_data_are_kept(tmp_path, storage, mode):
    bag = write(tmp_path / 'bag', storage, mode=mode, custom=[('vehicle', '7')])
    assert copy(bag, tmp_path / 'new') == []
    with open_bag(bag) as old, open_bag(tmp_path / 'new') as new:
        assert read(new) == read(old)
        assert (new.storage, new.compression) == (storage, mode)
        assert new.custom_data == {'vehicle': '7'}
    with Reader(tmp_path / 'new') as reader:
        assert len(list(reader.messages())) == 9
    if mode == CompressionMode.MESSAGE:  # which the bare file does not say
        [file] = tmp_path.glob('new/new.*')
        with open_bag(file) as new, open_bag(bag) as old:
            assert read(new) == read(old)
            assert new.compression == mode


def test_a_damaged_message_or_packed_file_costs_itself_only(tmp_path):
    bag = write(tmp_path / 'bag', 'sqlite3', mode=CompressionMode.MESSAGE)
    base = sqlite3.connect(bag / 'bag.db3')
    for number, data in ((1, b'(\xb5/\xfdnonsense'), (2, 'text')):
        base.execute('UPDATE messages SET data = ? WHERE id = ?', (data, number))
    base.commit()
    base.close()
    short = copy(bag, tmp_path / 'new')
    assert short[0] == '/a: 4 of 6 messages' and f'/a at {START} ns' in short[1]

    bag = write(tmp_path / 'packed', 'mcap', 6, 600_000, CompressionMode.FILE)
    [file] = bag.glob('*.zstd')
    file.write_bytes(file.read_bytes()[:-700_000])
    short = copy(bag, tmp_path / 'unpacked')
    assert short[0] == '/a: 4 of 6 messages'
    assert any('cannot be unpacked completely' in line for line in short)


def test_files_of_a_split_bag_that_miss_or_are_not_named(tmp_path):
    bag = write(tmp_path / 'bag', 'mcap')
    shutil.copy(bag / 'bag.mcap', bag / 'bag_1.mcap')
    assert copy(bag, tmp_path / 'one') == [
        f'{bag}/bag_1.mcap: not read, as metadata.yaml does not list it: move it away, or run: '
        f'ros2 bag reindex {bag}'
    ]
    edit(bag, '- bag.mcap', '- bag.mcap\n  - bag_1.mcap\n  - bag_2.mcap')
    edit(bag, 'message_count: 6', 'message_count: 18')
    short = copy(bag, tmp_path / 'two')
    assert short[0] == '/a: 12 of 18 messages'
    assert 'bag_2.mcap' in short[1] and 'No such file' in short[1]


@pytest.mark.parametrize(('made', 'remedy'), [
    ('no metadata', 'give {bag}/bag.mcap itself, or run: ros2 bag reindex {bag}'),
    ('empty metadata', 'give {bag}/bag.mcap itself, or run: ros2 bag reindex {bag}'),
    ('half metadata', "'version' is missing: give {bag}/bag.mcap itself"),
    ('newer', 'version 10 is not supported'),
    ('other compression', 'compressed as lz4, only zstd can be read'),
    ('ros 1', 'a bag of ROS 1, run: rosbags-convert --src'),
    ('ros 1 in mcap', "a recording of 'ros1', not of ROS 2"),
    ('json', '/a is written as json, only cdr can be copied'),
    ('nothing', 'no such file or folder'),
])
def test_what_cannot_be_read_says_the_remedy(tmp_path, made, remedy):
    bag = path = write(tmp_path / 'bag', 'mcap')
    metadata = bag / 'metadata.yaml'
    if made == 'no metadata':
        metadata.unlink()
    if made == 'empty metadata':
        metadata.write_text('')
    if made == 'half metadata':
        metadata.write_text('rosbag2_bagfile_information: {}')
    if made == 'newer':
        edit(bag, 'version: 9', 'version: 10')
    if made == 'other compression':
        edit(bag, "compression_mode: ''", 'compression_mode: file')
        edit(bag, "compression_format: ''", 'compression_format: lz4')
    if made == 'ros 1':
        path = tmp_path / 'drive.bag'
        path.write_bytes(b'#ROSBAG V2.0\nwhat follows')
    if made in ('ros 1 in mcap', 'json'):
        path = tmp_path / 'other.mcap'
        path.write_bytes(
            mcap(head='ros1') if made == 'ros 1 in mcap' else
            mcap(schema(1, 'A', 'jsonschema'), channel(1, 1, '/a', 'json'), message(1, 1))
        )
    if made == 'nothing':
        path = tmp_path / 'gone'
    with pytest.raises(BagError) as raised, open_bag(path):
        pass
    assert str(raised.value).startswith(str(path))
    assert remedy.format(bag=bag) in str(raised.value)


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('mode', [CompressionMode.NONE, CompressionMode.MESSAGE])
def test_whatever_is_broken_it_is_a_bag_error_or_told(tmp_path, storage, mode):
    bag = write(tmp_path / 'bag', storage, mode=mode)
    [file] = bag.glob('bag.*')
    with open_bag(bag) as opened:
        whole, _ = read(opened)
    good, dice = file.read_bytes(), random.Random(2)  # noqa: S311
    lost = 0
    for _ in range(60):
        data = bytearray(good)
        for _ in range(8):
            data[dice.randrange(len(data))] = dice.randrange(256)
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        file.write_bytes(data)
        try:
            with open_bag(bag) as opened:
                content, short = read(opened)
        except BagError as error:
            assert str(error).startswith(str(file))
            continue
        if {t: len(c) for t, c in content.items()} != {t: len(c) for t, c in whole.items()}:
            lost += 1
            assert short
    assert lost


def test_whatever_is_broken_in_metadata_it_is_a_bag_error_or_told(tmp_path):
    bag = write(tmp_path / 'bag', 'mcap', custom=[('vehicle', '7')])
    lines = (bag / 'metadata.yaml').read_text().splitlines()
    good, wrong = 0, ('', 'null', 'x', '-1', '[1]', '{}', '[1')
    for number, line in enumerate(lines):
        for value in wrong:
            changed = f'{line.partition(":")[0]}: {value}' if value else ''
            (bag / 'metadata.yaml').write_text(
                '\n'.join([*lines[:number], changed, *lines[number + 1 :]])
            )
            try:
                with open_bag(bag) as opened:
                    content, _ = read(opened)
            except BagError as error:
                assert str(error).startswith(str(bag))
            else:
                assert len(content['/a']) == 6
                good += 1
    assert good


def test_lz4_chunks_are_read(tmp_path):
    inner = schema(1, STRING) + channel(1, 1, '/a') + message(1, 0) + message(1, 1)
    packed = lz4.frame.compress(inner)
    chunk = struct.pack('<QQQI', START, START + 1, len(inner), 0) + text('lz4')
    file = tmp_path / 'bag.mcap'
    file.write_bytes(mcap(record(6, chunk + struct.pack('<Q', len(packed)) + packed)))
    assert copy(file, tmp_path / 'new') == []
    with open_bag(tmp_path / 'new') as new:
        assert new.compression == CompressionMode.STORAGE and new.message_count == 2
