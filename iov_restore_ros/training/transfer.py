"""Where a training starts that doesn't start from nothing (Wei et al. 2021, Sec. 2.4)."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from iov_restore_ros.model import Generator, load_weights
from iov_restore_ros.model.weights import read_info

STILLS_FIRST = 'body.1.weight'  # of `fast` when it saw one frame: its first convolution, 64 x 48
FADED = 0.2  # what new planes of a known convolution count at first


def start_from(generator: Generator, path: Path) -> None:
    """
    Give ``generator`` the weights of ``path``, of whichever task.

    Files of `fast` from when it saw one frame only are taken too: its fusion keeps what it has.
    Raises ``WeightsError`` for a file that is for another model, or isn't good.
    """
    if read_info(path).preset == generator.preset == 'fast' and _sees_one_frame(path):
        _take_over(generator, path)
    else:
        loaded, _ = load_weights(path, preset=generator.preset)
        generator.load_state_dict(loaded.state_dict())


def _sees_one_frame(path: Path) -> bool:
    with safe_open(path, framework='pt') as file:
        names = set(file.keys())
    return STILLS_FIRST in names and not any(name.startswith('fusion') for name in names)


def _take_over(generator: Generator, path: Path) -> None:
    """Copy the body, whose layers were numbered from 1, as the unshuffle was one of them."""
    state = generator.state_dict()
    for name, tensor in load_file(path).items():
        _, number, rest = name.split('.', 2)
        new = f'body.{int(number) - 1}.{rest}'
        if name == STILLS_FIRST:
            planes = tensor.shape[1]
            tensor = torch.cat([tensor, FADED * state[new][:, planes:]], 1)
        state[new] = tensor
    generator.load_state_dict(state)
