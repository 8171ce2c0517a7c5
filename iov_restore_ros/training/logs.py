"""What a run leaves to look at: log.csv, curves.png, TensorBoard's events, sample pictures."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from iov_restore_ros.training.table import Table
from iov_restore_ros.whole import write_whole

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:  # pip install tensorboard
    SummaryWriter = None  # type: ignore[assignment, misc]
try:
    from iov_restore_ros.training.curves import draw_curves
except ImportError:  # pip install matplotlib
    draw_curves = None  # type: ignore[assignment]

SAMPLES = 4  # pictures


class Logs:
    """The logs of a run in ``folder``, from ``step`` on; see ``Table``."""

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.table = Table(folder / 'log.csv', step)
        self.events = None
        if SummaryWriter is not None:
            self.events = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add one row to log.csv, and the same to TensorBoard."""
        self.table.append({'step': str(step)} | {k: f'{v:.6g}' for k, v in values.items()})
        if self.events:
            for name, value in values.items():
                self.events.add_scalar(name, value, step)
            self.events.flush()

    def draw(self) -> None:
        """Write curves.png, where matplotlib is installed."""
        rows = self.table.rows()
        if draw_curves is not None and rows:
            draw_curves(rows, self.folder / 'curves.png')

    def sample(self, step: int, *columns: Tensor) -> None:
        """
        Write samples/STEP.jpg: a row for each picture, with one column for each tensor.

        The tensors are float N x 3 x H x W, RGB, 0..1.
        """
        page = torch.cat([column[:SAMPLES] for column in columns], dim=3)
        page = torch.cat(list(page), dim=1).clamp(0, 1).mul(255).round().byte().cpu()
        image = np.ascontiguousarray(page.permute(1, 2, 0).numpy()[..., ::-1])
        write_whole(
            self.folder / 'samples' / f'{step:07d}.jpg', cv2.imencode('.jpg', image)[1].tobytes()
        )
