"""Restoring on the CPU, in the one thread of the process that computes."""

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
        """By default: a batch takes as long as its frames one by one, and the first waits."""
        self.batch = batch or 1

    def submit(self, inputs: list[Input], generator: Generator) -> Future[list[np.ndarray]]:
        """See ``Engine``."""
        return begin(restore_inputs, inputs, generator, CPU)

    def close(self) -> None:
        """See ``Engine``."""
