"""The optimisers of a run, and the learning rates of a generator's parts."""

import torch
from torch import nn

from iov_restore_ros.model import Generator


def make_optimiser(name: str, network: nn.Module) -> torch.optim.Optimizer:
    """Return 'adam' or 'adamw' for ``network``; a generator's fusion is a group of its own."""
    parts = [network]
    if isinstance(network, Generator) and network.fusion is not None:
        parts = [network.body, network.fusion]
    groups = [{'params': list(part.parameters())} for part in parts]
    if name == 'adam':
        return torch.optim.Adam(groups, fused=True)
    return torch.optim.AdamW(groups, weight_decay=1e-4, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, rate: float, fusion_rate: float) -> None:
    """Set the learning rate to ``rate``, that of the fusion to ``fusion_rate`` times as much."""
    for group, factor in zip(optimiser.param_groups, (1.0, fusion_rate), strict=False):
        group['lr'] = factor * rate
