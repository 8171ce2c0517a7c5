"""Where the launch file is, and what it lacks here."""

import importlib.util
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

PATH = Path(__file__).parents[1] / 'launch' / 'restore.launch.py'


def missing():
    """Return what the launch file needs and does not find here, or nothing."""
    if importlib.util.find_spec('launch_ros') is None:
        return 'needs ROS 2 launch_ros, which is not on PyPI'
    try:
        get_package_prefix('iov_restore')
    except PackageNotFoundError:
        return 'needs the installed package: colcon build, and source install/setup.bash'
    return ''
