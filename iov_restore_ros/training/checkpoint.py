"""checkpoint.pt: all that a run needs to go on, whole, and of that run."""

import pickle
from pathlib import Path
from typing import Any

import torch

from iov_restore_ros.training.config import TrainConfig
from iov_restore_ros.whole import whole

KEPT = 'step', 'stage', 'generator', 'average', 'optimiser'  # in every checkpoint
ANEW = 'give another output=DIR, and start_from=FILE with the weights.safetensors beside this one'


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says what to do."""


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state``, whole or not at all. Raises ``OSError``, e.g. on a full disk."""
    try:
        with whole(path) as part:
            torch.save(state, part)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise OSError(f'{path} was not written: {error}') from error


def read_checkpoint(path: Path, config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """Return what was written. Raises ``TrainingError`` for one that ``config`` does not go on."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f'{path}: cut off, or no checkpoint; move it away, or {ANEW}'
        ) from error
    if not isinstance(state, dict) or not state.keys() >= set(KEPT):
        raise TrainingError(f'{path}: no checkpoint; move it away, or {ANEW}')
    # Those from before these were noted may be of any.
    task, preset = state.get('task', config.task), state.get('preset', config.preset)
    if (task, preset) != (config.task, config.preset):
        raise TrainingError(
            f'{path}: {preset} for {task}, not {config.preset} for {config.task}; {ANEW}'
        )
    if config.adversarial.weight and 'discriminator' not in state:
        raise TrainingError(
            f'{path}: trained without a discriminator, which adversarial.weight='
            f'{config.adversarial.weight} wants; {ANEW}'
        )
    return state
