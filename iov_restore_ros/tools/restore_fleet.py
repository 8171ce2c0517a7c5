"""
Restore a fleet's recorded drives, on the GPUs or CPUs of one machine or of a Ray cluster.

    python -m iov_restore_ros.tools.restore_fleet SOURCE... --output DIR --task derain

SOURCE is a bag, a video, a folder of frames, or a folder that contains them. SOURCE and DIR may be
URIs (s3://, gs://, ...). The same command continues what is not done yet; see docs/fleet.md.
"""

from __future__ import annotations  # so that --help works without Ray

import argparse
import hashlib
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from iov_restore_ros.finder_options import finder_files
from iov_restore_ros.model import (
    WeightsError,
    load_finder,
    load_weights,
    shipped_weights,
)
from iov_restore_ros.outputs import OutputError
from iov_restore_ros.stop import INTERRUPTED
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.tools.bag_imu import add_imu_options, imu_options_of
from iov_restore_ros.tools.restore_files import add_restorer_options

# Before Ray is imported: Ray must send no usage statistics.
os.environ['RAY_USAGE_STATS_ENABLED'] = '0'

MISSING = ''
try:
    import ray

    from iov_restore_ros.tools.fleet_drives import FleetError, Piece, find_drives
    from iov_restore_ros.tools.fleet_work import Account, Work
    from iov_restore_ros.tools.fleet_worker import DONE, Outcome, Settings, Worker, as_row
except ImportError as error:
    MISSING = f"{error}: pip install 'ray[data]' rosbags, or the extra: pip install '.[fleet]'"

SPLIT = 18_000  # frames of a piece, ten minutes; results may differ slightly after a cut
ATTEMPTS = 4  # rounds without a finished piece before the rest is given up
EVERY = 60.0  # s between two lines of progress without a terminal
STORE = 200 << 20  # bytes of shared memory of our own Ray, which only transports names


def restore_pieces(
    pieces: list[Piece], settings: Settings, workers: int, resources: dict[str, Any], last: bool
) -> Iterator[tuple[Piece, Outcome]]:
    """
    Restore ``pieces`` with Ray Data, and yield each one with its outcome when it is done.

    It yields nothing for pieces whose worker died. If no worker can start, it ends; on the ``last``
    attempt it raises Ray's error.
    """
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # a worker that dies does not end the others
    context.enable_progress_bars = False
    logging.getLogger('ray.data').setLevel(logging.CRITICAL)  # pages for a worker that dies
    rows = ray.data.from_items([as_row(p) for p in pieces], override_num_blocks=len(pieces))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)  # of max_..., see setup.py
        done = rows.map(
            Worker,  # type: ignore[arg-type]  # Ray calls an instance
            fn_constructor_args=[settings],
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            # The piece is done again in the next round: Ray's own retry would wait for a place
            # for this very actor, which there may never be when a node is gone.
            max_restarts=0, max_task_retries=0, **resources,
        )
    try:
        for row in done.iter_rows():
            yield Piece.from_row(json.loads(row['piece'])), json.loads(row['outcome'])
    except ray.exceptions.RayError as error:
        # Of a worker that died as it began; a setting that none can begin with ends it soon.
        if last:
            raise
        print(f'no worker: {str(error).strip().splitlines()[-1]}', file=sys.stderr)


def restore_fleet(
    sources: list[str], settings: Settings, split: int, workers: int, resources: dict[str, Any]
) -> list[Outcome]:
    """
    Restore the drives in ``sources`` that are not done; return the outcomes of all.

    A drive that could not be restored has an `error`. Pieces have about ``split`` frames; with 0
    drives stay whole. Ray must be running. Each of ``workers`` (0: as many as fit) takes
    ``resources``. Raises ``FleetError``, ``OutputError`` and ``OSError`` for wrong sources and
    outputs.
    """
    work = Work(find_drives(sources, settings.output), settings)
    with showing(work.account):
        work.begin(split)
        fruitless = 0
        while fruitless < ATTEMPTS and (pieces := work.pieces()):
            fruitless += 1
            count = max(1, min(workers or room_for(resources), len(pieces)))
            last = fruitless == ATTEMPTS
            for piece, outcome in restore_pieces(pieces, settings, count, resources, last):
                fruitless = 0
                work.take(piece, outcome)
            if left := work.pieces():
                print(f'workers died; {len(left)} pieces are repeated', file=sys.stderr)
        work.finish(f'its worker died, {ATTEMPTS} times: out of memory, or see the logs of Ray')
    return work.account.outcomes


@contextmanager
def showing(account: Account) -> Iterator[None]:
    """Show the progress on stderr: continuously in a terminal, else a line every minute."""
    console, over = Console(stderr=True), threading.Event()
    if console.is_terminal:
        with console.status('') as status:
            def show() -> None:
                while not over.wait(0.5):
                    status.update(str(account))

            yield from _beside(show, over)
    else:
        def show() -> None:
            while not over.wait(EVERY):
                print(account, file=sys.stderr, flush=True)

        yield from _beside(show, over)
    print(account, file=sys.stderr)


def _beside(show: Callable[[], None], over: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings of the options. Raises ``WeightsError`` for unusable weights."""

    weights = Path(options.weights or shipped_weights(options.model, options.task)).absolute()
    load_weights(weights, options.task, options.model)
    finders = []
    if TASKS[options.task].clears:
        for name, path in finder_files(options).items():
            load_finder(name, path)
            finders.append((name, str(path.absolute()), _sha256(path)))
    return Settings(
        options.output, options.task, options.model, str(weights), _sha256(weights),
        options.device, options.precision, options.shutter, imu_options_of(options),
        tuple(finders),
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Restore a fleet's recorded drives.")
    parser.add_argument(
        'source', nargs='+',
        help='a bag, a video, a folder of frames, or a folder with these; a path or URI',
    )
    parser.add_argument('--output', required=True, help='folder of the results; a path or URI')
    add_restorer_options(parser)
    add_imu_options(parser)
    parser.add_argument('--address', help='address of a Ray cluster: auto, ray://HOST:10001')
    parser.add_argument('--cpus', type=int, default=1, help='CPUs of each worker without a GPU')
    parser.add_argument(
        '--workers', type=int, default=0,
        help='default: one per GPU; without GPUs as many as fit in the cluster, or 1 without it',
    )
    parser.add_argument(
        '--split', type=int, default=SPLIT, metavar='FRAMES',
        help=f'frames of the pieces that long drives are cut into (default: {SPLIT}); 0: no cuts',
    )
    options = parser.parse_args()
    if MISSING:
        parser.error(MISSING)
    if options.cpus < 1 or options.workers < 0 or options.split < 0:
        parser.error('--cpus must be at least 1, --workers and --split at least 0')

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        settings = settings_of(options)
        start_ray(options)
        resources = resources_of(options)
        outcomes = restore_fleet(
            options.source, settings, options.split, options.workers, resources
        )
    except (WeightsError, FleetError, OutputError, OSError, ConnectionError) as error:
        parser.error(str(error))
    except ray.exceptions.RayError as error:  # no worker could start
        parser.error(str(error).strip().splitlines()[-1])
    except KeyboardInterrupt:
        print('stopped; the same command continues', file=sys.stderr)
        return INTERRUPTED
    return tell(outcomes)


def tell(outcomes: list[Outcome]) -> int:
    """Print the problems of the drives; return the exit status, 0 if all are done."""
    failed = [o for o in outcomes if 'error' in o]
    for outcome in outcomes:
        for line in outcome.get('failures', ()):
            print(f'not restored: {outcome["source"]}: {line}', file=sys.stderr)
        for line in outcome.get('short', ()):
            print(f'missing: {outcome["source"]}: {line}', file=sys.stderr)
    for outcome in failed:
        print(f'failed: {outcome["source"]}: {outcome["error"]}', file=sys.stderr)
    return int(any(o.get('state', DONE) != DONE or o.get('passed') for o in outcomes))


def start_ray(options: argparse.Namespace) -> None:
    """Join the cluster at ``--address``; without it start our own Ray of the requested size."""
    if options.address:
        ray.init(options.address, log_to_driver=False, logging_level=logging.ERROR)
        return
    import torch

    gpus = 0 if options.device == 'cpu' else torch.cuda.device_count()
    ray.init(
        'local', num_cpus=max(1, options.workers) * options.cpus, num_gpus=gpus,
        include_dashboard=False, object_store_memory=STORE, log_to_driver=False,
        logging_level=logging.ERROR, _node_ip_address='127.0.0.1',
    )


def resources_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the resources of a worker: a GPU if there are any, else CPUs."""
    if options.device != 'cpu' and ray.cluster_resources().get('GPU', 0):
        return {'num_gpus': 1}
    return {'num_cpus': options.cpus}


def room_for(resources: dict[str, Any]) -> int:
    """Return how many workers with ``resources`` fit on the current nodes."""
    [(kind, each)] = resources.items()
    there = ray.cluster_resources().get({'num_gpus': 'GPU', 'num_cpus': 'CPU'}[kind], 0)
    return int(there // each)


if __name__ == '__main__':
    sys.exit(main())
