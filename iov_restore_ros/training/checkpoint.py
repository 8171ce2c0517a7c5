"""
Checkpoints that continue a run, and weight files that start one.

checkpoint.pt holds everything that a run needs to continue. A training can start from a weight file
instead of random weights (Wei et al. 2021, Sec. 2.4).
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from iov_restore_ros.model import Generator, load_weights
from iov_restore_ros.model.weights import read_info
from iov_restore_ros.training.config import TrainConfig, config_of
from iov_restore_ros.whole import whole

KEPT = 'step', 'stage', 'generator', 'average', 'optimiser'  # in every checkpoint
ANEW = 'give another output=DIR, and start_from=FILE with the weights.safetensors beside this one'
STILLS_FIRST = 'body.1.weight'  # first convolution of the single-frame `fast`, 64 x 48
FADED = 0.2  # factor on the initial weights of a known convolution's new planes


class TrainingError(RuntimeError):
    """A run that cannot continue; the message says what to do."""


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state``, whole or not at all. Raises ``OSError``, e.g. on a full disk."""
    try:
        with whole(path) as part:
            torch.save(state, part)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise OSError(f'{path} was not written: {error}') from error


def read_checkpoint(path: Path, config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """Return the state in ``path``. Raises ``TrainingError`` if it does not fit ``config``."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f'{path}: cut off, or no checkpoint; move it away, or {ANEW}'
        ) from error
    if not isinstance(state, dict) or not state.keys() >= set(KEPT):
        raise TrainingError(f'{path}: no checkpoint; move it away, or {ANEW}')
    # Old checkpoints do not name their task and preset.
    task, preset = state.get('task', config.task), state.get('preset', config.preset)
    if (task, preset) != (config.task, config.preset):
        raise TrainingError(
            f'{path}: {preset} for {task}, not {config.preset} for {config.task}; {ANEW}'
        )
    state['stage'] = min(state['stage'], len(config.stages) - 1)  # there may be fewer stages now
    weight = config_of(config, state['stage']).adversarial.weight
    if weight and 'discriminator' not in state:
        raise TrainingError(
            f'{path}: trained without a discriminator, which adversarial.weight={weight} wants; '
            f'{ANEW}'
        )
    return state


def start_from(generator: Generator, path: Path) -> None:
    """
    Load the weights of ``path``, of any task, into ``generator``.

    Files of the older single-frame `fast` are accepted too; the fusion then keeps its weights.
    Raises ``WeightsError`` for a file of another model, or a damaged one.
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
    """Copy the body. Its layers were numbered from 1, because the unshuffle was layer 0."""
    state = generator.state_dict()
    for name, tensor in load_file(path).items():
        _, number, rest = name.split('.', 2)
        new = f'body.{int(number) - 1}.{rest}'
        if name == STILLS_FIRST:
            planes = tensor.shape[1]
            tensor = torch.cat([tensor, FADED * state[new][:, planes:]], 1)
        state[new] = tensor
    generator.load_state_dict(state)
