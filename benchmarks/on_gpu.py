"""
All that waits for a GPU, in one command: make cuda MINUTES=10 [PICTURES=DIR] [DEVICE=cpu]

Runs test/test_cuda.py and the benchmarks floor, stages and batches. For the rest of the time it
trains `fast` and `wei2021` for both tasks, from the shipped weights where there are any, at a batch
that fills the card. Sharp pictures lie on the card and are degraded there, as two cores cannot feed
it: the table says what rate the loader reaches on a core. Sequences need an optical flow, which a
CPU finds, so `fast` is trained on single pictures here; its fusion stays as it is.

Everything lies in `cuda/` then: what each benchmark printed, the folders of the runs, and their
checkpoints in pieces of 15 MiB (`cat checkpoint.pt.* > checkpoint.pt`).

Without CUDA one line says so. `--device cpu` tries all but the speed on one core.
"""

import argparse
import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from common import new_table, show
from skimage import data as photographs

from iov_restore_ros.model import WeightsError, shipped_weights
from iov_restore_ros.pictures.picture import Picture
from iov_restore_ros.pictures.write import write_picture
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.training.batches import Batches
from iov_restore_ros.training.config import read_config
from iov_restore_ros.training.processes import join
from iov_restore_ros.training.trainer import Trainer

PIECE = 15 * 2**20  # bytes
PRESETS = {'fast': [], 'wei2021': ['data.crop=256']}
FILLED = 0.85  # share of the card's free memory
TRIED = 2, 4  # crops of the steps by which the memory of a crop is found
MOST = 1024  # crops
TIMED = 4  # steps
LOADED = 64  # crops that the loader is timed on
FRAMES, SEQUENCES = 4, 3  # the same of sequences
BENCHMARKS_SHARE = 0.4  # of the time, at most
SMALL = {  # arguments on a CPU
    'floor': ['--models', 'fast', '--sizes', '160x96', '--rounds', '1'],
    'stages': ['--sizes', '160x96', '--rounds', '2'],
    'batches': ['--size', '160x96', '--cameras', '1', '2', '--batches', '2', '--rounds', '1'],
}


class Fit(NamedTuple):
    """What a step of a training takes."""

    batch: int
    rate: float  # crops/s
    fed: float  # crops/s that are cut on the device
    loader: float  # crops/s of the loader on one core
    frames: float  # frames/s of sequences on one core, with their flow
    memory: float  # GB, of the card


def settings(preset: str, task: str, pictures: Path, device: str) -> list[str]:
    """Return the settings of a training but for its length and batch."""
    try:
        start = [f'start_from={shipped_weights(preset, task)}']
    except WeightsError:
        start = []
    return [
        f'config/train/fast_{task}.yaml', f'preset={preset}', f'device={device}',
        f'data.root={pictures}', 'data.frames=1', 'data.on_device=true', 'fusion_rate=0',
        'rate={start: 2e-4, end: 1e-6, warm_up: 20}', 'stages=[{steps: 1000}]', *PRESETS[preset],
        *start, *(['data.crop=64'] if device == 'cpu' else []),
    ]


def fit(given: list[str], output: str) -> Fit:
    """Find the batch that fills the card, and the rates; runs in a process of its own."""
    def trainer_of(batch: int) -> Trainer:
        config = read_config([*given, f'batch={batch}', f'output={output}'])
        return Trainer(config, join(config.device))

    def step(trainer: Trainer) -> float:
        reader = trainer.read()
        trainer.take_step(next(reader))
        started = time.perf_counter()
        for _ in range(steps):
            trainer.take_step(next(reader))
        if on_cuda:
            torch.cuda.synchronize()
        return steps * trainer.config.batch / (time.perf_counter() - started)

    on_cuda = any(one.startswith('device=cuda') for one in given)
    steps = TIMED if on_cuda else 1
    batch = TRIED[0]
    if on_cuda:
        peaks = []
        for tried in TRIED:
            trainer = trainer_of(tried)
            torch.cuda.reset_peak_memory_stats()
            step(trainer)
            peaks.append(torch.cuda.max_memory_allocated())
        of_crop = (peaks[1] - peaks[0]) / (TRIED[1] - TRIED[0])
        rest = FILLED * torch.cuda.mem_get_info()[0] - peaks[0]
        batch = max(batch, min(MOST, 2 * int(rest / of_crop / 2)))
    while True:
        try:
            trainer = trainer_of(batch)
            rate = step(trainer)
            break
        except torch.cuda.OutOfMemoryError:
            batch //= 2
    memory = torch.cuda.max_memory_allocated() / 1e9 if on_cuda else 0.0
    started = time.perf_counter()
    assert trainer.batches.on_device
    trainer.batches.on_device.batch(0, batch)
    if on_cuda:
        torch.cuda.synchronize()
    fed = batch / (time.perf_counter() - started)
    crops = trainer.batches.crops
    for number in range(LOADED):  # decodes what is to be decoded
        crops[number]
    started = time.process_time()  # of a core, whatever else it does
    for number in range(LOADED):
        crops[number]
    loader = LOADED / (time.process_time() - started)
    return Fit(batch, rate, fed, loader, sequence_rate(given), memory)


def sequence_rate(given: list[str]) -> float:
    """Return how many frames a second a core makes and aligns, as sequences need; not run."""
    config = read_config([
        *given, 'preset=fast', 'data.crop=144', f'data.frames={FRAMES}', 'data.on_device=false',
        'batch=1', 'start_from=null', 'output=unused',
    ])
    batches = Batches(config, torch.device('cpu'))
    next(iter(batches.read([0])))
    started = time.process_time()
    for number, batch in enumerate(batches.read(range(1, 1 + SEQUENCES))):
        unroll = batches.unroll(batch, number)
        for frame in range(FRAMES):
            image, _, _ = unroll.frame(frame)
            unroll.keep(image)
    return FRAMES * SEQUENCES / (time.process_time() - started)


def run(command: list[str], log: Path, seconds: float) -> tuple[str, str]:
    """
    Run ``command`` for ``seconds`` at most, then interrupt it.

    Returns its status, '' where all went well, and the last line that it printed.
    """
    with log.open('w') as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            code = process.wait(max(1.0, seconds))
            status = f'failed, {code}' if code else ''
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            status = 'out of time'
            try:
                status = '' if process.wait(60) == 0 else status  # a training saves and ends well
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    lines = log.read_text(errors='replace').split('\n')
    return status, next((line.strip() for line in reversed(lines) if line.strip()), '')


def cut(path: Path) -> int:
    """Cut ``path`` into pieces beside it, in place of it; return how many."""
    count = 0
    with path.open('rb') as file:
        while piece := file.read(PIECE):
            path.with_name(f'{path.name}.{count:03d}').write_bytes(piece)
            count += 1
    path.unlink()
    return count


def losses(log: Path) -> str:
    """Return the first and the last loss of log.csv, means over 50 steps."""
    with log.open() as file:
        rows = [float(row['loss']) for row in csv.DictReader(file)]
    return f'{rows[0]:.4f} -> {rows[-1]:.4f}' if rows else ''


def main() -> None:
    """Run all and print the tables."""
    parser = argparse.ArgumentParser(description='All that waits for a GPU, in one command.')
    parser.add_argument('--minutes', type=float, default=10)
    parser.add_argument('--pictures', type=Path, help='sharp ones (default: three photographs)')
    parser.add_argument('--device', default='cuda', help='cpu: try all but the speed')
    parser.add_argument('--output', type=Path, default=Path('cuda'))
    options = parser.parse_args()
    if options.device != 'cpu' and not torch.cuda.is_available():
        print('No CUDA device is found here, so nothing was run. --device cpu tries the command.')
        return
    options.output = options.output.resolve()
    if options.pictures:
        options.pictures = options.pictures.resolve()
    os.chdir(Path(__file__).parents[1])
    if options.device == 'cpu':
        os.environ |= {'OMP_NUM_THREADS': '1'}
        torch.set_num_threads(1)
    end = time.monotonic() + 60 * options.minutes
    options.output.mkdir(parents=True, exist_ok=True)
    done = new_table('tests and benchmarks', 'what', 's', 'status', 'printed', 'last line')
    small = SMALL if options.device == 'cpu' else {}
    commands = {'test_cuda': ['-m', 'pytest', '-q', 'test/test_cuda.py']} | {
        name: [f'benchmarks/{name}.py', '--device', options.device, *small.get(name, [])]
        for name in ('floor', 'stages', 'batches')
    }
    last = end - 60 * options.minutes * (1 - BENCHMARKS_SHARE)
    for name, command in commands.items():
        started, log = time.monotonic(), options.output / f'{name}.txt'
        status, line = run([sys.executable, *command], log, last - started)
        line = line if name == 'test_cuda' or status else ''
        done.add_row(name, f'{time.monotonic() - started:.0f}', status or 'done', log.name, line)

    trained = new_table(
        'training', 'run', 's', 'batch', 'card GB', 'crops/s', 'cut on the device/s',
        'loader/s a core', 'cores for that', 'frames/s a core', 'steps', 'loss', 'pieces')
    runs = [(preset, task) for preset in PRESETS for task in TASKS]
    with tempfile.TemporaryDirectory() as folder:
        pictures = options.pictures or Path(folder) / 'pictures'
        if not options.pictures:
            for name in ('coffee', 'astronaut', 'chelsea'):
                write_picture(pictures / f'{name}.png', Picture(getattr(photographs, name)()))
        for number, (preset, task) in enumerate(runs):
            seconds = (end - time.monotonic()) / (len(runs) - number)
            trained.add_row(*train(preset, task, pictures, seconds, options))
    show(join(options.device).device, done, trained)


def train(
    preset: str, task: str, pictures: Path, seconds: float, options: argparse.Namespace
) -> list[str]:
    """Train for ``seconds`` with what it takes to find the batch; return the row of the table."""
    started, name = time.monotonic(), f'{preset}_{task}'
    given, output = settings(preset, task, pictures, options.device), options.output / name
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context('spawn').Pool(1) as p:
        found = p.apply(fit, (given, folder))
    left = seconds - (time.monotonic() - started)
    steps = max(1, int(0.8 * left * found.rate / found.batch))  # the rest is for the start
    status, line = run(
        [sys.executable, '-m', 'iov_restore_ros.training.train', *given, f'batch={found.batch}',
         f'stages=[{{steps: {steps}}}]', f'output={output}'],
        options.output / f'{name}.txt', left,
    )
    took = time.monotonic() - started
    row = [name, f'{took:.0f}', str(found.batch), f'{found.memory:.1f}', f'{found.rate:.2f}',
           f'{found.fed:.0f}', f'{found.loader:.0f}', f'{found.rate / found.loader:.1f}',
           f'{found.frames:.1f}']
    if status:
        return [*row, '', f'{status}: {line[:60]}', '']
    pieces = cut(output / 'checkpoint.pt')
    return [*row, str(steps), losses(output / 'log.csv'), str(pieces)]


if __name__ == '__main__':
    main()
