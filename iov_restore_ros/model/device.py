"""Where and in which precision a generator runs best."""

import time

import torch

from iov_restore_ros.model.generators import Generator

OWN_CHOICE_OF_THREADS = torch.get_num_threads()
DEVICES = ('auto', 'cpu', 'cuda')
ROUNDS = 6


def pick_device(name: str) -> torch.device:
    """
    Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device; ``auto`` is CUDA where it works.

    Raises ``ValueError`` for another name and for a CUDA device that is not there: falling back
    to the CPU in silence would be 50 times slower and nobody would know why.
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


def use_threads(count: int) -> None:
    """Let PyTorch compute on ``count`` threads of the CPU from now on; 0: as many as it likes."""
    torch.set_num_threads(count or OWN_CHOICE_OF_THREADS)


def fastest_dtype(generator: Generator, device: torch.device) -> torch.dtype:
    """
    Measure a 16-bit type against float32 for ``generator`` on ``device``; return the faster.

    bfloat16 on a CPU, on CUDA float16, which rounds eight times finer. Measured, not looked up:
    without AMX or tensor cores they are several times slower, and no flag says so reliably in a
    virtual machine. The best of runs in turn, because at its start a machine may be busy for a
    while. Takes half a second with the model fast. The generator is left on ``device`` in
    channels_last.
    """
    generator.to(device)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.rand(1, 3, 128, 128, device=device).to(memory_format=torch.channels_last)
    half = torch.float16 if device.type == 'cuda' else torch.bfloat16
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], half: []}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for dtype, runs in seconds.items():
                # Autocast leaves the weights as they are, so that nothing is rounded by measuring.
                with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                    start = time.perf_counter()
                    generator(image)
                    if device.type == 'cuda':
                        torch.cuda.current_stream(device).synchronize()
                    runs.append(time.perf_counter() - start)
    return min(seconds, key=lambda dtype: min(seconds[dtype]))
