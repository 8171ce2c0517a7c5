"""A fleet's drives: small bags on a real Ray cluster of two nodes, with what goes wrong there."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from bag_of_shakes import Shaken, write_bag
from pyarrow import fs
from ros_harness import make_message
from std_msgs.msg import String
from test_bag_reader import QOS
from test_bags import PERIOD, START, writing

from iov_restore_ros.model import shipped_weights
from iov_restore_ros.outputs import OutputError
from iov_restore_ros.tools import fleet_drives, fleet_worker
from iov_restore_ros.tools.bag_file import BagError
from iov_restore_ros.tools.bag_imu import ImuOptions
from iov_restore_ros.tools.fleet_drives import WARM_UP, FleetError, find_drives, plan
from iov_restore_ros.tools.fleet_worker import DriveStore, Settings
from iov_restore_ros.tools.restore_files import FileError
from iov_restore_ros.tools.restore_fleet import tell

ray = pytest.importorskip('ray')
os.environ['RAY_USAGE_STATS_ENABLED'] = '0'

from ray.cluster_utils import Cluster  # noqa: E402  without usage statistics

DRIVES, FRAMES = 2, 24
OUT = '/nowhere'
OPTIONS = ('--task', 'derain', '--device', 'cpu', '--precision', 'float32')


@pytest.fixture(scope='module')
def cluster():
    """Two nodes with a CPU each, and where they listen."""
    cluster = Cluster(
        initialize_head=True, head_node_args={'num_cpus': 1, 'object_store_memory': 100 << 20}
    )
    cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope='module')
def drives(tmp_path_factory, photograph):
    """A folder of two bags and one that is broken, and what restore_bag makes of the two."""
    root = tmp_path_factory.mktemp('drives')
    scene = cv2.resize(photograph, (160, 96), interpolation=cv2.INTER_AREA)
    for drive, storage in enumerate(('mcap', 'sqlite3')):
        with writing(root / 'in' / f'{drive}', storage) as write:
            for number in range(FRAMES):
                x = 2 * number + 10 * drive
                image = make_message(np.ascontiguousarray(scene[20:68, x : x + 64]), number)
                when = START + number * PERIOD
                image.header.stamp.sec, image.header.stamp.nanosec = divmod(when, 10**9)
                write('/front/image_raw', image, when)
    for drive in range(DRIVES):
        tool('restore_bag', root / 'in' / f'{drive}', '--output', root / 'plain' / f'{drive}')
    (root / 'in' / 'broken').mkdir()
    (root / 'in' / 'broken' / 'metadata.yaml').write_text('a: [')
    return root


def start(name, *arguments):
    return subprocess.Popen(
        [sys.executable, '-m', f'iov_restore_ros.tools.{name}', *map(str, arguments), *OPTIONS],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


def tool(name, *arguments, status=0):
    """Run a command to its end; returns what it said."""
    process = start(name, *arguments)
    said, errors = process.communicate(timeout=100)
    assert process.returncode == status, said + errors
    return said + errors


def manifest(output):
    lines = (output / 'manifest.jsonl').read_text().splitlines()
    return {line['output']: line for line in map(json.loads, lines)}


def content(folder):
    """Return the files in a folder; not the record of restore_bag, which the fleet does without."""
    files = (p for p in folder.rglob('*') if p.is_file() and p.name != '.restore_bag')
    return {p.relative_to(folder): p.read_bytes() for p in files}


def workers():
    """Return the ids of the processes that restore, by what Ray calls them."""
    found = []
    for command in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            if 'MapWorker' in command.read_text():
                found.append(int(command.parent.name))
        except OSError:
            continue
    return found


def until(process, pattern):
    """Wait while ``process`` runs until there are paths that match ``pattern``; returns them."""
    folder, _, pattern = str(pattern).partition('.fleet')
    while not (found := list(Path(folder).glob(f'.fleet{pattern}'))):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    return found


@pytest.mark.timeout(300)  # 42 s alone; Ray's processes start three times
def test_a_fleet_is_restored_as_by_restore_bag_whoever_is_killed(cluster, drives, tmp_path):
    # In pieces: each warm-up reaches back to the begin, so nothing may differ.
    arguments = (
        drives / 'in', '--output', tmp_path, '--address', cluster.address, '--split', 12
    )
    process = start('restore_fleet', *arguments)
    [part, *_] = until(process, tmp_path / '.fleet/????????????/*/*/outcome.json')
    process.kill()
    process.communicate()
    while workers():  # Ray ends those of a driver that is gone
        time.sleep(0.05)
    shutil.rmtree(tmp_path / '.fleet' / 'work', ignore_errors=True)
    told = json.loads(part.read_text())
    part.write_text(json.dumps({**told, 'seconds': 1000}))  # to be known again

    process = start('restore_fleet', *arguments)
    until(process, tmp_path / '.fleet/work/*')
    for worker in workers():
        os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 1, said
    assert f'failed: {drives}/in/broken: BagError' in said
    assert 'Traceback' not in said
    lines = manifest(tmp_path)
    assert 'error' in lines.pop('broken')
    fields = 'state', 'expected', 'frames', 'restored', 'passed', 'pieces'
    assert [tuple(line[field] for field in fields) for line in lines.values()] == (
        [('done', FRAMES, FRAMES, FRAMES, 0, 2)] * DRIVES
    )
    assert lines[told['output']]['seconds'] >= 1000
    for drive in lines:
        assert content(tmp_path / drive) == content(drives / 'plain' / drive)
    assert not (tmp_path / '.fleet' / 'work').exists()

    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob('[01]/*')}
    tool('restore_fleet', *arguments, status=1)  # only the broken one is tried
    assert {path: path.stat().st_mtime_ns for path in made} == made
    again = manifest(tmp_path)
    again.pop('broken')
    assert again == lines


def test_videos_and_frames_by_a_ray_of_its_own(photograph, tmp_path):
    (tmp_path / 'in' / 'frames').mkdir(parents=True)
    video = cv2.VideoWriter(
        str(tmp_path / 'in' / 'clip.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48)
    )
    for number in range(9):
        frame = photograph[60:108, 3 * number : 3 * number + 64]
        cv2.imwrite(str(tmp_path / 'in' / 'frames' / f'f{number + 2}.png'), frame)
        video.write(frame)
    video.release()
    tool('restore_files', tmp_path / 'in', '--video', '--output', tmp_path / 'plain')
    uri = f'file://{tmp_path}/out'
    tool('restore_fleet', f'file://{tmp_path}/in', '--output', uri, '--split', 4)
    for name in ('clip.mp4', *(f'frames/f{number + 2}.png' for number in range(9))):
        assert (tmp_path / 'out' / name).read_bytes() == (tmp_path / 'plain' / name).read_bytes()
    assert manifest(tmp_path / 'out')['frames']['pieces'] == 3
    assert manifest(tmp_path / 'out')['clip.mp4']['frames'] == 9


def test_pieces_meet_and_begin_with_a_warm_up(drives):
    [drive] = find_drives([str(drives / 'in' / '0')], OUT)
    pieces = plan(drive, 8, True)
    assert len(pieces) == 3
    assert [p.begin for p in pieces[1:]] == [p.end for p in pieces[:-1]]
    assert pieces[-1].end is None
    assert sum(p.frames for p in pieces) == FRAMES
    assert all(p.begin - p.warm_up <= (WARM_UP + 1) * PERIOD for p in pieces)
    assert all(p.warm_up == pieces[0].begin for p in pieces)  # there are not 60 frames before
    assert len(plan(drive, 8, False)) == 1


def test_what_other_settings_made_is_left_alone(drives, tmp_path):
    [drive] = find_drives([str(drives / 'in' / '0')], OUT)
    settings = Settings(str(tmp_path), 'derain', 'fast', 'w', 'abc', 'cpu', 'float32', 0.0)
    store = DriveStore(settings)
    assert store.outcome(drive) is None
    (tmp_path / 'made').mkdir()
    (tmp_path / 'made' / 'metadata.yaml').touch()
    store.publish(tmp_path / 'made', {'frames': 3}, drive)
    assert store.outcome(drive)['frames'] == 3
    for change in (
        {'task': 'deblur'}, {'sha256': 'abd'}, {'shutter': 0.5}, {'imu': ImuOptions(none=True)},
    ):
        with pytest.raises(FileError, match='not made by this command with these settings'):
            DriveStore(replace(settings, **change)).outcome(drive)


@pytest.fixture
def as_they_come(monkeypatch):
    """Workers without a network: images come out as they came."""
    nothing = SimpleNamespace(sha256={'derain': 'abc'}, weights={}, uses_past=True)
    monkeypatch.setattr(fleet_worker, 'Restorer', lambda *_, **__: nothing)
    monkeypatch.setattr(fleet_worker, 'restore_images', lambda *_: lambda _, recorded, data: data)


@pytest.mark.parametrize('split', [0, 3])
@pytest.mark.parametrize('change', ['', 'short', 'qos'])
def test_a_drive_is_done_when_all_that_it_names_is_there(
    tmp_path, as_they_come, capsys, split, change
):
    with writing(tmp_path / 'in' / 'drive', 'mcap') as write:
        for number in range(6):
            image = make_message(np.zeros((6, 8, 3), np.uint8), number)
            write('/front/image_raw', image, START + number * PERIOD)
            write('/talk', String(), START + number * PERIOD)
    metadata = tmp_path / 'in' / 'drive' / 'metadata.yaml'
    text = metadata.read_text()
    if change == 'short':
        text = text.replace('message_count: 6', 'message_count: 9')
    if change == 'qos':
        text = text.replace('offered_qos_profiles: []', f'offered_qos_profiles: [{QOS}]')
    metadata.write_text(text)
    settings = Settings(str(tmp_path / 'out'), 'derain', 'fast', 'w', 'abc', 'cpu', '', 0.0)
    [drive] = find_drives([str(tmp_path / 'in')], settings.output)
    pieces = plan(drive, split, bool(split))
    worker = fleet_worker.Worker(settings)
    outcomes = [json.loads(worker(fleet_worker.as_row(p))['outcome']) for p in pieces]
    outcome = fleet_worker.join(settings, pieces) if split else outcomes[0]
    assert outcome['pieces'] == len(pieces) and (len(pieces) > 1) == bool(split)
    assert (outcome['frames'], outcome['restored']) == (6, 6)
    assert (outcome['state'], outcome['expected']) == (
        ('short', 9) if change == 'short' else ('done', 6)
    )
    assert DriveStore(settings).outcome(drive)['state'] == outcome['state']
    assert tell([outcome]) == (change == 'short')
    said = capsys.readouterr().err
    for topic in ('/front/image_raw', '/talk'):
        line = f'missing: {drive.source}: {topic}: 6 of 9 messages'
        assert (line in said) == (change == 'short')


def test_drives_without_images_and_of_ros_1(tmp_path, as_they_come):
    with writing(tmp_path / 'in' / 'drive', 'sqlite3') as write:
        write('/talk', String(), START)
    (tmp_path / 'in' / 'old.bag').write_bytes(b'#ROSBAG V2.0\n')
    settings = Settings(str(tmp_path / 'out'), 'derain', 'fast', 'w', 'abc', 'cpu', '', 0.0)
    old, drive = find_drives([str(tmp_path / 'in')], settings.output)
    [piece] = plan(drive, 3, True)
    row = fleet_worker.Worker(settings)(fleet_worker.as_row(piece))
    outcome = json.loads(row['outcome'])
    assert (outcome['state'], outcome['expected'], outcome['frames']) == ('done', 0, 0)
    assert content(tmp_path / 'out' / 'drive')
    with pytest.raises(BagError, match='rosbags-convert'):
        plan(old, 3, True)


def test_a_store_that_is_not_local_gets_the_same(drives, tmp_path, monkeypatch):
    store = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    for module in (fleet_drives, fleet_worker):
        monkeypatch.setattr(module, 'place', lambda uri: (store, uri.removeprefix('store://')))
    shutil.copytree(drives / 'in' / '0', tmp_path / 'drives' / '0')
    weights = shipped_weights('fast', 'derain')
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    settings = Settings(
        'store://restored', 'derain', 'fast', str(weights), digest, 'cpu', 'float32', 0.0
    )
    [drive] = find_drives(['store://drives'], 'store://restored')
    assert DriveStore(settings).outcome(drive) is None
    [piece] = plan(drive, 12, False)
    for folder in ('0', f'.fleet/{settings.key()}'):  # which a store of objects does not want
        (tmp_path / 'restored' / folder).mkdir(parents=True)
    with pytest.raises(FileError, match='not made by this command'):
        DriveStore(settings).outcome(drive)
    done = json.loads(fleet_worker.Worker(settings)(fleet_worker.as_row(piece))['outcome'])
    assert content(tmp_path / 'restored' / '0') == content(drives / 'plain' / '0')
    assert DriveStore(settings).outcome(drive) == done
    (tmp_path / 'restored' / '0' / 'metadata.yaml').unlink()
    assert DriveStore(settings).outcome(drive) is None  # not whole


def test_the_gyroscope_in_a_drive_is_used_in_pieces_too(photograph, tmp_path):
    write_bag(tmp_path / 'in' / 'drive', Shaken(photograph, frames=16))
    plain = subprocess.run(
        [sys.executable, '-m', 'iov_restore_ros.tools.restore_bag', str(tmp_path / 'in' / 'drive'),
         '--output', str(tmp_path / 'plain' / 'drive'), '--task', 'deblur', *OPTIONS[2:]],
        capture_output=True, text=True,
    )
    assert '/front/image_raw: gyroscope /imu in' in plain.stdout, plain.stdout + plain.stderr
    weights = shipped_weights('fast', 'deblur')
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    for frames, pieces in ((0, 1), (8, 2)):
        settings = Settings(
            f'{tmp_path}/{frames}', 'deblur', 'fast', str(weights), digest, 'cpu', 'float32', 0.0
        )
        [drive] = find_drives([str(tmp_path / 'in')], OUT)
        parts, worker = plan(drive, frames, bool(frames)), fleet_worker.Worker(settings)
        assert len(parts) == pieces
        outcomes = [json.loads(worker(fleet_worker.as_row(part))['outcome']) for part in parts]
        outcome = fleet_worker.join(settings, parts) if pieces > 1 else outcomes[0]
        used = outcome['gyroscope']['/front/image_raw']
        assert used['imu'] == '/imu' and used['used'] > 6
        # A warm-up reaches back to the begin, so nothing may differ.
        assert content(tmp_path / f'{frames}' / 'drive') == content(tmp_path / 'plain' / 'drive')


def test_an_output_in_a_source_is_no_source(drives, tmp_path):
    shutil.copytree(drives / 'in' / '0', tmp_path / 'in' / '0')
    shutil.copytree(drives / 'plain' / '0', tmp_path / 'in' / 'restored' / '0')
    (tmp_path / 'link').symlink_to(tmp_path / 'in' / 'restored')
    for output in ('in/restored', 'link'):
        [drive] = find_drives([str(tmp_path / 'in')], str(tmp_path / output))
        assert drive.source == f'{tmp_path}/in/0'


@pytest.mark.parametrize(('source', 'output'), [
    ('in', 'in'), ('in/0', 'in'), ('link', 'in'), ('in', 'link'), ('links', 'in'),
    ('file:///in', 'in'),
])
def test_an_output_never_costs_a_source(drives, tmp_path, source, output):
    shutil.copytree(drives / 'in' / '0', tmp_path / 'in' / '0')
    (tmp_path / 'link').symlink_to(tmp_path / 'in')
    (tmp_path / 'links').mkdir()
    (tmp_path / 'links' / '0').symlink_to(tmp_path / 'in' / '0')
    given = source.replace(':///', f'://{tmp_path}/') if ':' in source else str(tmp_path / source)
    with pytest.raises(OutputError, match='give another --output'):
        find_drives([given], str(tmp_path / output))


def test_a_store_is_held_against_itself(tmp_path, monkeypatch):
    store = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(fleet_drives, 'place', lambda uri: (store, uri.removeprefix('store://')))
    for name in ('drives/a.mcap', 'drives/restored/a.mcap'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    [drive] = find_drives(['store://drives'], 'store://drives/restored')
    assert drive.source == 'store://drives/a.mcap'
    (tmp_path / 'drives' / 'frames').mkdir()
    (tmp_path / 'drives' / 'frames' / '1.png').touch()
    with pytest.raises(OutputError, match='give another --output'):
        find_drives(['store://drives'], 'store://drives')


@pytest.mark.parametrize(('text', 'ours'), [
    ('', True), ('{"source": "a", "output": "b", "error": "c"}\n', True),
    ('{"audio_filepath": "a"}\n', False), ('1\n', False), ('mine', False),
])
def test_a_manifest_of_somebody_else_is_left_alone(tmp_path, text, ours):
    (tmp_path / 'manifest.jsonl').write_text(text)
    store = DriveStore(Settings(str(tmp_path), 'derain', 'fast', 'w', 'abc', 'cpu', 'float32', 0.0))
    if ours:
        store.check()
    else:
        with pytest.raises(OutputError, match='restore_fleet did not make it'):
            store.check()


def test_drives_of_one_name_and_what_is_no_drive_are_told(drives, tmp_path):
    (tmp_path / 'in').mkdir()
    with pytest.raises(FleetError, match='no bag, video or picture'):
        find_drives([str(tmp_path / 'in')], OUT)
    with pytest.raises(FleetError, match='no such file or folder'):
        find_drives([str(tmp_path / 'gone')], OUT)
    (tmp_path / 'in' / '0.mcap').write_bytes(b'')
    with pytest.raises(FleetError, match='would both become 0'):
        find_drives([str(drives / 'in'), str(tmp_path / 'in')], OUT)
    (tmp_path / 'in' / 'trip' / 'late').mkdir(parents=True)
    (tmp_path / 'in' / 'trip' / '0.png').touch()
    (tmp_path / 'in' / 'trip' / 'late' / 'clip.mp4').touch()
    with pytest.raises(FleetError, match=r'late/clip\.mp4 lies among the frames of .*trip'):
        find_drives([str(tmp_path / 'in')], OUT)


def test_help_works_without_ray():
    blocked = 'import sys; sys.modules["ray"] = None; sys.argv = ["restore_fleet", "--help"]; '
    code = blocked + 'from iov_restore_ros.tools.restore_fleet import main; main()'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert '--address' in result.stdout


def test_the_manifest_of_kuberay_has_what_a_ray_job_needs(pytestconfig):
    """What can be had offline: the fields and types that a RayJob must have, and our options."""
    job = yaml.safe_load((pytestconfig.rootpath / 'config' / 'kuberay_restore.yaml').read_text())
    assert (job['apiVersion'], job['kind']) == ('ray.io/v1', 'RayJob')
    assert job['metadata']['name']
    spec = job['spec']
    assert set(spec) <= {
        'entrypoint', 'rayClusterSpec', 'shutdownAfterJobFinishes', 'ttlSecondsAfterFinished',
        'backoffLimit', 'submissionMode',
    }
    groups = [spec['rayClusterSpec']['headGroupSpec'], *spec['rayClusterSpec']['workerGroupSpecs']]
    for group in groups:
        assert all(isinstance(v, str) for v in group['rayStartParams'].values())
        [container] = group['template']['spec']['containers']
        assert {'name', 'image', 'resources'} <= set(container)
        assert {'cpu', 'memory'} <= set(container['resources']['limits'])
        mounts = {mount['name'] for mount in container.get('volumeMounts', ())}
        assert mounts <= {volume['name'] for volume in group['template']['spec']['volumes']}
    for group in groups[1:]:
        assert group['groupName']
        assert 0 <= group['minReplicas'] <= group['replicas'] <= group['maxReplicas']
    program, *arguments = spec['entrypoint'].split()
    assert (program, arguments[:2]) == ('python', ['-m', 'iov_restore_ros.tools.restore_fleet'])
    result = subprocess.run(
        [sys.executable, *arguments, '--split', '-1'], capture_output=True, text=True
    )
    assert '--workers and --split at least 0' in result.stderr  # all others are known
