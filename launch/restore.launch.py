"""
Start the node `restore`.

    ros2 launch iov_restore restore.launch.py cameras:=front,left,right device:=cuda
    ros2 launch iov_restore restore.launch.py cameras:=front \
        input:=/sensing/{camera}/image_rect_color
"""

import json
import os
import re
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    OpaqueFunction,
    SetEnvironmentVariable,
    UnsetEnvironmentVariable,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = Path(get_package_share_directory('iov_restore'))
CONFIG = SHARE / 'config'
# Fast DDS 3 (Kilted) has a new name for it.
FAST_DDS = 'FASTRTPS' if os.environ.get('ROS_DISTRO') == 'jazzy' else 'FASTDDS'
DDS_VARIABLE = f'{FAST_DDS}_DEFAULT_PROFILES_FILE'

# name: (default, help, choices). Literals alone: a test reads them without launch. The choices of
# the node's parameters are those of the schema.
ARGUMENTS = {
    'cameras': (
        '', 'names of the cameras, separated by commas; empty: as the parameter file says', ()
    ),
    'namespace': ('', 'namespace of the node and its topics', ()),
    'input': ('{camera}/image_raw', 'input topic; without /compressed for compressed images', ()),
    'output': ('{camera}/restored/image_raw', 'output topic', ()),
    'params_file': ('', 'parameter file; empty: config/restore.yaml of the package', ()),
    'mode': ('', 'what to do with the frames; empty: as the parameter file says', ()),
    'model': (
        '', 'the generator; only `fast` has shipped weights; empty: as the parameter file says', (),
    ),
    'image_transport': (
        '', 'transport of the input images; empty: as the parameter file says', (),
    ),
    'imu_topic': (
        '', 'topic of sensor_msgs/Imu, used for deblurring; empty: as the parameter file says',
        (),
    ),
    'device': ('', 'device of the generators; empty: as the parameter file says', ()),
    'autostart': (
        '', 'configure and activate at the start; empty: as the parameter file says',
        ('', 'true', 'false'),
    ),
    'dds_profile': (
        '', 'Fast DDS profile; empty: from the environment, else config/fastdds_large_images.xml'
        ' of the package; none: the defaults of Fast DDS', (),
    ),
    'log_level': (
        'info', 'one of debug, info, warn, error, fatal',
        ('debug', 'info', 'warn', 'error', 'fatal'),
    ),
}


def choices_of(name, schema):
    """Return what an argument may be: its own choices, or those of the parameter in `schema`."""
    parameter = schema['definitions']['restore']['properties'].get(name, {})
    return ['', *parameter['enum']] if 'enum' in parameter else list(ARGUMENTS[name][2])


def existing_file(name, path):
    """Return `path` in full; a ValueError names the argument if there is no such file."""
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise ValueError(f'{name}: there is no file {file}')
    return str(file)


def topics(name, pattern, cameras):
    """Return the topic of each camera by `pattern`; a ValueError says what is wrong with it."""
    if not cameras and pattern != ARGUMENTS[name][0]:
        raise ValueError(f'{name} says where the topics of cameras:=... are: name those')
    found = [pattern.replace('{camera}', camera) for camera in cameras]
    for topic in found:
        if not re.fullmatch('[A-Za-z0-9_/~]+', topic):
            raise ValueError(f'{name}: {topic!r} cannot be a topic')
    if len(set(found)) < len(set(cameras)):
        raise ValueError(f'{name}: {pattern} is one topic for several cameras: use {{camera}}')
    return found


def sibling(topic, name):
    """Return the topic `name` beside `topic`, as camera_info lies beside image_raw."""
    return f'{topic.rpartition("/")[0]}/{name}' if '/' in topic else name


def remappings(cameras, inputs, outputs):
    """Return the rules that lead the topics of each camera to its input and output."""
    rules = []
    for camera, source, result in zip(cameras, inputs, outputs, strict=True):
        rules += [
            (f'{camera}/image_raw', source),
            (f'{camera}/camera_info', sibling(source, 'camera_info')),
            (f'{camera}/restored/image_raw', result),
            (f'{camera}/restored/camera_info', sibling(result, 'camera_info')),
            (f'{camera}/restored/compare', sibling(result, 'compare')),
        ]
    return rules


def environment(profile):
    """Return the actions that set up DDS: whole images through shared memory by default."""
    if profile == 'none':
        return [UnsetEnvironmentVariable(DDS_VARIABLE)]
    if profile:
        return [SetEnvironmentVariable(DDS_VARIABLE, existing_file('dds_profile', profile))]
    if os.environ.get(DDS_VARIABLE):
        return []
    return [SetEnvironmentVariable(DDS_VARIABLE, str(CONFIG / 'fastdds_large_images.xml'))]


def restore_node(context):
    """Build the node's action, in an environment of its own, from the launch arguments."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    cameras = [name.strip() for name in value['cameras'].split(',') if name.strip()]
    # Their types are given, so that YAML does not take a camera `on` for a truth.
    given = {
        name: ParameterValue(value[name], value_type=str)
        for name in ('mode', 'model', 'image_transport', 'device') if value[name]
    }
    if cameras:
        given['cameras'] = ParameterValue(cameras, value_type=list[str])
    rules = remappings(
        cameras, *(topics(name, value[name], cameras) for name in ('input', 'output'))
    )
    if value['imu_topic']:
        given['imu'] = True
        [topic] = topics('imu_topic', value['imu_topic'], ['imu'])
        rules.append(('imu', topic))
    if value['autostart']:
        given['autostart'] = value['autostart'] == 'true'
    node = Node(
        package='iov_restore',
        executable='restore_node',
        name='restore',
        namespace=value['namespace'],
        parameters=[
            existing_file('params_file', value['params_file'] or CONFIG / 'restore.yaml'), given
        ],
        remappings=rules,
        arguments=['--ros-args', '--log-level', value['log_level']],
        output='screen',
    )
    return [GroupAction([*environment(value['dds_profile']), node])]


def generate_launch_description():
    """Return the description that `ros2 launch` runs."""
    schema = json.loads((SHARE / 'schema' / 'restore.schema.json').read_text())
    return LaunchDescription([
        *(
            DeclareLaunchArgument(
                name, default_value=default, description=text,
                choices=choices_of(name, schema) or None,
            ) for name, (default, text, _) in ARGUMENTS.items()
        ),
        OpaqueFunction(function=restore_node),
    ])
