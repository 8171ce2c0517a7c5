"""What an installation holds, and files that must agree with each other."""

import ast
import importlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile

import pytest

from iov_restore_ros import __version__
from iov_restore_ros.__main__ import COMMANDS


@pytest.fixture(scope='module')
def wheel(tmp_path_factory, pytestconfig):
    """Return the names in the wheel that `pip install .` would install, and its commands."""
    folder = tmp_path_factory.mktemp('wheel')
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation',
         '--wheel-dir', str(folder), '.'],
        cwd=pytestconfig.rootpath, check=True, capture_output=True,
    )
    with zipfile.ZipFile(next(folder.glob('*.whl'))) as archive:
        names = archive.namelist()
        commands = archive.read(next(n for n in names if n.endswith('entry_points.txt'))).decode()
        return names, commands


@pytest.mark.parametrize('name', [
    'data/share/ament_index/resource_index/packages/iov_restore',
    'data/share/iov_restore/package.xml',
    'data/share/iov_restore/launch/restore.launch.py',
    'data/share/iov_restore/config/restore.yaml',
    'data/share/iov_restore/schema/restore.schema.json',
    'data/share/iov_restore/config/fastdds_large_images.xml',
    'data/share/iov_restore/config/foxglove_layout.json',
    'data/share/iov_restore/config/restore.rviz',
    'data/share/iov_restore/config/train/fast_deblur.yaml',
    'data/lib/iov_restore/restore_node',
    'iov_restore_ros/weights/fast_deblur.safetensors',
    'iov_restore_ros/weights/fast_derain.safetensors',
    'iov_restore_ros/weights/fast_derain.md',
])
def test_wheel_holds(wheel, name):
    assert any(path.endswith(name) for path in wheel[0])


def test_ros2_run_finds_every_command(wheel):
    names, commands = wheel
    # Not `train` and `export`, which others have too.
    assert re.findall(r'^(\w+) = ', commands, re.MULTILINE) == ['iov_restore']
    in_lib = {n.rpartition('/')[2] for n in names if '/lib/iov_restore/' in n}
    assert in_lib == set(COMMANDS)


def iov_restore(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'iov_restore_ros', *arguments], capture_output=True, text=True
    )


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_has_a_help_that_names_it(command):
    result = iov_restore(command, '--help')
    assert result.returncode == 0
    assert command in result.stdout


def test_without_a_command_it_lists_them():
    result = iov_restore()
    assert (result.returncode, result.stdout) == (2, '')
    assert all(command in result.stderr for command in COMMANDS)
    assert iov_restore('--help').stdout in result.stderr
    result = iov_restore('restore')
    assert result.returncode == 2
    assert result.stderr.startswith("iov_restore: no command 'restore'\nusage: ")


def test_benchmarks_import_what_there_is(pytestconfig):
    """Nothing else runs them all."""
    names = [
        (node.module, alias.name)
        for path in (pytestconfig.rootpath / 'benchmarks').glob('*.py')
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('iov_restore_ros')
        for alias in node.names
    ]
    assert names
    missing = [(m, n) for m, n in names if not hasattr(importlib.import_module(m), n)]
    assert missing == []


def test_versions_agree(pytestconfig):
    root = ElementTree.parse(pytestconfig.rootpath / 'package.xml').getroot()  # noqa: S314  ours
    assert root.get('format') == '3'
    assert root.findtext('version') == __version__
    assert f"version='{__version__}'" in (pytestconfig.rootpath / 'setup.py').read_text()
