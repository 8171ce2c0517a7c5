"""One process or several workers of torchrun, and what the workers share."""

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from iov_restore_ros.compute.device import pick_device


@dataclass(frozen=True)
class Processes:
    """The number of workers, and the rank of this one."""

    rank: int
    count: int
    device: torch.device

    def share(self, module: nn.Module) -> nn.Module:
        """Return ``module`` wrapped so that its gradients are averaged over the processes."""
        return module if self.count == 1 else DistributedDataParallel(module)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of ``values`` over the processes, the same in each."""
        if self.count > 1:
            distributed.all_reduce(values)
            values /= self.count
        return values


def join(device: str) -> Processes:
    """
    Join the other workers if torchrun started this one; ``device`` is as for ``pick_device``.

    On a host with several GPUs each worker takes a different one.
    """
    count = int(os.environ.get('WORLD_SIZE', '1'))
    if count == 1:
        return Processes(0, 1, pick_device(device))
    if device == 'cuda' or (device == 'auto' and torch.cuda.is_available()):
        device = f'cuda:{os.environ["LOCAL_RANK"]}'
    chosen = pick_device(device)
    if chosen.type == 'cuda':
        torch.cuda.set_device(chosen)
    if not distributed.is_initialized():
        distributed.init_process_group('nccl' if chosen.type == 'cuda' else 'gloo')
    return Processes(distributed.get_rank(), count, chosen)
