"""
An example to copy: one camera, restored, rectified (image_proc), and seen by a detector (yolo_ros).

    ros2 launch iov_restore perception.launch.py camera:=front mode:=derain
    ros2 launch iov_restore perception.launch.py camera:=front detect:=false

`<camera>/image_raw` and `<camera>/camera_info` come from the camera's driver. Restored first: a
blur is straight in the raw picture, and rectifying would smooth what is to be restored.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import ComposableNodeContainer
from launch_ros.descriptions import ComposableNode
from launch_ros.substitutions import FindPackageShare


def launch_file(package, name):
    """Return the path of a launch file of a package."""
    return PathJoinSubstitution([FindPackageShare(package), 'launch', name])


def generate_launch_description():
    """Return the arguments, the restorer, the rectifier and the detector."""
    camera, mode = LaunchConfiguration('camera'), LaunchConfiguration('mode')
    restored = [camera, '/restored']
    rectified = [*restored, '/image_rect']
    return LaunchDescription([
        DeclareLaunchArgument('camera', default_value='camera', description='its name'),
        DeclareLaunchArgument('mode', default_value='auto', description='see restore.launch.py'),
        DeclareLaunchArgument('detect', default_value='true', description='start yolo_ros'),
        IncludeLaunchDescription(
            launch_file('iov_restore', 'restore.launch.py'),
            launch_arguments={'cameras': camera, 'mode': mode}.items(),
        ),
        ComposableNodeContainer(
            package='rclcpp_components',
            executable='component_container',
            name='image_proc',
            namespace='',
            composable_node_descriptions=[
                ComposableNode(
                    package='image_proc',
                    plugin='image_proc::RectifyNode',
                    name='rectify',
                    remappings=[  # the restored camera_info goes with the restored frame
                        ('image', [*restored, '/image_raw']),
                        ('camera_info', [*restored, '/camera_info']),
                        ('image_rect', rectified),
                    ],
                ),
            ],
        ),
        IncludeLaunchDescription(
            launch_file('yolo_bringup', 'yolo.launch.py'),
            # Older and newer yolo_ros have different names for it.
            launch_arguments={'input_image_topic': rectified, 'image_topic': rectified}.items(),
            condition=IfCondition(LaunchConfiguration('detect')),
        ),
    ])
