"""Where restoring is used: the ROS 2 node. ROS code lives here, the demo and its camera aside."""

import os

# PyTorch's threads spin while they wait for each other between two layers, by default for a
# millisecond: on cores that others use too, the one waited for is kept from running, and a frame
# takes five times as long (benchmarks/busy_cores.py). To be set before libgomp is loaded.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '10000')
