"""The ROS 2 node. All ROS code is here, except the demo and its camera."""

import os

# PyTorch's threads spin while they wait for each other between two layers, by default for a
# millisecond. On cores that other processes use too, this keeps the awaited thread from running,
# and a frame takes five times as long (benchmarks/busy_cores.py). Set before libgomp is loaded.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '10000')
