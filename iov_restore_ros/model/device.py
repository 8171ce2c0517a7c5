"""Where and in which precision a generator runs best."""

import time

import torch

from iov_restore_ros.model.generators import Generator
from iov_restore_ros.model.int8 import int8_is_exact, to_int8

DEVICES = ('auto', 'cpu', 'cuda')
ROUNDS = 6
TRIED_SIZES = {'cpu': (64, 64), 'cuda': (720, 1280)}  # a small one does not fill a GPU


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


def fastest_precision(
    generator: Generator, device: torch.device, training: bool = False
) -> str:
    """
    Measure which precision is the fastest for ``generator`` on ``device``; return its name.

    To restore, candidates are float32; a 16-bit type: bfloat16 on a CPU, on CUDA float16, which
    rounds eight times finer; and int8 on a CPU. For ``training`` they are float32 and bfloat16,
    everywhere: float16 cannot hold small gradients, and none passes through int8.
    Measured, not looked up: without AMX or tensor cores 16 bits are several times slower, and no
    flag says so reliably in a virtual machine. Takes a third of a second with the model fast. The
    generator is left on ``device`` in channels_last.
    """
    generator.to(device)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    half = 'float16' if device.type == 'cuda' and not training else 'bfloat16'
    own = generator.body
    tried = {'float32': own, half: own}
    if not training and device.type == 'cpu' and int8_is_exact():
        tried['int8'] = to_int8(own)
    image = torch.rand(1, 3, *TRIED_SIZES[device.type], device=device)
    image = image.to(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {name: [] for name in tried}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other where other processes start as well
    try:
        with torch.inference_mode():
            for _ in range(ROUNDS):
                for name, generator.body in tried.items():
                    # Autocast leaves the weights as they are: nothing is rounded by measuring.
                    with torch.autocast(device.type, getattr(torch, half), enabled=name == half):
                        start = time.perf_counter()
                        generator(image)
                        if device.type == 'cuda':
                            torch.cuda.current_stream(device).synchronize()
                        seconds[name].append(time.perf_counter() - start)
    finally:
        generator.body = own
        torch.set_num_threads(threads)
    return min(seconds, key=lambda name: min(seconds[name]))  # the best: a machine may be busy
