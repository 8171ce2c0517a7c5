"""
The rotation of a camera between two frames, from the optical flow alone.

A rotation moves near and far points equally; driving moves near points more. So the flow is fitted
by five fields: one for each axis of the rotation, and two for driving, towards a wall and over a
road. Robust weights reduce the influence of other vehicles.
"""

from typing import NamedTuple

import numpy as np

from iov_restore_ros.video.camera_path import Camera, project, rays, rotation
from iov_restore_ros.video.flow import CELL, Flow

CELLS_USED = 240  # cells of the flow that are used, about
ROUNDS = 3  # of robust reweighting
LEAST_SCALE = 0.15  # pixels of misfit; the errors of a flow are not smaller
LEAST_TRUST = 0.1  # mean trust below which a flow is not used
LITTLE = 1e-4  # rad, step of the numerical derivative of projections


class Fields(NamedTuple):
    """
    The five fields at N cells of a flow.

    ``rows`` and ``columns``: N, of the cells. ``moves``: N x 2 x 5: pixels per rad about the
    camera's x, y and z axes, pixels per 1 of expansion towards a wall, and over a road below.
    """

    rows: np.ndarray
    columns: np.ndarray
    moves: np.ndarray


class SeenTurn(NamedTuple):
    """
    The camera's rotation between the two frames of a flow.

    ``vector``: 3, rad, in the camera's frame. ``weight``: 3 x 3; v' weight v is the mean square of
    the displacement (pixels) of a rotation v, without the part that driving explains too.
    ``expansion``: relative growth of what lies ahead.
    """

    vector: np.ndarray
    weight: np.ndarray
    expansion: float


def fields(camera: Camera, size: tuple[int, int]) -> Fields:
    """Return the five fields for flows of pictures of ``size`` (height, width)."""
    rows, columns = (-(-side // CELL) for side in size)
    step = max(1.0, float(np.sqrt(rows * columns / CELLS_USED)))
    down, across = (
        np.unique(np.arange(step / 2, side, step).astype(int)) for side in (rows, columns)
    )
    where = np.stack(np.meshgrid(down, across, indexing='ij'), -1).reshape(-1, 2)
    places = where[:, ::-1] * float(CELL) + (CELL - 1) / 2
    seen = rays(camera, places)
    turns = [
        (project(camera, seen @ rotation(LITTLE * axis).T) - places) / LITTLE for axis in np.eye(3)
    ]
    ahead = places - camera.matrix[:2, 2]
    road = ahead * np.maximum(seen[:, 1:2], 0)
    return Fields(where[:, 0], where[:, 1], np.stack([*turns, ahead, road], -1))


def seen_turn(flow: Flow, parts: Fields) -> SeenTurn | None:
    """Return the rotation in ``flow``; None if the flow cannot be trusted."""
    displacement = flow.displacement[parts.rows, parts.columns].astype(float)
    trust = flow.trust[parts.rows, parts.columns].astype(float).prod(-1)
    if trust.mean() < LEAST_TRUST:
        return None
    moves = parts.moves
    count = moves.shape[-1]
    flat = moves.reshape(-1, count)
    slight = 1e-6 * np.diag((flat**2).mean(0) + 1e-9)
    weights = trust / trust.sum()
    for _ in range(ROUNDS):
        both = flat.T * np.repeat(weights, 2)
        square = both @ flat + slight
        amounts = np.linalg.solve(square, both @ displacement.ravel())
        apart = np.linalg.norm(displacement - moves @ amounts, axis=1)
        scale = max(LEAST_SCALE, float(np.partition(apart, len(apart) // 2)[len(apart) // 2]))
        weights = trust / (1 + (apart / scale) ** 2)
        weights /= weights.sum()
    turn, drive = slice(3), slice(3, count)
    weight = square[turn, turn] - square[turn, drive] @ np.linalg.solve(
        square[drive, drive], square[drive, turn]
    )
    return SeenTurn(amounts[turn], weight, float(amounts[3]))
