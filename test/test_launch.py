"""The node started by the launch file, as `ros2 launch` does it. `colcon test` runs this."""

import os
import unittest
from pathlib import Path

import launch_file
import numpy as np
import pytest

pytest.importorskip('launch_testing', reason='needs ROS 2 launch_testing, which is not on PyPI')

from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_testing import post_shutdown_test
from launch_testing.actions import ReadyToTest
from launch_testing.asserts import assertExitCodes
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from ros_harness import Rig, make_info, make_message
from sensor_msgs.msg import CameraInfo, Image

ARGUMENTS = {
    'namespace': 'car', 'cameras': 'front,on', 'mode': 'derain', 'device': 'cpu',
    'autostart': 'true', 'input': '/sensing/{camera}/image', 'output': 'clean/{camera}/image',
}


# Not skipped by an exception: launch_testing's plugin would let that skip the whole folder.
@pytest.mark.launch_test
@pytest.mark.skipif(bool(launch_file.missing()), reason=launch_file.missing())
def generate_test_description():
    rig = Rig(Path(os.devnull))
    return LaunchDescription([
        SetEnvironmentVariable('ROS_DOMAIN_ID', rig.domain),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(launch_file.PATH)),
            launch_arguments=ARGUMENTS.items(),
        ),
        ReadyToTest(),
    ]), {'rig': rig}


class TestWhileItRuns(unittest.TestCase):
    def test_frames_and_parameters(self, rig):
        driver = rig.node.create_publisher(Image, '/sensing/on/image', 10)
        info_driver = rig.node.create_publisher(CameraInfo, '/sensing/on/camera_info', 10)
        frames, infos = [], []
        rig.node.create_subscription(Image, '/car/clean/on/image', frames.append, 10)
        rig.node.create_subscription(CameraInfo, '/car/clean/on/camera_info', infos.append, 10)
        rig.wait(lambda: driver.get_subscription_count() and info_driver.get_subscription_count())
        rig.spin(0.5)  # the node's side of the discovery

        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        sent = [make_message(noise, number) for number in range(2)]
        driver.publish(sent[0])
        info_driver.publish(make_info(sent[0]))
        rig.wait(lambda: frames and infos)
        assert frames[0].header == infos[0].header == sent[0].header
        assert frames[0].data != sent[0].data, 'derained'
        assert rig.node.count_publishers('/car/clean/on/compare') == 1

        answer = rig.call(SetParameters, '/car/restore/set_parameters', SetParameters.Request(
            parameters=[Parameter('mode', value='passthrough').to_parameter_msg()]
        ))
        assert answer.results[0].successful
        driver.publish(sent[1])
        rig.wait(lambda: len(frames) > 1)
        assert frames[1] == sent[1]

        state = rig.call(GetState, '/car/restore/get_state', GetState.Request())
        assert state.current_state.label == 'active'


@post_shutdown_test()
class TestAfterwards(unittest.TestCase):
    def test_exit_status(self, proc_info, rig):
        rig.close()
        assertExitCodes(proc_info)
