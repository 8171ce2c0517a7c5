"""Restoring on the CPU, in the computing thread of the process."""

from concurrent.futures import Future

import numpy as np
import torch

from iov_restore_ros.compute.cpu import begin
from iov_restore_ros.inference.pixels import Input, restore_inputs
from iov_restore_ros.model import Generator

CPU = torch.device('cpu')


class CpuEngine:
    """See ``Engine``."""

    in_flight = 1
    graphs = False

    def __init__(self, batch: int = 0) -> None:
        """The default batch is 1: a larger one saves no time, and its first frame waits."""
        self.batch = batch or 1

    def submit(self, inputs: list[Input], generator: Generator) -> Future[list[np.ndarray]]:
        """See ``Engine``."""
        return begin(restore_inputs, inputs, generator, CPU)

    def close(self) -> None:
        """See ``Engine``."""
