"""
What nodes that are killed leave in /dev/shm: python benchmarks/killed_nodes.py [--kills 10]

Another process, this one, takes part all the while, as a camera driver would. Prints a Markdown
table. Not a test: nothing fails here.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import rclpy
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from iov_restore_ros.tools.demo import process

PROFILE = Path(__file__).parents[1] / 'config' / 'fastdds_large_images.xml'
PATIENCE = 60.0  # s


def segments(pid: int | str) -> set[Path]:
    """Return the segments of Fast DDS that a process has mapped; ports are shared by all."""
    names = {line.split()[-1] for line in Path(f'/proc/{pid}/maps').read_text().splitlines()}
    return {
        Path(name) for name in names
        if name.startswith(('/dev/shm/fastdds_', '/dev/shm/fastrtps_'))  # noqa: S108
        and '_port' not in name
    }


def killed_node(folder: str) -> tuple[float, set[Path]]:
    """Run a node until it is active, and kill it; return how long it took and its segments."""
    started, log = time.monotonic(), Path(folder) / 'node.log'
    arguments = '--ros-args', '-p', 'precision:=float32'  # not measured: that takes a while
    with process('node.restore_node', *arguments, log=log) as node:
        while ' active;' not in log.read_text():
            if time.monotonic() > started + PATIENCE:
                raise TimeoutError(log.read_text())
            time.sleep(0.1)
        took, own = time.monotonic() - started, segments(node.pid) - segments('self')
        node.kill()
        node.wait()
    return took, own


def main() -> None:
    """Kill nodes, print the table."""
    parser = argparse.ArgumentParser(description='What killed nodes leave in /dev/shm.')
    parser.add_argument('--kills', type=int, default=10)
    kills = parser.parse_args().kills
    prefix = 'FASTRTPS' if os.environ.get('ROS_DISTRO') == 'jazzy' else 'FASTDDS'
    os.environ.setdefault(f'{prefix}_DEFAULT_PROFILES_FILE', str(PROFILE))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    rclpy.init()
    lasting = rclpy.create_node('lasting')
    table = Table('killed', 'active after s', 'segments left', 'MiB', box=MARKDOWN)
    of_the_dead: set[Path] = set()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, kills + 1):
            took, own = killed_node(folder)
            of_the_dead |= own
            left = [path.stat() for path in of_the_dead if path.exists()]
            size = sum(512 * stat.st_blocks for stat in left) / 2**20
            table.add_row(str(number), f'{took:.1f}', str(len(left)), f'{size:.1f}')
    lasting.destroy_node()
    rclpy.shutdown()
    Console().print(table)


if __name__ == '__main__':
    main()
