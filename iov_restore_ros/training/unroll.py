"""
Sequences for training, restored frame by frame, each frame beside the previous output.

The generator trains on the same side information that `video/history.py` gives it in use: its own
previous output, aligned by the same `video/aligner.py`. Optical flow needs to see where content
went, so a sequence carries ``FLOW_MARGIN`` more pixels on every side than are restored. The margin
simulates the previous output. It is the sharp frame mixed with a little of the degraded frame, with
the same mean error in brightness as the restored part. Such errors add up on a road that approaches
for dozens of frames. Without them in the margin, content that moves into the crop would be free of
errors.
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
from iov_restore_ros.video.history import FADING

FLOW_MARGIN = 48  # pixels, a multiple of CELL
# Share of the sequences whose frames have no previous frame, like stills and frames after a cut.
# The first frames of the others alone would be too few. It was once drawn for each frame. Then few
# outputs came from more than three frames in a row, and errors that add up over ten went unseen.
ALONE = 0.3
UNRESTORED = 0.1  # share of the frames whose previous frame is unrestored
LEFT_OVER = 0.4  # greatest share of the degraded frame in the margin of the previous frame
UNKNOWN = 0.4  # share of the sequences whose exposure is assumed
NOT_ASKED = 0.08  # share of the sequences that get no motion either
WRONG = 0.1  # share of the flows that are wrong in places or everywhere, yet consistent
UNSURE = 0.08  # sigma of a known exposure, as a share of it
# The constants below are for a gyroscope. Who connects one usually gives the exposure, too. With an
# assumed exposure the network learnt to ignore the path.
UNKNOWN_BESIDE_IT = 0.05
UNUSED = 0.35  # share of the gyroscopes that are ignored: the camera shakes, and nothing says so
UNSURE_BESIDE_IT = 0.04
RATES = 100.0, 400.0  # samples a second, drawn log-uniformly
NOISE = 0.008  # rad/s, mean of its sigma, which is drawn exponentially
BIAS = 0.006  # rad/s
LATE = 0.0008  # s, sigma of the offset of its clock
FOCAL = 0.015  # sigma of the given focal length, as a share of it
MISTAKEN = 0.02  # share of the gyroscopes with two axes swapped


class Unroll:
    """
    A batch of sequences that a generator restores frame by frame. The caller runs the generator.

        for number in sequences.numbers:
            image, evidence, target = sequences.frame(number)
            sequences.keep(restored)

    ``learnt`` are the numbers of the frames to learn from. Those before are only restored, so that
    the errors of several frames add up at the cost of a third of a step.
    """

    def __init__(
        self, batch: tuple[Tensor, ...], task: str, device: torch.device, seed: int,
        burn_in: int = 0,
    ) -> None:
        """
        Take a ``batch`` of items of ``Sequences``: (degraded, sharp, shutter, rates, camera).

        The first two are uint8 N x T x 3 x H x W, with H and W multiples of 4. The others are
        float32 N, N x S x 3 and N x 4. All random draws depend on ``seed`` alone. The first 0 to
        ``burn_in`` frames are not learnt from, and T - ``burn_in`` are.
        """
        self.received, sharp, shutter, rates, cameras = batch
        self.degraded, self.sharp = (
            frames.to(device, non_blocking=True).float() / 255 for frames in (self.received, sharp)
        )
        self.task = task
        self.rng = torch.Generator().manual_seed(seed)
        self.alone = bool(uniform(1, self.rng) < ALONE)
        first = int(uniform(1, self.rng) * (burn_in + 1))
        self.learnt = range(first, first + sharp.shape[1] - burn_in)
        self.numbers = self.learnt if self.alone else range(self.learnt.stop)
        # One for the whole sequence: its errors are the same in all frames of a camera and add up.
        self.gyroscopes = [self._gyroscope(*pair) for pair in zip(rates, cameras, strict=True)]
        self.told = self._told(shutter)
        fading = [FADING[gyroscope is not None] for gyroscope in self.gyroscopes]
        self.fading = torch.tensor(fading, device=device).view(-1, 1, 1, 1)
        self.traces: dict[int, list[Trace | None]] = {}  # of the last frame, per sequence
        self.restored = torch.empty(0)  # the last frame, as ``frame`` returns it

    def frame(self, number: int) -> tuple[Tensor, Evidence | None, Tensor]:
        """
        Return (degraded frame, its evidence, sharp frame), all without the margin.

        The frames are float32 N x 3 x (H - 2 FLOW_MARGIN) x (W - 2 FLOW_MARGIN), 0..1. The first
        frame has no previous frame, and in a part of the sequences no frame has one. All others
        need the previous output, so call ``keep`` first.
        """
        image, target = self.degraded[:, number], self.sharp[:, number]
        alone = number == 0 or self.alone
        evidence = self._still(number) if alone else self._evidence(number)
        return _inner(image), evidence, _inner(target)

    def keep(self, restored: Tensor) -> None:
        """Keep the output of the last frame. Gradients do not flow through time."""
        self.restored = restored.detach().clamp(0, 1)

    def _evidence(self, number: int) -> Evidence:
        before = self._before(number - 1)
        return self._gather(number, before, self._known(number, before))

    def _still(self, number: int) -> Evidence | None:
        """Return the evidence of a frame without a previous one; None without any gyroscope."""
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
            _inner(outer.before), _inner(outer.undone), _inner(outer.cues, FLOW_MARGIN // CELL)
        )

    def _known(self, number: int, before: Tensor | None) -> list[Before | None]:
        """Return each sequence's side information for a frame; ``before`` is the previous one."""
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
        """Return a simulated gyroscope, its camera and the frame period in s; None without one."""
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
        """Return what `find_flow` returns, but without a check for cuts and at times wrong."""
        there, back = search(now, before)
        wrong, everywhere = uniform(2, self.rng).tolist()
        if wrong < WRONG:
            field = smooth_field(1, 4, now.shape[0], now.shape[1], self.rng)[0, 0].numpy()
            where = (field > 0.6) | (everywhere < 0.3)
            off = where[..., None] * (4 * normal(2, self.rng).numpy()).astype(np.float32)
            there, back = there + off, back - off
        return judge(there, back, now, move(restored, there), (height, width))

    def _before(self, number: int) -> Tensor:
        """Return frame ``number`` as a previous frame: restored or as received, with margin."""
        received, left_over = uniform(2, self.rng).tolist()
        degraded, sharp = self.degraded[:, number], self.sharp[:, number]
        if received < UNRESTORED:
            return degraded
        restored = self.restored
        if TASKS[self.task].blur:
            restored = restored + self.fading * (_inner(degraded) - restored)
        error = (restored - _inner(sharp)).mean((2, 3), keepdim=True)
        before = sharp + LEFT_OVER * left_over * (degraded - sharp) + error
        _inner(before).copy_(restored)
        return before.clamp(0, 1)

    def _told(self, shutter: Tensor) -> Tensor:
        """Return (exposure, whether it is known), N x 2, see ``make_evidence``."""
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
    """Return uint8 N x 3 x H x W, on the CPU, as N x H x W x 3."""
    return frames.permute(0, 2, 3, 1).contiguous().numpy()
