"""
A sequence restored frame by frame, as a camera's `inference/past.py` does it while it drives.

For what is measured and drawn: the frames come at an even rate, none is missing, and the generator
is one that is at hand, on its device and in its precision.
"""

import numpy as np
import torch
from torch import Tensor

from iov_restore_ros.model import Generator
from iov_restore_ros.model.fusion import ASSUMED_SHUTTER, Evidence, gather
from iov_restore_ros.pictures.flow import SMALLEST, find_flow, look, speed, while_open
from iov_restore_ros.pictures.shutter_gauge import ShutterGauge


class Recurrence:
    """One sequence on its way through a generator: each frame beside the one restored before."""

    def __init__(self, generator: Generator, task: str, shutter: float = 0.0) -> None:
        """
        Begin. ``generator`` is in evaluation mode, and of those that restore video (``VIDEO``).

        ``shutter`` is the share (0..1) of the time between two frames that it was open; 0: unknown,
        it is looked for in the frames and assumed as long as it isn't found. Of use to deblur only.
        """
        self.generator, self.task, self.shutter = generator, task, shutter
        self._device = next(generator.parameters()).device
        self._gauge = ShutterGauge()
        self._before: np.ndarray | None = None  # as it was restored
        self._small: np.ndarray | None = None  # what to look for the flow in, if not in that
        self._way: np.ndarray | None = None  # of the frame before

    @torch.inference_mode()
    def restore(self, frame: np.ndarray) -> np.ndarray:
        """
        Restore the next frame, uint8 H x W x 3, RGB, of any size; so is what is returned.

        After a cut or another size it is a still. NaN becomes black, as in ``restore_image``.
        """
        image = self._tensor(frame).div(255)
        restored = self.generator(image, self._evidence(frame, image))[0]
        restored = restored.nan_to_num().clamp(0, 1).mul(255).round().byte()
        self._before = restored.permute(1, 2, 0).cpu().numpy()
        return self._before

    def _evidence(self, frame: np.ndarray, image: Tensor) -> Evidence | None:
        before, then, earlier = self._before, self._small, self._way
        self._way = None
        if min(frame.shape[:2]) < SMALLEST:
            return None
        rain = self.task == 'derain'
        small = look(frame, rain)
        if not rain:
            self._small = small
        if before is None or before.shape != frame.shape:
            return None
        restored = look(before, rain)
        came = restored if then is None else then
        flow = find_flow(small, came, *frame.shape[:2], restored=restored)
        if flow is None:
            return None
        self._way = flow.way
        way, trust = (self._tensor(plane) for plane in flow)
        motion = None if rain else self._tensor(self._motion(frame, speed(flow.way, earlier)))
        return gather(image, self._tensor(before).div(255), way, trust, motion)

    def _motion(self, frame: np.ndarray, moving: np.ndarray) -> np.ndarray:
        """Return what `Before.motion` is in `inference/past.py`."""
        if not self.shutter:
            self._gauge.watch(frame, moving, 1.0)
        share = self.shutter or self._gauge.share()
        return while_open(moving, share or ASSUMED_SHUTTER, share > 0)

    def _tensor(self, planes: np.ndarray) -> Tensor:
        """Return H x W x C as float32 1 x C x H x W on the generator's device."""
        tensor = torch.from_numpy(np.ascontiguousarray(planes)).to(self._device)
        return tensor.permute(2, 0, 1)[None].float()
