"""
Sequences frame by frame, as a camera's past has them: each restored beside the one restored before.

What a generator learns from is what `video/history.py` will give it: its own last output, aligned
by the same `video/aligner.py`. So a sequence carries ``FLOW_MARGIN`` more pixels on every side than
is restored, as a flow needs to see where things went. The margin simulates the previous output: the
sharp frame with a little of the degraded one, and as much too dark or too bright as what was
restored: on a road that comes nearer for dozens of frames such errors add up, and in a crop all
that moves would come in fresh.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from iov_restore_ros.model.fusion import ASSUMED_SHUTTER, CELL, MOMENTS, Evidence, make_evidence
from iov_restore_ros.pictures.degradations.draw import normal, smooth_field, uniform
from iov_restore_ros.pictures.shaking import SAMPLES, STILL_BEFORE
from iov_restore_ros.pictures.warp import move
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.video.aligner import Previous, Trace, align, trace_of
from iov_restore_ros.video.before import Before
from iov_restore_ros.video.camera_path import TAU, Camera, Gyroscope, turned, turned_between
from iov_restore_ros.video.flow import Flow, judge, search

FLOW_MARGIN = 48  # pixels, a multiple of CELL
# Share of the frames that have nothing beside them, as stills and what follows a cut: the first of
# each sequence alone would be few.
ALONE = 0.3
UNRESTORED = 0.1  # share of the frames whose frame before was received only
LEFT_OVER = 0.4  # greatest share of the degraded frame in the margin of the one before
UNKNOWN = 0.4  # share of the sequences whose shutter is assumed
NOT_ASKED = 0.08  # and of those whose motion isn't told either
WRONG = 0.1  # share of the flows that are wrong in places, or everywhere, without contradiction
UNSURE = 0.08  # sigma of a known shutter, a share of it
# Of a gyroscope. Whoever connects one tells the exposure, too; with a shutter that is assumed the
# network learnt to believe no path.
UNKNOWN_BESIDE_IT = 0.05
UNUSED = 0.1  # share of those that aren't listened to
UNSURE_BESIDE_IT = 0.04
RATES = 100.0, 400.0  # samples a second, drawn by their logarithm
NOISE = 0.008  # rad/s, mean of the exponential draw of its sigma
BIAS = 0.006  # rad/s
LATE = 0.0008  # s, sigma of its clock
FOCAL = 0.015  # sigma of the focal length as it is told, a share of it
MISTAKEN = 0.02  # share of those that are wrong about an axis


class Unroll:
    """
    A batch of sequences on its way through a generator, which this doesn't know.

        for number in range(sequences.frames):
            image, evidence, target = sequences.frame(number)
            sequences.keep(restored)
    """

    def __init__(
        self, batch: tuple[Tensor, ...], task: str, device: torch.device, seed: int
    ) -> None:
        """
        Begin. ``batch`` is items of ``Sequences``: (degraded, sharp, shutter, rates, camera).

        uint8 N x T x 3 x H x W twice, H and W multiples of 4, and float32 N, N x S x 3, N x 4. What
        is drawn here depends on ``seed`` alone.
        """
        self.received, sharp, shutter, rates, cameras = batch
        self.degraded, self.sharp = (
            frames.to(device, non_blocking=True).float() / 255 for frames in (self.received, sharp)
        )
        self.frames = sharp.shape[1]
        self.task = task
        self.rng = torch.Generator().manual_seed(seed)
        # For the whole sequence, as it is wrong about all frames of a camera: such errors add up.
        self.gyroscopes = [self._gyroscope(*pair) for pair in zip(rates, cameras, strict=True)]
        self.told = self._told(shutter)
        self.traces: dict[int, list[Trace | None]] = {}  # of the last frame, of each sequence
        self.restored = torch.empty(0)  # the last frame, as ``frame`` returns it

    def frame(self, number: int) -> tuple[Tensor, Evidence | None, Tensor]:
        """
        Return a frame, what is known beside it and what it should be, without the margin.

        float32 N x 3 x (H - 2 FLOW_MARGIN) x (W - 2 FLOW_MARGIN). The first one has no frame before
        it, nor have a part of the others; these want the one before to be kept.
        """
        image, target = self.degraded[:, number], self.sharp[:, number]
        alone = number == 0 or bool(uniform(1, self.rng) < ALONE)
        evidence = self._still(number) if alone else self._evidence(number)
        return _inner(image), evidence, _inner(target)

    def keep(self, restored: Tensor) -> None:
        """Remember the last frame as it was restored; no gradient goes through time."""
        self.restored = restored.detach().clamp(0, 1)

    def _evidence(self, number: int) -> Evidence:
        before = self._before(number - 1)
        return self._gather(number, before, self._known(number, before))

    def _still(self, number: int) -> Evidence | None:
        """Return what is known of a frame that has none before it."""
        if not any(self.gyroscopes):
            return None
        return self._gather(number, self.degraded[:, number], self._known(number, None))

    def _gather(self, number: int, before: Tensor, known: list[Before | None]) -> Evidence:
        height, width = before.shape[-2:]
        cells = height // CELL, width // CELL
        planes = {
            'displacement': np.zeros((len(known), *cells, 2), np.float32),
            'trust': np.zeros((len(known), *cells, 3), np.float32),
            'motion': np.zeros((len(known), *cells, 2), np.float32),
            'path': np.zeros((len(known), *cells, MOMENTS * 2), np.float32),
            'told': np.zeros((len(known), 1, 1, 2), np.float32),
        }
        for index, one in enumerate(known):
            if one is not None:
                for name, array in one.planes().items():
                    planes[name][index] = array
        displacement, trust, *blurring = (self._tensor(array) for array in planes.values())
        outer = make_evidence(
            self.degraded[:, number], before, displacement, trust,
            (blurring[0], blurring[1], blurring[2]) if TASKS[self.task].blur else None,
        )
        return Evidence(
            _inner(outer.before), _inner(outer.along), _inner(outer.cues, FLOW_MARGIN // CELL)
        )

    def _known(self, number: int, before: Tensor | None) -> list[Before | None]:
        """Return what each sequence knows beside a frame, of the one ``before``, as it is told."""
        frames = _pictures(self.received[:, number])
        previous: list[Previous | None] = [None] * len(frames)
        if before is not None:
            restored = _pictures(before.mul(255).round().byte().cpu())
            traces = self.traces.get(number - 1) or [
                trace_of(frame, self.task) for frame in _pictures(self.received[:, number - 1])
            ]
            previous = list(map(Previous, restored, [1.0] * len(frames), traces))
        known, left = [], []
        for index, frame in enumerate(frames):
            share, told = self.told[index].tolist()
            path = turn = None
            gyroscope = self.gyroscopes[index]
            if gyroscope is not None and share:
                samples, camera, period = gyroscope
                where = samples, camera, frame.shape[:2], number * period
                path = turned(*where, TAU * share * period)
                between = turned_between(*where, period, share * period)
                turn = None if between is None else partial(_of_any_flow, between)
            aligned = align(frame, previous[index], self.task, turn, self._flow)
            known.append(aligned.before(share, told > 0, path))
            left.append(aligned.trace)
        self.traces = {number: left}
        return known

    def _gyroscope(
        self, rates: Tensor, camera: Tensor
    ) -> tuple[Gyroscope, Camera, float] | None:
        """Return what a real one would tell, its camera, and the time of a frame; None for none."""
        draws = normal(6, self.rng).tolist()
        unused, wrong, fewer, noise = uniform(4, self.rng).tolist()
        apart = NOISE * float(np.log(1 / max(noise, 1e-9))) * normal(tuple(rates.shape), self.rng)
        focal, x, y, period = camera.tolist()
        if not focal or unused < UNUSED:
            return None
        gyroscope = Gyroscope()
        rate = RATES[0] * (RATES[1] / RATES[0]) ** fewer
        every = max(1, round(SAMPLES / period / rate))
        measured = rates + apart + BIAS * torch.tensor(draws[:3])
        if wrong < MISTAKEN:
            measured = measured[:, [1, 0, 2]]
        late = LATE * draws[3]
        for number in range(0, len(rates), every):
            gyroscope.add(
                (number / SAMPLES - STILL_BEFORE) * period + late, *measured[number].tolist()
            )
        focal *= 1 + FOCAL * draws[4]
        matrix = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])
        return gyroscope, Camera(matrix, np.eye(3)), period

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
        """Return the shutter as given or as assumed, N x 2, see ``make_evidence``."""
        count = len(shutter)
        beside = torch.tensor([one is not None for one in self.gyroscopes])
        unsure = torch.where(beside, UNSURE_BESIDE_IT, UNSURE)
        told = shutter * (1 + unsure * normal(count, self.rng))
        draw = uniform(count, self.rng)
        known = (draw >= torch.where(beside, UNKNOWN_BESIDE_IT, UNKNOWN)) & ~shutter.isnan()
        share = torch.where(known, told, ASSUMED_SHUTTER)
        asked = beside | (draw >= NOT_ASKED)
        return torch.stack([torch.where(asked, share, 0.0), known.float()], 1)


def _of_any_flow(turn: np.ndarray, _: Flow) -> np.ndarray:
    return turn


def _inner(planes: Tensor, margin: int = FLOW_MARGIN) -> Tensor:
    return planes[..., margin:-margin, margin:-margin]


def _pictures(frames: Tensor) -> np.ndarray:
    """Turn uint8 N x 3 x H x W, on the CPU, into N x H x W x 3."""
    return frames.permute(0, 2, 3, 1).contiguous().numpy()
