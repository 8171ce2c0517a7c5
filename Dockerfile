# The node in a container, for the CPU or for CUDA:
#   docker build -t iov_restore .
#   docker build -t iov_restore --build-arg TORCH=cu130 .          and then docker run --gpus all ...
#   docker run --rm --net host --ipc host iov_restore \
#     ros2 launch iov_restore restore.launch.py cameras:=front
# With --ipc host, as frames come through shared memory.

ARG ROS_DISTRO=jazzy
FROM ros:${ROS_DISTRO}-ros-base

# Which of https://download.pytorch.org/whl/: cpu, or a CUDA that the driver knows.
ARG TORCH=cpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# NumPy and OpenCV as ROS has them: its messages are built against that NumPy.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
      python3-numpy python3-opencv python3-pil python3-pip python3-rich python3-scipy python3-skimage \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /ws
COPY . src/iov_restore
RUN grep '^torch' src/iov_restore/constraints.txt > /tmp/constraints.txt \
    && pip install --no-cache-dir --break-system-packages -c /tmp/constraints.txt \
      --extra-index-url "https://download.pytorch.org/whl/${TORCH}" av omegaconf safetensors torch
# hadolint ignore=SC1090,SC1091
RUN source "/opt/ros/${ROS_DISTRO}/setup.bash" \
    && colcon build --packages-select iov_restore \
    && sed -i 's|^exec|source /ws/install/setup.bash --\nexec|' /ros_entrypoint.sh

CMD ["ros2", "launch", "iov_restore", "restore.launch.py"]
