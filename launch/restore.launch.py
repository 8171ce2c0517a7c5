"""
Start the node `restore`.

    ros2 launch iov_restore restore.launch.py cameras:=front,left,right device:=cuda
    ros2 launch iov_restore restore.launch.py cameras:=front \
        input:=/sensing/{camera}/image_rect_color
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory('iov_restore'))
# Fast DDS 3 (Kilted) has a new name for it.
FAST_DDS = 'FASTRTPS' if os.environ.get('ROS_DISTRO') == 'jazzy' else 'FASTDDS'
DDS_VARIABLE = f'{FAST_DDS}_DEFAULT_PROFILES_FILE'

ARGUMENTS = {
    'cameras': ('', 'names of the cameras, by commas; empty: as the parameter file says'),
    'namespace': ('', 'namespace of the node and its topics'),
    'input': ('{camera}/image_raw', 'input topic of a camera'),
    'output': ('{camera}/restored/image_raw', 'output topic of a camera'),
    'params_file': (str(SHARE / 'config' / 'restore.yaml'), 'parameter file'),
    'mode': ('', 'auto, deblur, derain or passthrough; empty: as the parameter file says'),
    'model': ('', 'fast, wei2021 or wei2021_preprint; empty: as the parameter file says'),
    'device': ('', 'auto, cpu, cuda or cuda:N; empty: as the parameter file says'),
    'log_level': ('info', 'debug, info, warn, error or fatal'),
}


def sibling(topic, name):
    """Return the topic `name` beside `topic`, as camera_info lies beside image_raw."""
    return f'{topic.rpartition("/")[0]}/{name}' if '/' in topic else name


def restore_node(context):
    """Build the node's action from the launch arguments."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    cameras = [name.strip() for name in value['cameras'].split(',') if name.strip()]
    if not cameras and any(value[name] != ARGUMENTS[name][0] for name in ('input', 'output')):
        raise ValueError('input and output say where the topics of cameras:=... are: name those')
    remappings = []
    for camera in cameras:
        source = value['input'].replace('{camera}', camera)
        result = value['output'].replace('{camera}', camera)
        remappings += [
            (f'{camera}/image_raw', source),
            (f'{camera}/camera_info', sibling(source, 'camera_info')),
            (f'{camera}/restored/image_raw', result),
            (f'{camera}/restored/camera_info', sibling(result, 'camera_info')),
        ]
    given = {name: value[name] for name in ('mode', 'model', 'device') if value[name]}
    if cameras:
        given['cameras'] = cameras
    return [Node(
        package='iov_restore',
        executable='restore_node',
        name='restore',
        namespace=value['namespace'],
        parameters=[value['params_file'], given],
        remappings=remappings,
        arguments=['--ros-args', '--log-level', value['log_level']],
        output='screen',
    )]


def generate_launch_description():
    """Return the description that `ros2 launch` runs."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    profile = str(SHARE / 'config' / 'fastdds_large_images.xml')
    return LaunchDescription([
        *declared,
        # Whole images through shared memory, unless the user has a profile already.
        SetEnvironmentVariable(DDS_VARIABLE, os.environ.get(DDS_VARIABLE, profile)),
        OpaqueFunction(function=restore_node),
    ])
