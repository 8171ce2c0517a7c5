"""
What restore_fleet costs beside restore_bag, and what a cut changes; the figures: docs/fleet.md.

    python benchmarks/fleet.py speed [--rounds 3]    frames per second, 1 and 2 workers of a thread
    python benchmarks/fleet.py memory                peak memory, 1,000 and 10,000 frames
    python benchmarks/fleet.py warm_up               grey levels by which a cut shows
    python benchmarks/fleet.py killed_node           20 drives on two nodes, one of them killed

Made-up drives over a photograph, in float32 on the CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from common import new_table, show
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from skimage import data as photographs

from iov_restore_ros.inference import History, Restorer, restore_next
from iov_restore_ros.model import shipped_tasks
from iov_restore_ros.tasks import TASKS

SHIPPED = shipped_tasks('fast')
TYPES = get_typestore(Stores.LATEST)
RATE = 30.0  # Hz
OPTIONS = ('--task', 'derain', '--device', 'cpu', '--precision', 'float32')
WARM_UPS = 0, 2, 10, 30, 60, 90
WATCHED = 10  # frames behind a cut that are compared


def drive(frames: int, width: int, height: int, wet: bool = True, seed: int = 0):
    """Yield (frame, sharp one) of a camera that pans over a photograph, in rain or blurred."""
    rng = np.random.default_rng(seed)
    scene = np.ascontiguousarray(photographs.astronaut())
    room = 512 - width - 16
    for number in range(frames):
        x = 8 + abs((3 * number + 40 * seed) % (2 * room) - room)
        sharp = np.ascontiguousarray(scene[60 : 60 + height, x : x + width])
        frame = sharp.copy()
        if wet:
            for left, top in rng.integers((0, -20), (width, height), (width * height // 400, 2)):
                cv2.line(frame, (int(left), int(top)), (int(left) + 2, int(top) + 18), (190,) * 3)
        else:
            wide = scene[60 : 60 + height, x - 4 : x + width + 4]
            frame = cv2.blur(wide, (5, 1))[:, 4 : 4 + width]
        yield np.ascontiguousarray(frame), sharp


def write_bag(path: Path, frames: int, width: int = 64, height: int = 48, seed: int = 0) -> None:
    """Write a drive as a bag."""
    image, header, stamp = (
        TYPES.types[name] for name in
        ('sensor_msgs/msg/Image', 'std_msgs/msg/Header', 'builtin_interfaces/msg/Time')
    )
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection(
            '/front/image_raw', 'sensor_msgs/msg/Image', typestore=TYPES
        )
        for number, (frame, _) in enumerate(drive(frames, width, height, seed=seed)):
            when = round((1 + number / RATE) * 1e9)
            message = image(
                header(stamp(when // 10**9, when % 10**9), 'front'), height, width, 'rgb8', 0,
                3 * width, frame.ravel(),
            )
            data = TYPES.serialize_cdr(message, 'sensor_msgs/msg/Image')
            writer.write(topic, when, data)


def run(tool: str, *arguments: object) -> float:
    """Run one of the commands with a thread; returns the seconds it took."""
    started = time.perf_counter()
    command = [sys.executable, '-m', f'iov_restore_ros.tools.{tool}', *map(str, arguments)]
    subprocess.run(
        [*command, *OPTIONS], check=True, env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def speed(root: Path, rounds: int) -> None:
    """Time the plain command, and the fleet's with 1 and 2 workers, in turns."""
    drives, frames = 4, 100
    for number in range(drives):
        write_bag(root / 'in' / f'{number}', frames, 160, 128, number)
    seconds: dict[str, list[float]] = {}
    work: dict[str, list[float]] = {}
    for turn in range(rounds):
        seconds.setdefault('restore_bag, one after the other', []).append(sum(
            run('restore_bag', root / 'in' / f'{n}', '--output', root / f'plain{turn}' / f'{n}')
            for n in range(drives)
        ))
        for workers in (1, 2):
            name, output = f'restore_fleet, workers: {workers}', root / f'{workers}_{turn}'
            seconds.setdefault(name, []).append(
                run('restore_fleet', root / 'in', '--output', output, '--workers', workers)
            )
            lines = (output / 'manifest.jsonl').read_text().splitlines()
            busy = sum(json.loads(line)['seconds'] for line in lines)
            work.setdefault(name, []).append(drives * frames / busy * workers)
    plain = median(next(iter(seconds.values())))
    table = new_table(
        f'{drives} bags of {frames} frames of 160x128, medians of {rounds}', '', 's',
        'frames/s', 'to restore_bag', 'frames/s without starting',
    )
    for name, times in seconds.items():
        took = median(times)
        table.add_row(
            name, f'{took:.1f}', f'{drives * frames / took:.1f}', f'{plain / took:.2f}',
            f'{median(work[name]):.1f}' if name in work else '',
        )
    show(torch.device('cpu'), table)


def memory(root: Path) -> None:
    """Watch the worker while it restores a drive, whole and cut."""
    table = new_table('Peak memory of the worker', '64x48', 'unsplit MiB', 'in pieces of 1000 MiB')
    for frames in (1000, 10_000):
        write_bag(root / 'in' / f'{frames}', frames)
        peaks = []
        for split in (0, 1000):
            over, peak = threading.Event(), [0]

            def watch(over: threading.Event = over, peak: list[int] = peak) -> None:
                while not over.wait(0.5):
                    peak[0] = max(peak[0], worker_memory())

            watcher = threading.Thread(target=watch)
            watcher.start()
            run('restore_fleet', root / 'in' / f'{frames}', '--output', root / f'{frames}_{split}',
                '--split', split)
            over.set()
            watcher.join()
            peaks.append(f'{peak[0] / 2**20:.0f}')
        table.add_row(f'{frames} frames', *peaks)
    show(torch.device('cpu'), table)


def killed_node(root: Path, drives: int = 20, after: int = 4) -> None:
    """Restore drives on a cluster of two nodes, kill one, and compare with restore_bag."""
    from ray.cluster_utils import Cluster

    for number in range(drives):
        write_bag(root / 'in' / f'{number:02}', 100, seed=number)
    cluster = Cluster(
        initialize_head=True, head_node_args={'num_cpus': 1, 'object_store_memory': 100 << 20}
    )
    second = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    process = subprocess.Popen(
        [sys.executable, '-m', 'iov_restore_ros.tools.restore_fleet', str(root / 'in'),
         '--output', str(root / 'out'), '--address', cluster.address, *OPTIONS]
    )
    while len(list((root / 'out').glob('[0-9]*'))) < after and process.poll() is None:
        time.sleep(0.05)
    print(f'{after} drives are there: a node is killed, while others are in work')
    cluster.remove_node(second, allow_graceful=False)
    print('exit status', process.wait())
    cluster.shutdown()
    lines = (root / 'out' / 'manifest.jsonl').read_text().splitlines()
    print(sum('error' not in json.loads(line) for line in lines), 'of', drives, 'drives restored')
    for number in (0, drives // 2, drives - 1):
        name = f'{number:02}'
        run('restore_bag', root / 'in' / name, '--output', root / 'plain' / name)
        same = all(
            file.read_bytes() == (root / 'out' / name / file.name).read_bytes()
            for file in (root / 'plain' / name).iterdir()
        )
        print(name, 'is' if same else 'is not', 'what restore_bag writes, byte for byte')


def worker_memory() -> int:
    """Return the greatest own memory (bytes) of a process that Ray calls a worker, ever so far."""
    greatest = 0
    for status in Path('/proc').glob('[0-9]*/status'):
        try:
            name = (status.parent / 'cmdline').read_text()
            fields = dict(line.split(':', 1) for line in status.read_text().splitlines())
        except OSError:  # gone meanwhile
            continue
        if name.startswith('ray::'):
            own = sum(int(fields.get(key, '0 kB').split()[0]) for key in ('RssAnon', 'RssShmem'))
            greatest = max(greatest, own * 1024)
    return greatest


def warm_up(_: Path) -> None:
    """Compare the frames behind a cut with those of the drive that is not cut."""
    table = new_table(
        f'The {WATCHED} frames behind a cut, beside those without: grey levels, mean and greatest; '
        'and PSNR', 'warm-up, frames', *(f'{t} {what}' for t in SHIPPED for what in ('', 'dB')),
    )
    cells: dict[str, list[str]] = {}
    cuts = 100, 130, 160
    for task in SHIPPED:
        restorer = Restorer(device='cpu', precision='float32', tasks=[task])
        frames = list(drive(cuts[-1] + WATCHED, 160, 128, TASKS[task].streaks))

        def behind(cut: int, first: int, frames=frames, restorer=restorer, task=task):
            history = History()
            seen = [
                restore_next(restorer, history, frames[n][0], n / RATE, task)
                for n in range(first, cut + WATCHED)
            ]
            return np.stack(seen[-WATCHED:]).astype(float)

        sharp = np.stack([[s for _, s in frames[cut : cut + WATCHED]] for cut in cuts])
        whole = np.stack([behind(cut, 0) for cut in cuts])
        for count in (*WARM_UPS, None):
            cut_off = whole if count is None else np.stack([behind(c, c - count) for c in cuts])
            apart = np.abs(cut_off - whole)
            decibels = 10 * np.log10(255**2 / np.mean((cut_off - sharp) ** 2))
            cells.setdefault('no cut' if count is None else str(count), []).extend(
                [f'{apart.mean():.3f}, {apart.max():.0f}', f'{decibels:.2f}']
            )
    for name, row in cells.items():
        table.add_row(name, *row)
    show(torch.device('cpu'), table)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('what', choices=('speed', 'memory', 'warm_up', 'killed_node'))
    parser.add_argument('--rounds', type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / 'in').mkdir()
        if options.what == 'speed':
            speed(root, options.rounds)
        else:
            does = {'memory': memory, 'warm_up': warm_up, 'killed_node': killed_node}
            does[options.what](root)


if __name__ == '__main__':
    main()
