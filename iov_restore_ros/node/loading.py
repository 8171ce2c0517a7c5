"""Loading generators: at configure, and in the background while others are in use."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger

from iov_restore_ros.compute.cpu import use_threads
from iov_restore_ros.finder_options import FLAGS
from iov_restore_ros.inference import RestoreError, Restorer
from iov_restore_ros.model import FINDERS, WeightsError, load_finder, read_info
from iov_restore_ros.node.parameters import WEIGHTS
from iov_restore_ros.tasks import TASKS

WARM_UP_SIZE = 360, 640  # pixels
MODEL_PARAMETERS = ('model', *(f'{name}_weights' for name in WEIGHTS), *FLAGS.values())
# PyTorch raises RuntimeError, also if the memory of the device is full.
LOAD_ERRORS = (WeightsError, RestoreError, ValueError, RuntimeError, MemoryError)


def weights_problem(parameter: str, path: str) -> str | None:
    """Return why the file that a parameter names has no weights for its task, or None."""
    name = parameter.removesuffix('_weights')
    if name not in WEIGHTS or not path:
        return None
    try:
        if name in FINDERS:
            load_finder(name, Path(path))
        else:
            read_info(Path(path), name)
    except WeightsError as error:
        return str(error)
    return None


def load_restorer(value: Mapping[str, Any], log: RcutilsLogger) -> Restorer:
    """
    Load the model of the parameters ``value``, and run each generator once; report to ``log``.

    Raises one of ``LOAD_ERRORS``.
    """
    started = time.monotonic()
    log.info(f'loading {value["model"]} ...')
    use_threads(value['threads'])
    restorer = Restorer(
        model=value['model'],
        weights={name: value[f'{name}_weights'] for name in WEIGHTS},
        device=value['device'],
        precision=value['precision'],
        batch=value['max_batch'],
        find=[name for name, flag in FLAGS.items() if value[flag]],
    )
    try:
        for task in TASKS:
            if task not in restorer.tasks:
                log.warning(
                    f'{task}: no weights, neither shipped nor as {task}_weights: what mode {task} '
                    'gets goes out as on_error says'
                )
                continue
            log.info(f'{task}: {restorer.weights[task]}, sha256 {restorer.sha256[task][:12]}; '
                     'warming up ...')
            restorer.restore([np.zeros((*WARM_UP_SIZE, 3), np.uint8)], task)
    except LOAD_ERRORS:
        restorer.close()
        raise
    log.info(
        f'{restorer.model} on {restorer.device} in {restorer.precision}, '
        f'ready in {time.monotonic() - started:.1f} s'
    )
    return restorer


class BackgroundLoader:
    """
    Calls ``load`` with the newest request, in its own thread.

    ``problem`` says why the last request failed; empty if it succeeded.
    """

    def __init__(self, load: Callable[[Mapping[str, Any]], None], log: RcutilsLogger) -> None:
        self.problem = ''
        self._load = load
        self._log = log
        self._requests: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        # A daemon, because the process may end while a large model is being loaded.
        self._thread = threading.Thread(target=self._run, name='load', daemon=True)
        self._thread.start()

    def request(self, value: Mapping[str, Any]) -> None:
        """Load the model of ``value`` as soon as the current loading ends."""
        self._requests.put(value)

    def stop(self, timeout: float) -> None:
        """End the thread. Raises ``TimeoutError`` if a model is still loading after ``timeout``."""
        self._requests.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f'loading takes longer than {timeout} s: it is abandoned')

    def _run(self) -> None:
        while (value := self._requests.get()) is not None:
            if not self._requests.empty():  # there is a newer request
                continue
            try:
                self._load(value)
                self.problem = ''
            except Exception as error:  # noqa: BLE001  of any kind: the previous model still works
                self.problem = f'the previous model stays in use: {error}'
                self._log.error(self.problem)
