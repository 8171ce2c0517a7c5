"""
How far a camera turned between two frames, by nothing but the optical flow.

A turn moves near and far alike; driving on moves what is near. So a field for each axis of the
turn is fitted to the flow together with two of a camera that drives on: towards a wall, and over a
road. What other vehicles do is weighted down.
"""

from typing import NamedTuple

import numpy as np

from iov_restore_ros.video.camera_path import Camera, project, rays, rotation
from iov_restore_ros.video.flow import CELL, Flow

PLACES = 240  # of the flow, that are looked at
ROUNDS = 3  # of weighting down what does not fit
LEAST_SCALE = 0.15  # pixels of misfit; less is not told from the flow's own errors
LEAST_TRUST = 0.1  # mean over the places, below which a flow says nothing
LITTLE = 1e-4  # rad, over which projections are differenced


class Fields(NamedTuple):
    """
    What a flow is made of, at N of its cells.

    ``rows`` and ``columns``: N, of the cells; ``moves``: N x 2 x 5, pixels per rad about the
    camera's x, y and z, pixels per 1 of expansion towards a wall, and over a road below.
    """

    rows: np.ndarray
    columns: np.ndarray
    moves: np.ndarray


class SeenTurn(NamedTuple):
    """
    What a flow says of the camera's turn between its two frames.

    ``vector``: 3, rad, in the camera's frame; ``weight``: 3 x 3, such that v' weight v is the mean
    square of the pixels by which a turn v moves the picture, as far as it is told from driving on;
    ``expansion``: by which share what lies ahead grows or shrinks.
    """

    vector: np.ndarray
    weight: np.ndarray
    expansion: float


def fields(camera: Camera, size: tuple[int, int]) -> Fields:
    """Return what the flows of pictures of ``size`` (height, width) are made of."""
    rows, columns = (-(-side // CELL) for side in size)
    step = max(1.0, float(np.sqrt(rows * columns / PLACES)))
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
    """Return the turn that ``flow`` shows; None if it can't be trusted or says too little."""
    way = flow.way[parts.rows, parts.columns].astype(float)
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
        amounts = np.linalg.solve(square, both @ way.ravel())
        apart = np.linalg.norm(way - moves @ amounts, axis=1)
        scale = max(LEAST_SCALE, float(np.partition(apart, len(apart) // 2)[len(apart) // 2]))
        weights = trust / (1 + (apart / scale) ** 2)
        weights /= weights.sum()
    turn, drive = slice(3), slice(3, count)
    weight = square[turn, turn] - square[turn, drive] @ np.linalg.solve(
        square[drive, drive], square[drive, turn]
    )
    return SeenTurn(amounts[turn], weight, float(amounts[3]))
