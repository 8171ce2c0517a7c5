"""
Whether a gyroscope agrees with the rotations in the frames, at which clock offset, and if not, why.

Only changes of the rotations are compared. What stays constant for seconds is left out: a bias is
no error of the setup, and a vehicle that drives past a wall looks like one that turns.
"""

from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from iov_restore_ros.video.seen_turn import SeenTurn

KEPT = 90  # pairs of frames
REACH = 0.06  # s around the start of the search for the offset
STEPS = np.linspace(-REACH, REACH, 61)
FLOOR = 0.06  # square pixels: error of the rotations of good flows
DOUBT = 0.1  # square pixels: error of the rotations of other flows
SLIGHT = 1.0  # square pixels: smaller motion has less weight
USUAL = 0.5  # weight of each pair of frames in the running mean
LIKELY = 0.33  # misfit below which a reason is likely
FITS = 0.2  # misfit below which a gyroscope agrees with the frames
ENOUGH = 6.0  # pairs of frames from which an offset can be estimated
CERTAIN = 2.5  # standard errors by which an offset must be better than another
BETTER = 1.0  # standard errors by which the offset of the same minimum must be better
NARROW = 3  # steps to both sides at which a certain offset must fit worse
NEAR = 0.003  # s by which the offset may move without being clearly better
MOST_BIAS = 0.1  # rad/s; a larger value is no bias
AHEAD = 0.2  # rad between a vehicle's direction of travel and its camera's optical axis
NOTHING = "nothing fits: loose mount, or another vehicle's"
DEGREES = 180 / np.pi


class Pairs(NamedTuple):
    """
    Pairs of frames: rotations from the optical flow and from the gyroscope.

    ``stamps``: N, s, of the later frame. ``seen``: N x 3, rad, about the camera's axes, from the
    flow. ``weights``: N x 3 x 3, and ``expansions``: N, as in ``SeenTurn``. ``took``: N, s between
    the frames. ``claims``: N x D x 3, rad, about the camera's axes, from the gyroscope at D clock
    offsets; NaN where it has no samples.
    """

    stamps: np.ndarray
    seen: np.ndarray
    weights: np.ndarray
    expansions: np.ndarray
    took: np.ndarray
    claims: np.ndarray

    def then(self, seen: SeenTurn, stamp: float, took: float, claims: np.ndarray) -> 'Pairs':
        """Return the latest of these pairs and one more, with ``claims`` D x 3."""
        new = stamp, seen.vector, seen.weight, seen.expansion, took, claims
        return Pairs(*(
            np.concatenate([of[-KEPT + 1 :], np.array(one)[None]])
            for of, one in zip(self, new, strict=True)
        ))

    def only(self, which: np.ndarray) -> 'Pairs':
        """Return the pairs where ``which`` (N, bool) is true."""
        return Pairs(*(of[which] for of in self))


NO_PAIRS = Pairs(*(
    np.zeros((0, *shape)) for shape in ((), (3,), (3, 3), (), (), (len(STEPS), 3))
))


def known(pairs: Pairs) -> Pairs:
    """Return the pairs for which the gyroscope has all samples."""
    return pairs.only(np.isfinite(pairs.claims).all((1, 2)))


def at_offset(pairs: Pairs, offset: float) -> Pairs:
    """Return the pairs with ``claims`` at one offset (s from the start), N x 1 x 3."""
    where = float(np.clip((offset + REACH) / (STEPS[1] - STEPS[0]), 0, len(STEPS) - 1))
    below = min(int(where), len(STEPS) - 2)
    part = where - below
    # For the latest frames only one of the two steps may be known.
    parts = [
        share * pairs.claims[:, below + i : below + i + 1]
        for i, share in enumerate((1 - part, part)) if share
    ]
    return pairs._replace(claims=sum(parts[1:], parts[0]))


def misfits(pairs: Pairs, doubt: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """
    Return for each pair the misfit of the gyroscope, N x D, and its weight, N x D.

    The misfit is 0 if both agree, 0.5 if only one of them shows a rotation, 0.8 for opposite
    rotations, and 1 if the gyroscope shows far too much. The weight is 0 if neither shows more than
    errors, and 1 at most. ``doubt``: square pixels that are attributed to errors of the flow.
    """
    seen, claims = _changes(pairs, pairs.seen[:, None]), _changes(pairs, pairs.claims)
    moved, claimed = _square(pairs, seen), _square(pairs, claims)
    apart = np.maximum(_square(pairs, seen - claims) - doubt, 0)
    most = np.maximum(moved, claimed)
    return apart / (apart + moved + FLOOR), np.maximum(most - 2 * FLOOR, 0) / (most + SLIGHT)


def find_offset(pairs: Pairs, now: float) -> tuple[float | None, bool]:
    """
    Return the offset (s, from the start of the search) that fits, and whether it is certain.

    None if no offset fits or too little moved. It is ``now`` if no other one is clearly better.
    """
    misfit, says = misfits(pairs)
    says = says.mean(1)
    total = says.sum()
    if total**2 < ENOUGH * (says**2).sum() or total < ENOUGH / 2:
        return None, False
    share = says / total
    few = (share**2).sum()  # 1 / effective number of pairs

    def better(one: np.ndarray, other: np.ndarray) -> float:
        """Return by how many standard errors ``one`` fits better than ``other``."""
        gain = other - one
        mean = share @ gain
        return float(mean / np.sqrt(share @ (gain - mean) ** 2 * few + 1e-9))

    costs = share @ misfit
    best = int(costs.argmin())
    inner = costs[1:-1]
    minima = 1 + np.flatnonzero((inner <= costs[:-2]) & (inner <= costs[2:]))
    # A vibration fits again after each period: take the one nearest to the start.
    alike = [
        place for place in minima
        if better(misfit[:, best], misfit[:, place]) < CERTAIN or costs[place] < costs[best] + 0.01
    ]
    place = min(alike, key=lambda place: abs(STEPS[place]), default=best)
    if costs[place] > FITS:
        return None, False
    found = float(STEPS[place])
    if 0 < place < len(STEPS) - 1:
        before, there, after = costs[place - 1 : place + 2]
        bend = before + after - 2 * there
        found += float((before - after) / (2 * bend) if bend > 0 else 0) * (STEPS[1] - STEPS[0])
    beside = np.clip([place - NARROW, place + NARROW], 0, len(STEPS) - 1)
    certain = min(better(misfit[:, place], misfit[:, side]) for side in beside) > CERTAIN
    if abs(found - now) < NEAR and certain:
        return found, certain
    here, _ = misfits(at_offset(pairs, now))
    first, last = sorted((place, int(np.abs(STEPS - now).argmin())))
    between = costs[first : last + 1]
    # Without a hill between the two it is the same minimum, only its place is estimated better.
    enough = CERTAIN if between.max() > max(between[0], between[-1]) else BETTER
    return (found if better(misfit[:, place], here[:, 0]) > enough else now), certain


def find_bias(pairs: Pairs, start: np.ndarray) -> np.ndarray:
    """
    Return the bias of the gyroscope, 3, rad/s about the camera's axes.

    It is ``start``, of the same kind, as far as no other one is certain. ``pairs`` have claims at
    one offset.
    """
    excess = pairs.claims[:, 0] - pairs.seen
    pace = pairs.took.mean()
    bias = np.median(excess, 0) / pace
    errors = 1.5 * np.median(np.abs(excess - bias * pace), 0) / pace / np.sqrt(len(pairs.took))
    # A vehicle that does not drive along the optical axis seems to turn.
    drives = np.array([1.0, 1.0, 0.0]) * AHEAD * abs(pairs.expansions.mean()) / pace
    apart = bias - start
    sure = start + np.sign(apart) * np.maximum(np.abs(apart) - drives - errors, 0)
    return np.where(np.abs(bias) > 1.5 * MOST_BIAS, 0, np.clip(sure, -MOST_BIAS, MOST_BIAS))


def fits_at(pairs: Pairs, steps: np.ndarray) -> float | None:
    """Return which of ``steps`` (s), the offsets of ``pairs``, fits; None if none does."""
    misfit, says = misfits(pairs)
    total = says.sum(0)
    costs = (misfit * says).sum(0) / np.maximum(total, 1e-9)
    best = int(costs.argmin())
    return float(steps[best]) if costs[best] < FITS and total[best] > ENOUGH / 2 else None


def diagnose(pairs: Pairs) -> str:
    """Return the likely reason why a gyroscope does not fit; ``pairs`` are at one offset."""
    claims = pairs.claims[:, 0]
    best, reason = LIKELY, NOTHING
    for matrices, likely in _LIKELY:
        misfit, says = misfits(pairs._replace(claims=np.einsum('kij,nj->nki', matrices, claims)))
        cost = float(((misfit * says).sum(0) / np.maximum(says.sum(0), 1e-9)).min())
        # If two reasons fit, the simpler one, which comes first.
        if cost < best - 0.03:
            best, reason = cost, likely
    return reason


def _axes() -> np.ndarray:
    """Return the signed permutations of the axes: 24 rotations and 24 reflections, 48 x 3 x 3."""
    signed = [
        np.diag(signs) @ np.eye(3)[list(order)]
        for order in permutations(range(3)) for signs in product((1.0, -1.0), repeat=3)
    ]
    return np.stack(signed)


_LIKELY = (
    (np.eye(3)[None] / DEGREES, 'rates look like degrees per second'),
    (-np.eye(3)[None], 'wrong sign'),
    (_axes(), 'axes differ: check imu_rotation or frames'),
    (_axes() / DEGREES, 'rates look like degrees per second, and axes differ'),
)


_UNUSUAL = np.eye(KEPT) - USUAL * np.tril(
    (1 - USUAL) ** np.maximum(np.subtract.outer(np.arange(KEPT), np.arange(KEPT)) - 1.0, 0), -1
)


def _square(pairs: Pairs, turns: np.ndarray) -> np.ndarray:
    """Return the mean squared displacement (pixels) of the picture by ``turns``, N x D."""
    return ((turns @ pairs.weights) * turns).sum(-1)


def _changes(pairs: Pairs, turns: np.ndarray) -> np.ndarray:
    """Return the difference of ``turns`` (N x D x 3) from their running mean."""
    took = pairs.took[:, None, None]
    return took * np.tensordot(_UNUSUAL[: len(turns), : len(turns)], turns / took, 1)
