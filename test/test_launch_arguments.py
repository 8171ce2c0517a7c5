"""What the launch file makes of its arguments, and says about wrong ones."""

import os

import launch_file
import pytest

pytestmark = pytest.mark.skipif(bool(launch_file.missing()), reason=launch_file.missing())
VARIABLE = ('FASTRTPS' if os.environ.get('ROS_DISTRO') == 'jazzy' else 'FASTDDS') + (
    '_DEFAULT_PROFILES_FILE'
)


def environment_of_node(**arguments):
    """Run the launch file up to the start of the node; return what the environment is there."""
    from launch import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch_ros.actions import Node

    context = LaunchContext()
    context.launch_configurations.update(arguments)
    source = PythonLaunchDescriptionSource(str(launch_file.PATH))
    *declared, function = source.get_launch_description(context).entities
    for argument in declared:
        argument.visit(context)
    [group] = function.visit(context)
    for action in group.visit(context):
        if isinstance(action, Node):
            return context.environment
        action.visit(context)
    raise AssertionError('no node')


@pytest.mark.parametrize(('arguments', 'reason'), [
    ({'mode': 'sunny'}, "mode.*sunny.*'auto', 'deblur', 'derain', 'passthrough'"),
    ({'model': 'slow'}, "slow.*'fast'"),
    ({'log_level': 'loud'}, "loud.*'debug', 'info'"),
    ({'autostart': 'perhaps'}, "perhaps.*'true', 'false'"),
    ({'params_file': '/nowhere/restore.yaml'}, 'params_file: there is no file /nowhere/restore'),
    ({'dds_profile': 'no.xml'}, 'dds_profile: there is no file /.*/no.xml'),
    ({'input': '/{camera}/image'}, 'input says where the topics of cameras:=... are'),
    ({'cameras': 'left,right', 'output': 'clean'}, 'output: clean is one topic for several'),
    ({'cameras': 'left', 'input': '/{camara}/image'}, "input: '/.camara./image' cannot be"),
    ({'cameras': 'a b'}, "'a b/image_raw' cannot be a topic"),
])
def test_wrong_arguments_are_named(arguments, reason):
    with pytest.raises((RuntimeError, ValueError), match=reason):
        environment_of_node(**arguments)


def test_one_camera_needs_no_pattern():
    environment_of_node(cameras='left', input='/driver/image', output='/clean')


@pytest.mark.parametrize(('given', 'inherited', 'expected'), [
    ('', '', 'share/iov_restore/config/fastdds_large_images.xml'),
    ('', '/my/profile.xml', '/my/profile.xml'),
    ('none', '/my/profile.xml', None),
    (str(launch_file.PATH), '/my/profile.xml', str(launch_file.PATH)),
])
def test_dds_profile(monkeypatch, given, inherited, expected):
    monkeypatch.setenv(VARIABLE, inherited)
    profile = environment_of_node(dds_profile=given).get(VARIABLE)
    assert profile == expected or profile.endswith(expected)
