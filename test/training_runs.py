"""Short training runs: steps in this process, and the entry point in processes of its own."""

import os
import subprocess
import sys

import torch

from iov_restore_ros.training.processes import Processes
from iov_restore_ros.training.trainer import Trainer

ALONE = Processes(0, 1, torch.device('cpu'))


def start(settings, *more):
    """Start the entry point in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *more, '-m', 'iov_restore_ros.training.train', *settings],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {'OMP_NUM_THREADS': '1'},
    )


def finish(*processes):
    """Wait until all have ended well."""
    for process in processes:
        _, complaints = process.communicate(timeout=100)
        assert process.returncode == 0, complaints


def take_steps(config, *cuts):
    """Train up to each step of ``cuts``, saving there and going on from what was saved."""
    for cut in cuts:
        trainer = Trainer(config, ALONE)
        reader = trainer.read()
        while trainer.step < cut:
            trainer.take_step(next(reader))
        trainer.save()


def assert_equal(left, right, tolerance=0.0):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], atol=tolerance, rtol=0, msg=name)
