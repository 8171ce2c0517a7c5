"""
Sequences frame by frame, as a camera's past has them: each restored beside the one restored before.

What a generator learns from is what `video/history.py` will give it: its own last output, aligned
by the same `video/aligner.py`. So a sequence carries ``MARGIN`` more pixels on every side than is
restored, as a flow needs to see where things went. Out there stands, for what was restored before,
the sharp frame with a little of the degraded one, and as much too dark or too bright as what was
restored: on a road that comes nearer for dozens of frames such errors add up, and in a crop all
that moves would come in fresh.
"""

import numpy as np
import torch
from torch import Tensor

from iov_restore_ros.model.fusion import ASSUMED_SHUTTER, CELL, Evidence, gather
from iov_restore_ros.pictures.degradations.draw import normal, smooth_field, uniform
from iov_restore_ros.pictures.warp import move
from iov_restore_ros.video.aligner import Previous, Trace, align, trace_of
from iov_restore_ros.video.before import Before
from iov_restore_ros.video.flow import Flow, judge, search

MARGIN = 48  # pixels, a multiple of CELL
# Share of the frames that have nothing beside them, as stills and what follows a cut: the first of
# each sequence alone would be few.
ALONE = 0.3
UNRESTORED = 0.1  # share of the frames whose frame before was received only
LEFT_OVER = 0.4  # greatest share of the degraded frame in the margin of the one before
UNKNOWN = 0.4  # share of the sequences whose shutter is assumed
NOT_ASKED = 0.08  # and of those whose motion isn't told either
WRONG = 0.1  # share of the flows that are wrong in places, or everywhere, without contradiction
UNSURE = 0.08  # sigma of a known shutter, a share of it


class Unroll:
    """
    A batch of sequences on its way through a generator, which this doesn't know.

        for number in range(sequences.frames):
            image, evidence, target = sequences.frame(number)
            sequences.keep(restored)
    """

    def __init__(
        self, batch: tuple[Tensor, Tensor, Tensor], task: str, device: torch.device, seed: int
    ) -> None:
        """
        Begin. ``batch`` is items of ``Sequences``: (degraded, sharp, shutter).

        uint8 N x T x 3 x H x W twice, H and W multiples of 4, and float32 N. What is drawn here
        depends on ``seed`` alone.
        """
        self.received, sharp, shutter = batch
        self.degraded, self.sharp = (
            frames.to(device, non_blocking=True).float() / 255 for frames in (self.received, sharp)
        )
        self.frames = sharp.shape[1]
        self.task = task
        self.rng = torch.Generator().manual_seed(seed)
        # For the whole sequence, as it is wrong about all frames of a camera: such errors add up.
        self.told = self._told(shutter)
        self.traces: dict[int, list[Trace | None]] = {}  # of the last frame, of each sequence
        self.restored = torch.empty(0)  # the last frame, N x 3 x (H - 2 MARGIN) x (W - 2 MARGIN)

    def frame(self, number: int) -> tuple[Tensor, Evidence | None, Tensor]:
        """
        Return a frame, what is known beside it and what it should be, without the margin.

        float32 N x 3 x (H - 2 MARGIN) x (W - 2 MARGIN). The first one has nothing beside it, nor
        has a part of the others; these want the one before to be kept.
        """
        image, target = self.degraded[:, number], self.sharp[:, number]
        alone = number == 0 or bool(uniform(1, self.rng) < ALONE)
        evidence = None if alone else self._evidence(number)
        return _inner(image), evidence, _inner(target)

    def keep(self, restored: Tensor) -> None:
        """Remember the last frame as it was restored; no gradient goes through time."""
        self.restored = restored.detach().clamp(0, 1)

    def _evidence(self, number: int) -> Evidence:
        before = self._before(number - 1)
        known = self._known(number, before)
        flows = [one.flow for one in known]
        ways, trusts = (np.stack(planes) for planes in zip(*flows, strict=True))
        motions = [one.motion for one in known if one.motion is not None]
        motion = self._tensor(np.stack(motions)) if motions else None
        outer = gather(
            self.degraded[:, number], before, self._tensor(ways), self._tensor(trusts), motion
        )
        return Evidence(
            _inner(outer.before), _inner(outer.along), _inner(outer.cues, MARGIN // CELL)
        )

    def _known(self, number: int, before: Tensor) -> list[Before]:
        """Return what each sequence knows beside a frame of the one ``before``, as it is told."""
        frames, received = (_pictures(self.received[:, n]) for n in (number, number - 1))
        restored = _pictures(before.mul(255).round().byte().cpu())
        traces = self.traces.get(number - 1) or [trace_of(frame, self.task) for frame in received]
        aligned = [
            align(frame, Previous(pixels, 1.0, trace), self.task, self._flow)
            for frame, pixels, trace in zip(frames, restored, traces, strict=True)
        ]
        self.traces = {number: [one.trace for one in aligned]}
        told = zip(aligned, self.told.tolist(), strict=True)
        befores = [one.before(share, known > 0) for one, (share, known) in told]
        return [one for one in befores if one is not None]  # all: `_flow` always finds one

    def _tensor(self, planes: np.ndarray) -> Tensor:
        """Return N x H x W x C as N x C x H x W on the device."""
        return torch.from_numpy(planes).permute(0, 3, 1, 2).to(self.degraded.device)

    def _flow(
        self, now: np.ndarray, before: np.ndarray, height: int, width: int, *, restored: np.ndarray
    ) -> Flow:
        """Return what `find_flow` finds, also at a cut, and now and then a wrong one."""
        there, back = search(now, before)
        wrong, everywhere = uniform(2, self.rng).tolist()
        if wrong < WRONG:
            field = smooth_field(1, 4, now.shape[0], now.shape[1], self.rng)[0, 0].numpy()
            where = (field > 0.6) | (everywhere < 0.3)
            off = where[..., None] * (4 * normal(2, self.rng).numpy()).astype(np.float32)
            there, back = there + off, back - off
        return judge(there, back, now, move(restored, there), (height, width))

    def _before(self, number: int) -> Tensor:
        """Return frame ``number`` as it is known from before, with margin."""
        received, left_over = uniform(2, self.rng).tolist()
        degraded, sharp = self.degraded[:, number], self.sharp[:, number]
        if received < UNRESTORED:
            return degraded
        error = (self.restored - _inner(sharp)).mean((2, 3), keepdim=True)
        before = sharp + LEFT_OVER * left_over * (degraded - sharp) + error
        _inner(before).copy_(self.restored)
        return before.clamp(0, 1)

    def _told(self, shutter: Tensor) -> Tensor:
        """Return the shutter as somebody gave it or as it is assumed, N x 2, see ``gather``."""
        count = len(shutter)
        told = shutter * (1 + UNSURE * normal(count, self.rng))
        draw = uniform(count, self.rng)
        known = (draw >= UNKNOWN) & ~shutter.isnan()
        share = torch.where(known, told, ASSUMED_SHUTTER)
        return torch.stack([torch.where(draw < NOT_ASKED, 0.0, share), known.float()], 1)


def _inner(planes: Tensor, margin: int = MARGIN) -> Tensor:
    return planes[..., margin:-margin, margin:-margin]


def _pictures(frames: Tensor) -> np.ndarray:
    """Turn uint8 N x 3 x H x W, on the CPU, into N x H x W x 3."""
    return frames.permute(0, 2, 3, 1).contiguous().numpy()
