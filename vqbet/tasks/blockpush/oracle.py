"""Scripted demonstrator of BlockPush: moves behind a block, pushes it into a target, then the other into the other.

The first block and its target are drawn per episode. Given these, every move is a function of the current observation,
plus a little noise that is executed and recorded like the rest. The moves use arithmetic and square roots only, so that
all processors compute the same trajectories.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import COLUMNS, Demonstrations, WorldError
from vqbet.tasks.blockpush.spec import CONTROL_HZ, MAX_MOVE_M, SPECS, Sides
from vqbet.tasks.blockpush.world import MODES, BlockPush

FREE_M = 0.020  # per control step, away from blocks
PUSH_M = 0.012  # per control step, behind a block
NOISE_M = 0.002  # standard deviation of a move, per axis
JOLT = 5.0  # one move in twenty is this much noisier, so that demonstrations show how to recover
CLEAR_M = 0.085  # between centres of effector and block: no contact, whatever the block's yaw
START_M = 0.08  # from a block's centre back to where a push begins
BEYOND_M = 0.02  # how far beyond the centre of its target lies the point that a block is pushed towards
PLACED_M = 0.03  # a block this close to that point is left alone: about mid-target, as far from its rim as can be
BATCH = 100  # episodes stepped together

Points = Float[np.ndarray, "B 2"]
Numbers = Float[np.ndarray, " B"]


def demonstrations(
    episodes: int, seed: int, progress: Callable[[int, int], None] | None = None, *, sides: Sides = "fixed"
) -> Demonstrations:
    """Play and return `episodes` demonstrations, failures included, with modes balanced over every four.

    Episode e depends on `sides`, `seed` and e alone. Its world seed is above 2**32, where no evaluation seed can be.
    progress(done, episodes) is called after every BATCH episodes.
    """
    if episodes < 1:
        raise WorldError(f"blockpush: expected 1 episode or more, got {episodes}")
    parts = []
    for first in range(0, episodes, BATCH):
        index = np.arange(first, min(first + BATCH, episodes))
        parts.append(_play(index, seed, sides))
        if progress is not None:
            progress(int(index[-1]) + 1, episodes)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    step = np.concatenate([np.arange(length) for length in joined["length"]])
    spec = SPECS[sides]
    # "vqbet.sims" is the former module of the world, kept so that equal demonstrations have equal bytes.
    words = {"session": "oracle-0", "operator": "oracle", "source": f"vqbet.sims.{spec.task}", "task": spec.task}
    columns = {name: joined[name] if name in joined else np.full(episodes, words[name]) for name in COLUMNS}
    return Demonstrations(
        spec=spec,
        observation=joined["observation"],
        action=joined["action"],
        time_s=step / CONTROL_HZ,
        episode_ends=np.cumsum(joined["length"]),
        columns=columns,
        state=joined["state"],
    )


def world_seed(seed: int, index: int) -> int:
    """Return the seed of demonstration `index` for `BlockPush.reset`."""
    return 2**32 + seed * 2**24 + index


def drawn_mode(seed: int, index: int) -> int:
    """Return the index into MODES of demonstration `index`; every four in a row are a random order of all four."""
    return int(np.random.default_rng([seed, index // len(MODES)]).permutation(len(MODES))[index % len(MODES)])


def moves(observation: Float[np.ndarray, "B 16"], mode: Int[np.ndarray, " B"]) -> Points:
    """Return the oracle's moves of the effector's target in metres, without noise; mode[b] is an index into MODES."""
    seen = np.asarray(observation, np.float64)
    index = np.arange(len(seen))
    blocks = seen[:, :6].reshape(-1, 2, 3)[..., :2]
    targets = seen[:, 10:16].reshape(-1, 2, 3)[..., :2] + [0.0, BEYOND_M]
    first, aim = mode // 2, mode % 2
    placed = _length(blocks[index, first] - targets[index, aim]) < PLACED_M
    block, target = np.where(placed, 1 - first, first), np.where(placed, 1 - aim, aim)
    effector, moved, other = seen[:, 6:8], blocks[index, block], blocks[index, 1 - block]

    ahead, _ = _unit(targets[index, target] - moved)  # the direction in which the block shall move
    left = _left(ahead)
    offset = effector - moved
    along, across = _dot(offset, ahead), _dot(offset, left)
    behind = (along < -0.02) & (np.abs(across) < 0.035)
    return np.where(behind[:, None], _push(ahead, across), _approach(effector, moved, other, ahead))


def _push(ahead: Points, across: Numbers) -> Points:
    """Return a move forward and sideways back onto the line through block and target; backward while far off it."""
    forward = PUSH_M * np.clip(1 - (across / 0.015) ** 2, -0.6, 1)
    return forward[:, None] * ahead - 0.5 * across[:, None] * _left(ahead)


def _approach(effector: Points, block: Points, other: Points, ahead: Points) -> Points:
    """Return a move towards the point behind the block, around both blocks, slowing down at the end."""
    heading, distance = _unit(block - START_M * ahead - effector)
    heading = _around(effector, heading, distance, block)
    heading = _around(effector, heading, distance, other)
    return np.minimum(FREE_M, 0.006 + 0.5 * distance)[:, None] * heading


def _around(effector: Points, heading: Points, distance: Numbers, centre: Points) -> Points:
    """Turn a heading aside onto the tangent of the circle of CLEAR_M around `centre`; inside it, also lead out.

    distance: how far along `heading` the effector moves; a circle beyond this is no obstacle.
    """
    inward, away = _unit(centre - effector)
    tangential = np.where(_dot(heading, _left(inward)) >= 0, 1.0, -1.0)[:, None] * _left(inward)
    sine = np.minimum(CLEAR_M / away, 1.0)
    cosine = np.sqrt(1 - sine**2)
    tangent = cosine[:, None] * inward + sine[:, None] * tangential
    towards = _dot(heading, inward)
    blocked = (towards > cosine) & (distance > away * cosine)
    outside = np.where(blocked[:, None], tangent, heading)
    depth = np.clip((CLEAR_M - away) / 0.02, 0.0, 1.0)[:, None]
    inside, _ = _unit(np.where((towards > 0)[:, None], tangential, heading) - depth * inward)
    return np.where((away < CLEAR_M)[:, None], inside, outside)


def _play(index: Int[np.ndarray, " E"], seed: int, sides: Sides) -> dict[str, np.ndarray]:
    """Play the demonstrations in `index`; return their steps, one episode after the other, and per-episode columns."""
    world = BlockPush(sides=sides)
    seeds = np.array([world_seed(seed, int(episode)) for episode in index])
    mode = np.array([drawn_mode(seed, int(episode)) for episode in index])
    noise = np.stack([_noise(int(value), world.max_steps) for value in seeds])
    observation, rows = world.reset(seeds), np.arange(len(index))
    steps: list[tuple[np.ndarray, ...]] = []
    while len(rows):
        move = moves(observation, mode[rows]) + noise[:, len(steps)][rows]
        action = np.clip(move, -MAX_MOVE_M, MAX_MOVE_M).astype(np.float32)
        steps.append((rows, observation, action, world.state()[rows]))
        observation, ended = world.step(action, rows)
        observation, rows = observation[~ended], rows[~ended]
    row, observations, actions, states = (np.concatenate(column) for column in zip(*steps, strict=True))
    order = np.argsort(row, kind="stable")
    return {
        "observation": observations[order],
        "action": actions[order],
        "state": states[order],
        "length": np.bincount(row),
        "seed": seeds,
        "success": world.metrics()["success"],
    }


def _noise(seed: int, steps: int) -> Float[np.ndarray, "steps 2"]:
    rng = np.random.default_rng([seed, 1])
    size = np.where(rng.random((steps, 1)) < 0.05, JOLT, 1.0)
    return NOISE_M * size * rng.standard_normal((steps, 2))


def _dot(one: Points, two: Points) -> Numbers:
    return one[:, 0] * two[:, 0] + one[:, 1] * two[:, 1]


def _length(vector: Points) -> Numbers:
    return np.sqrt(_dot(vector, vector))


def _unit(vector: Points) -> tuple[Points, Numbers]:
    """Return directions and lengths; a zero vector has the direction zero."""
    length = np.maximum(_length(vector), 1e-9)
    return vector / length[:, None], length


def _left(vector: Points) -> Points:
    """Return the vectors rotated by 90 degrees, counter-clockwise."""
    return np.stack([-vector[:, 1], vector[:, 0]], axis=1)
