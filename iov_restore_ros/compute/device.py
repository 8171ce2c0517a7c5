"""Choose the device and the fastest precision for a generator."""

import time

import torch

from iov_restore_ros.compute.precisions import candidates
from iov_restore_ros.model.generators import Generator

DEVICES = ('auto', 'cpu', 'cuda')
ROUNDS = 6
TRIED_SIZES = {'cpu': (64, 64), 'cuda': (720, 1280)}  # a small image does not fill a GPU


def pick_device(name: str) -> torch.device:
    """
    Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device; ``auto`` is CUDA where it works.

    Raises ``ValueError`` for another name, and for a CUDA device that does not exist. A silent
    fallback to the CPU would be 50 times slower, and nobody would know why.
    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if name == 'cpu':
        return torch.device('cpu')
    kind, _, index = name.partition(':')
    if kind != 'cuda' or (':' in name and not index.isdigit()):
        raise ValueError(f'unknown device {name!r}: choose auto, cpu, cuda or cuda:N')
    if not torch.cuda.is_available():
        raise ValueError(f'device {name!r} was asked for, but PyTorch finds no CUDA device here')
    if int(index or 0) >= torch.cuda.device_count():
        raise ValueError(f'device {name!r}: this machine has {torch.cuda.device_count()}')
    return torch.device(name)


def fastest_precision(
    generator: Generator, device: torch.device, training: bool = False
) -> str:
    """
    Measure which precision is the fastest for ``generator`` on ``device``; return its name.

    The candidates are those of ``PRECISIONS`` that are tried on this kind of device; for
    ``training``, all that can train. We measure, because without AMX or tensor cores 16 bits are
    several times slower, and no flag says so reliably in a virtual machine. It takes a third of a
    second with the model fast.

    The generator stays on ``device`` in channels_last. On a CPU, measure with one thread (see
    ``on_one_thread``): several threads wait for each other if other processes start too.
    """
    generator.to(device)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    own = generator.body
    tried = candidates(device, training)
    bodies = {name: precision.convert(own) for name, precision in tried.items()}
    image = torch.rand(1, 3, *TRIED_SIZES[device.type], device=device)
    image = image.to(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {name: [] for name in tried}
    try:
        with torch.inference_mode():
            for _ in range(ROUNDS):
                for name, generator.body in bodies.items():
                    # Autocast does not change the weights: measuring rounds nothing.
                    half = None if tried[name].dtype == torch.float32 else tried[name].dtype
                    with torch.autocast(device.type, half, enabled=half is not None):
                        start = time.perf_counter()
                        generator(image)
                        if device.type == 'cuda':
                            torch.cuda.current_stream(device).synchronize()
                        seconds[name].append(time.perf_counter() - start)
    finally:
        generator.body = own
    return min(seconds, key=lambda name: min(seconds[name]))  # best time: a machine may be busy
