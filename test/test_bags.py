"""Bags of a drive: played through the node over DDS and recorded again, and restored offline."""

import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from ros_harness import make_info, make_message
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from test_bag_reader import channel, mcap, message, record, schema, text

from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.node.compressed import decode, encode
from iov_restore_ros.node.images import seconds, view
from iov_restore_ros.outputs import Record
from iov_restore_ros.tools import restore_bag

FRAMES = 8
PERIOD = 100_000_000  # ns
START = 1_700_000_000_000_000_000  # ns
TYPESTORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = {
    f'{kind.__module__.partition(".")[0]}/msg/{kind.__name__}': kind
    for kind in (Image, CompressedImage, CameraInfo, String)
}


@contextmanager
def writing(path, storage):
    """Open a new bag; gives a function that writes a message or its bytes."""
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        connections = {}

        def write(topic, message, when, kind=None):
            kind = kind or type(message)
            if topic not in connections:
                name = next(n for n, k in TYPES.items() if k is kind)
                connections[topic] = writer.add_connection(topic, name, typestore=TYPESTORE)
            data = message if isinstance(message, bytes) else serialize_message(message)
            writer.write(connections[topic], when, data)

        yield write


def read(path, *topics):
    """Return (time, message) of all that a bag holds, by topic; of ``topics`` if there are any."""
    content = {}
    with Reader(path) as reader:
        wanted = [c for c in reader.connections if not topics or c.topic in topics]
        for connection, when, data in reader.messages(wanted):
            message = deserialize_message(data, TYPES[connection.msgtype])
            content.setdefault(connection.topic, []).append((when, message))
    return content


@pytest.fixture
def drive(photograph):
    """A drive past a photograph: (time, image, camera_info) of each frame."""
    frames = []
    for number in range(FRAMES):
        pixels = np.ascontiguousarray(photograph[40:168, 10 * number : 10 * number + 192])
        image = make_message(pixels, number, frame_id='front_optical')
        when = START + number * PERIOD
        image.header.stamp.sec, image.header.stamp.nanosec = divmod(when - 12_345_678, 10**9)
        frames.append((when, image, make_info(image, k=500.0 + number)))
    return frames


def in_order(drive):
    """Restore the frames of ``drive`` as a sequence."""
    restorer, history = Restorer(device='cpu', precision='float32', tasks=['derain']), History()
    return [
        restore_next(restorer, history, view(image), seconds(image.header.stamp), 'derain')
        for _, image, _ in drive
    ]


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_a_bag_through_the_node_into_a_bag(rig, drive, tmp_path, storage):
    with writing(tmp_path / 'drive', storage) as write:
        for when, image, info in drive:
            write('/front/image_raw', image, when)
            write('/front/camera_info', info, when)
    rig.launch(cameras='[front]', mode='derain', precision='float32', device='cpu')
    publishers = {
        name: rig.node.create_publisher(kind, f'front/{name}', 10)
        for name, kind in (('image_raw', Image), ('camera_info', CameraInfo))
    }
    with writing(tmp_path / 'recorded', storage) as write:
        arrived = []
        for name, kind in (('image_raw', Image), ('camera_info', CameraInfo)):
            topic = f'/front/restored/{name}'

            def record(data, topic=topic, kind=kind):
                arrived.append(topic)
                write(topic, data, time.time_ns(), kind)

            rig.node.create_subscription(kind, topic, record, 10, raw=True)
        rig.wait(lambda: all(p.get_subscription_count() for p in publishers.values()))
        rig.spin(0.3)
        with Reader(tmp_path / 'drive') as reader:
            for connection, when, data in reader.messages():
                publishers[connection.topic.rpartition('/')[2]].publish(bytes(data))
                if connection.topic.endswith('camera_info'):
                    count = 2 * ((when - START) // PERIOD + 1)
                    rig.wait(lambda count=count: len(arrived) == count)
    recorded = read(tmp_path / 'recorded')
    images = [message for _, message in recorded['/front/restored/image_raw']]
    infos = [message for _, message in recorded['/front/restored/camera_info']]
    assert [m.header for m in images] == [image.header for _, image, _ in drive]
    assert infos == [info for _, _, info in drive]
    expected = in_order(drive)
    assert all(np.array_equal(view(m), e) for m, e in zip(images, expected, strict=True))


def run(monkeypatch, *arguments):
    """Run the command with ``arguments``; return its exit status."""
    monkeypatch.setattr(signal, 'signal', lambda *_: None)  # pytest's own stay
    monkeypatch.setattr(sys, 'argv', ['restore_bag', *map(str, arguments)])
    return restore_bag.main()


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_restore_bag(drive, tmp_path, monkeypatch, capsys, storage):
    bag, output = tmp_path / 'drive', tmp_path / 'restored'
    with writing(bag, storage) as write:
        for when, image, info in drive:
            write('/front/image_raw', image, when)
            write('/front/camera_info', info, when)
            write('/rear/image_raw/compressed', encode(image, 'png', 95), when)
            write('/talk', String(data=str(when)), when)
    status = run(
        monkeypatch, bag, '--output', output, '--task', 'derain',
        '--device', 'cpu', '--precision', 'float32',
    )
    assert status == 0
    assert any(output.glob('*.db3')) == (storage == 'sqlite3')
    assert f'{FRAMES} images on /front/restored/image_raw' in capsys.readouterr().out
    before, after = read(bag), read(output)
    added = {
        '/front/restored/image_raw', '/front/restored/camera_info',
        '/rear/restored/image_raw/compressed',
    }
    assert set(after) == set(before) | added
    assert all(after[topic] == messages for topic, messages in before.items())
    assert after['/front/restored/camera_info'] == before['/front/camera_info']
    expected = in_order(drive)
    for topic in ('/front/restored/image_raw', '/rear/restored/image_raw/compressed'):
        assert [when for when, _ in after[topic]] == [when for when, _, _ in drive]
        assert [m.header for _, m in after[topic]] == [image.header for _, image, _ in drive]
        got = [m if isinstance(m, Image) else decode(m) for _, m in after[topic]]
        assert all(np.array_equal(view(m), e) for m, e in zip(got, expected, strict=True)), topic

    with pytest.raises(SystemExit):  # what was restored is not restored again
        run(monkeypatch, output, '--output', tmp_path / 'twice', '--task', 'derain')
    assert 'already contains' in capsys.readouterr().err
    assert not (tmp_path / 'twice').exists()


def test_images_without_stamps_have_the_time_of_recording(drive):
    restorer = Restorer(device='cpu', precision='float32', tasks=['derain'])
    expected, got = History(), History()
    for when, image, _ in drive[:2]:
        image.header.stamp.sec = image.header.stamp.nanosec = 0
        data = serialize_message(image)
        data = restore_bag.restore_message(data, Image, when, restorer, 'derain', got)
        pixels = restore_next(restorer, expected, view(image), when / 1e9, 'derain')
        assert np.array_equal(view(deserialize_message(data, Image)), pixels)
    assert (got.reason, expected.reason) == ('', '')


def test_restore_bag_goes_on_behind_a_bad_image(drive, tmp_path, monkeypatch, capsys):
    (when, image, _), (later, good, _), *_ = drive
    image.data = image.data[:100]
    with writing(tmp_path / 'drive', 'mcap') as write:
        write('/front/image_raw', image, when)
        write('/front/image_raw', serialize_message(good)[:200], later - 1, Image)
        write('/front/image_raw', good, later)
    status = run(
        monkeypatch, tmp_path / 'drive', '--output', tmp_path / 'new', '--task', 'deblur',
        '--device', 'cpu',
    )
    said = capsys.readouterr()
    assert status == 1
    assert '100 bytes of data for 192 x 128' in said.err
    assert said.err.count('failed: ') == 2
    topic = '/front/restored/image_raw'
    [(_, only)] = read(tmp_path / 'new', topic)[topic]
    assert only.header == good.header


@pytest.mark.parametrize(('options', 'reason'), [
    (['--topic', '/left/image_raw'], 'no image topic /left/image_raw, only /front/image_raw'),
    (['--weights', '/nowhere.safetensors'], '/nowhere.safetensors'),
    (['--output', '/'], 'would overwrite'),
    (['--output', '.'], 'exists already'),
])
def test_restore_bag_says_what_is_wrong(drive, tmp_path, monkeypatch, capsys, options, reason):
    with writing(tmp_path / 'drive', 'mcap') as write:
        write('/front/image_raw', drive[0][1], START)
    arguments = [tmp_path / 'drive', '--output', tmp_path / 'new', '--task', 'deblur', *options]
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)
    assert reason in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()


def test_a_raw_and_a_compressed_topic_of_one_camera_are_restored_once(
    drive, tmp_path, monkeypatch, capsys
):
    with writing(tmp_path / 'drive', 'mcap') as write:
        write('/front/image_raw', drive[0][1], START)
        write('/front/image_raw/compressed', encode(drive[0][1], 'png', 95), START)
    run(monkeypatch, tmp_path / 'drive', '--output', tmp_path / 'new', '--task', 'deblur')
    assert '--topic /front/image_raw/compressed restores it' in capsys.readouterr().out
    assert set(read(tmp_path / 'new')) == {
        '/front/image_raw', '/front/image_raw/compressed', '/front/restored/image_raw'
    }


@pytest.mark.parametrize('made', ['nothing', 'empty folder', 'no metadata', 'text'])
def test_what_is_no_bag_is_told_in_a_line(tmp_path, monkeypatch, capsys, made):
    bag = tmp_path / 'bag'
    if made in ('empty folder', 'no metadata'):
        bag.mkdir()
    if made == 'no metadata':
        (bag / 'metadata.yaml').write_text('a: [')
    if made == 'text':
        bag.write_text('text')
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, bag, '--output', tmp_path / 'new', '--task', 'deblur')
    assert ended.value.code == 2
    assert f'error: {bag}: ' in capsys.readouterr().err


@pytest.fixture
def as_they_come(monkeypatch):
    """restore_bag without a network: images come out as they came."""
    monkeypatch.setattr(restore_bag, 'restorer_of', lambda *_: None)
    monkeypatch.setattr(restore_bag, 'restore_message', lambda data, *_: data)


def test_depth_topics_are_left_as_they_are(tmp_path, monkeypatch, capsys, as_they_come):
    bag, new = tmp_path / 'bag', tmp_path / 'new'
    front = make_message(np.zeros((6, 8, 3), np.uint8), 0)
    depth = Image(encoding='16UC1', height=6, width=8, step=16, data=bytes(96))
    far = Image(encoding='32FC1', height=6, width=8, step=32, data=bytes(192))
    png = cv2.imencode('.png', np.zeros((6, 8), np.uint16))[1].tobytes()
    packed = CompressedImage(format='16UC1; png compressed ', data=png)
    special = CompressedImage(format='16UC1; compressedDepth png', data=bytes(50))
    with writing(bag, 'mcap') as write:
        for when in range(START, START + 3):
            write('/front/image_raw', front, when)
            write('/depth/camera_info', make_info(front), when)
            write('/depth/image_raw', depth, when)
            write('/depth/image_raw/compressed', packed, when)
            write('/depth/image_raw/compressedDepth', special, when)
            write('/far/image_raw', far, when)
    assert run(monkeypatch, bag, '--output', new, '--task', 'derain') == 0
    said = capsys.readouterr()
    assert said.out.count('is not restored') == 4 and 'failed' not in said.err
    assert "/depth/image_raw is not restored: encoding '16UC1'" in said.out
    before, after = read(bag), read(new)
    assert after.pop('/front/restored/image_raw') == before['/front/image_raw']
    assert after == before
    with pytest.raises(SystemExit):  # when it is asked for
        run(
            monkeypatch, bag, '--output', tmp_path / 'no', '--task', 'derain',
            '--topic', '/far/image_raw',
        )
    assert f'{bag}: /far/image_raw cannot be restored' in capsys.readouterr().err


def test_what_the_bag_has_too_little_of_and_what_is_not_kept_is_told(
    tmp_path, monkeypatch, capsys, as_they_come
):
    bag = tmp_path / 'bag'
    with writing(bag, 'mcap') as write:
        write('/front/image_raw', make_message(np.zeros((6, 8, 3), np.uint8), 0), START)
    metadata = bag / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace('message_count: 1', 'message_count: 4'))
    assert run(monkeypatch, bag, '--output', tmp_path / 'new', '--task', 'derain') == 1
    said = capsys.readouterr()
    assert 'missing: /front/image_raw: 1 of 4 messages' in said.err
    assert '1 images on /front/restored/image_raw' in said.out

    plain = tmp_path / 'plain.mcap'  # a drive without images is no failure
    extra = record(9, bytes(16) + text('calibration.yaml') + text('') + bytes(12))
    plain.write_bytes(mcap(schema(1, 'a/msg/B'), channel(1, 1, '/a'), message(1, 1), extra))
    assert run(monkeypatch, plain, '--output', tmp_path / 'copy', '--task', 'derain') == 0
    said = capsys.readouterr().out
    assert 'no image topic: ' in said and 'not kept: attachment calibration.yaml' in said
    with Reader(tmp_path / 'copy') as reader:
        assert reader.message_count == 1


@pytest.fixture
def restored(drive, tmp_path, monkeypatch):
    """A folder `drives` with a bag `a`, and what restore_bag made of it, in `new`."""
    with writing(tmp_path / 'drives' / 'a', 'mcap') as write:
        write('/front/image_raw', drive[0][1], START)
    arguments = '--task', 'deblur', '--device', 'cpu', '--precision', 'float32'
    bag, new = tmp_path / 'drives' / 'a', tmp_path / 'new'
    assert run(monkeypatch, bag, '--output', new, *arguments) == 0
    return tmp_path


def refused(monkeypatch, capsys, folder, *arguments):
    """Run restore_bag; return the line that it is refused with, when nothing was touched."""
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob('*')}
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments, '--task', 'deblur', '--device', 'cpu')
    assert ended.value.code == 2
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob('*')} == before
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize('output', ['drives', 'drives/a', 'drives/a/b', 'link', 'link/a/b'])
def test_overwrite_never_costs_the_bag(restored, monkeypatch, capsys, output):
    (restored / 'link').symlink_to(restored / 'drives')
    said = refused(
        monkeypatch, capsys, restored, restored / 'drives' / 'a', '--output', restored / output,
        '--overwrite',
    )
    assert 'would overwrite' in said and 'give another --output' in said


@pytest.mark.parametrize('made', [
    'a folder', 'a file', 'a bag', 'a file more', 'a folder more', 'a link', 'changed',
    'restored pictures',
])
def test_overwrite_replaces_nothing_else(restored, monkeypatch, capsys, made):
    new = restored / 'new'
    if made in ('a folder', 'a file', 'a bag', 'restored pictures'):
        shutil.rmtree(new)
    if made in ('a folder', 'restored pictures'):
        new.mkdir()
        (new / 'a.png').write_text('mine')
    if made == 'restored pictures':
        Record(new, 'restore_files').add(new / 'a.png')
    if made == 'a file':
        new.write_text('mine')
    if made == 'a bag':
        shutil.copytree(restored / 'drives' / 'a', new)
    if made == 'a file more':
        (new / 'notes.txt').write_text('mine')
    if made == 'a folder more':
        (new / 'mine').mkdir()
    if made == 'a link':
        (new / 'mine').symlink_to(restored / 'gone')
    if made == 'changed':
        (new / 'metadata.yaml').write_text('mine')
    said = refused(
        monkeypatch, capsys, restored, restored / 'drives' / 'a', '--output', new, '--overwrite'
    )
    assert 'give another --output' in said


@pytest.mark.parametrize('linked', [False, True])
def test_overwrite_replaces_a_whole_result_by_a_whole_one(restored, monkeypatch, capsys, linked):
    bag, new = restored / 'drives' / 'a', restored / 'new'
    output = restored / 'link' if linked else new
    if linked:
        output.symlink_to(new)
    said = refused(
        monkeypatch, capsys, restored, bag, '--output', output, '--overwrite', '--topic', '/gone'
    )
    assert 'no image topic /gone' in said
    arguments = '--overwrite', '--task', 'derain', '--device', 'cpu', '--storage', 'sqlite3'
    assert run(monkeypatch, bag, '--output', output, *arguments) == 0
    assert {path.name for path in new.iterdir()} == {'.restore_bag', 'metadata.yaml', 'new.db3'}
    assert {path.name for path in restored.iterdir()} <= {'drives', 'new', 'link'}
    assert run(monkeypatch, bag, '--output', output, *arguments) == 0


def test_what_came_meanwhile_is_not_replaced(tmp_path):
    with (
        pytest.raises(restore_bag.BagError, match='exists already'),
        restore_bag.whole(tmp_path / 'new', False) as new,
    ):
        new.mkdir()
        (tmp_path / 'new').mkdir()
        (tmp_path / 'new' / 'notes.txt').write_text('mine')
    assert [path.name for path in tmp_path.rglob('*')] == ['new', 'notes.txt']


def test_a_bag_that_is_stopped_leaves_nothing(drive, tmp_path):
    with writing(tmp_path / 'drive', 'mcap') as write:
        for number in range(200):
            write('/front/image_raw', drive[0][1], START + number)
    arguments = [
        sys.executable, '-m', 'iov_restore_ros.tools.restore_bag', str(tmp_path / 'drive'),
        '--output', str(tmp_path / 'new'), '--task', 'derain',
    ]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob('.new.part/new/*.mcap')):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 'stopped, nothing was kept' in said
    assert 'Traceback' not in said
    assert [path.name for path in tmp_path.iterdir()] == ['drive']
