"""The precisions of a generator. ``PRECISIONS`` holds all that the package knows of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from iov_restore_ros.compute.int8 import int8_is_exact, to_int8
from iov_restore_ros.model.generators import Generator


@dataclass(frozen=True)
class Precision:
    """
    The properties of a precision.

    ``tried_on``: the kinds of device on which it may be the fastest.
    ``works``: whether a device can use it.
    ``needs``: what the error message says if the device cannot.
    """

    dtype: torch.dtype  # of the weights, and of the input of the convolutions
    tried_on: tuple[str, ...]
    trains: bool = False  # whether it can compute gradients
    convert: Callable[[nn.Sequential], nn.Sequential] = lambda body: body  # converts a trained body
    works: Callable[[torch.device], bool] = lambda device: True
    needs: str = ''


# float16 rounds eight times finer than bfloat16, but cannot hold small gradients.
PRECISIONS = {
    'float32': Precision(torch.float32, ('cpu', 'cuda'), trains=True),
    'float16': Precision(torch.float16, ('cuda',)),
    'bfloat16': Precision(torch.bfloat16, ('cpu',), trains=True),
    'int8': Precision(
        torch.float32, ('cpu',), convert=to_int8,
        works=lambda device: device.type == 'cpu' and int8_is_exact(),
        needs='device cpu, and a processor with VNNI',
    ),
}
FOR_TRAINING = tuple(name for name, precision in PRECISIONS.items() if precision.trains)


def candidates(device: torch.device, training: bool) -> dict[str, Precision]:
    """Return the precisions that may be the fastest on ``device``."""
    return {
        name: precision for name, precision in PRECISIONS.items()
        if (precision.trains if training else device.type in precision.tried_on)
        and precision.works(device)
    }


def prepare(generator: Generator, device: torch.device, name: str) -> None:
    """
    Move a trained ``generator`` to ``device``, ready to restore in the precision ``name``.

    Raises ``ValueError`` if ``device`` cannot use this precision.
    """
    precision = PRECISIONS[name]
    if not precision.works(device):
        raise ValueError(f'precision {name} needs {precision.needs}')
    generator.to(device, precision.dtype)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator.body = precision.convert(generator.body)
