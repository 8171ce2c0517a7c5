"""Where a generator is used: the ROS 2 node."""
