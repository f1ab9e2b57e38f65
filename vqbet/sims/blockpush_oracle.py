"""The scripted demonstrator of BlockPush: goes behind a block, pushes it into a target, then the other into the other.

Which block is first and where it goes is drawn per episode; given that, every move is a function of what is seen now,
plus a little noise that is executed and recorded like the rest. Only arithmetic and square roots are used, so that
other processors draw the same lines.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import COLUMNS, Demonstrations
from vqbet.sims import blockpush
from vqbet.sims.blockpush import BlockPush

FREE_M = 0.020  # per control step, away from blocks
PUSH_M = 0.012
NOISE_M = 0.002
CLEAR_M = 0.085  # effector and block do not touch at this distance, whatever the block's yaw
PLACED_M = 0.025  # well inside blockpush.SUCCESS_M


def moves(observation: Float[np.ndarray, "B 16"], mode: Int[np.ndarray, " B"]) -> Float[np.ndarray, "B 2"]:
    """The oracle's move in metres, without noise; mode[b] is an index into `blockpush.MODES`."""
    seen = np.asarray(observation, np.float64)
    index = np.arange(len(seen))
    blocks = seen[:, :6].reshape(-1, 2, 3)[..., :2]
    targets = seen[:, 10:16].reshape(-1, 2, 3)[..., :2]
    first, goal = mode // 2, mode % 2
    gap = _length(blocks[index, first] - targets[index, goal])
    done = gap < PLACED_M
    block = np.where(done, 1 - first, first)
    aim = np.where(done, 1 - goal, goal)
    return _push(seen[:, 6:8], seen[:, 8:10], blocks[index, block], blocks[index, 1 - block], targets[index, aim])


def _push(effector, lead, block, other, target):
    ahead, _ = _unit(target - block)  # (B, 2), where the block shall go
    left = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    offset = effector - block
    along, across = _dot(offset, ahead), _dot(offset, left)
    behind = (along < -0.02) & (np.abs(across) < 0.035)
    forward = PUSH_M * np.clip(1 - (across / 0.015) ** 2, -0.6, 1)
    push = forward[:, None] * ahead - 0.5 * across[:, None] * left
    # approach: to the point behind the block
    start = block - 0.075 * ahead
    heading, far = _unit(start - effector)
    heading = _around(effector, heading, far, block)
    heading = _around(effector, heading, far, other)
    speed = np.minimum(FREE_M, 0.006 + 0.5 * far)
    return np.where(behind[:, None], push, speed[:, None] * heading)


def _around(effector, heading, far, centre):
    """Turn the heading aside so that it passes the circle of radius CLEAR_M around `centre`; inside it, lead out."""
    to, distance = _unit(centre - effector)
    side = np.stack([-to[:, 1], to[:, 0]], axis=1)
    turn = np.where(_dot(heading, side) >= 0, 1.0, -1.0)[:, None]
    # tangent to the circle: sine of the angle is CLEAR/distance
    sine = np.minimum(CLEAR_M / distance, 1.0)
    cosine = np.sqrt(1 - sine**2)
    tangent = cosine[:, None] * to + sine[:, None] * turn * side
    ahead = _dot(heading, to)
    blocked = (ahead > cosine) & (far > distance * cosine)
    outside = np.where(blocked[:, None], tangent, heading)
    depth = np.clip((CLEAR_M - distance) / 0.02, 0.0, 1.0)[:, None]
    inside, _ = _unit(np.where((ahead > 0)[:, None], turn * side, heading) - depth * to)
    return np.where((distance < CLEAR_M)[:, None], inside, outside)


def _dot(one, two):
    return one[:, 0] * two[:, 0] + one[:, 1] * two[:, 1]


def _length(vector):
    return np.sqrt(_dot(vector, vector))


def _unit(vector):
    length = np.maximum(_length(vector), 1e-9)
    return vector / length[:, None], length
