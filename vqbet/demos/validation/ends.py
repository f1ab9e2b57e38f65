"""How episodes begin and end, in tasks whose goal can be read off observations: a label of success must be seen there.

A goal has parts, such as the blocks that lie in targets. All of them are seen done in an episode that is labelled as a
success, and none at its first step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from vqbet.contract import Demonstrations
from vqbet.coordinates.demonstrated_frame import AT
from vqbet.tasks.kitchen import importer

IN_TARGET_M = 0.05 + 0.035  # the world's radius, and what a block moves in the last step, which is not observed
AT_GOAL_PX = 36.0  # of every keypoint: the importer's 15 px, and its 10 degrees at 120 px from the pose's origin

Seen = Float[np.ndarray, "N C"]


@dataclass(frozen=True, slots=True)
class Goal:
    """The observed channels that decide a goal, and which of its P parts are done where they are seen (N, C).

    kept: a part that was done once counts, as in a world that ticks parts off.
    """

    channels: tuple[str, ...]
    done: Callable[[Seen], Bool[np.ndarray, "N P"]]
    kept: bool = False


def _blockpush(seen: Seen) -> Bool[np.ndarray, "N 2"]:
    """Which block is in its target, of the better pairing."""
    blocks, targets = seen.reshape(-1, 2, 2, 2).transpose(1, 2, 0, 3)  # each (2, N, xy)
    inside = np.linalg.norm(blocks[:, None] - targets, axis=-1) <= IN_TARGET_M  # (block, target, N)
    straight = np.stack([inside[0, 0], inside[1, 1]], axis=1)
    crossed = np.stack([inside[0, 1], inside[1, 0]], axis=1)
    return np.where((straight.sum(axis=1) >= crossed.sum(axis=1))[:, None], straight, crossed)


def _pusht(seen: Seen) -> Bool[np.ndarray, "N 1"]:
    """Every keypoint about where it is at the goal."""
    away = np.linalg.norm((seen - np.array(AT["pusht"])).reshape(len(seen), -1, 2), axis=2)
    return away.max(axis=1, keepdims=True) <= AT_GOAL_PX


_PLACES = ("block0", "block1", "target0", "target1")
_BLOCKPUSH = Goal(tuple(f"{name}_{axis}" for name in _PLACES for axis in "xy"), _blockpush)
GOALS: Mapping[str, Goal] = {
    "blockpush": _BLOCKPUSH,
    "blockpush_drawn": _BLOCKPUSH,
    "kitchen": Goal(
        tuple(channel.name for channel in importer.spec().observation),
        lambda seen: importer.done(seen[:, importer.STATE]),
        kept=True,
    ),
    "pusht": Goal(tuple(f"keypoint{point}_{axis}" for point in range(9) for axis in "xy"), _pusht),
}


def success_seen(demos: Demonstrations) -> Bool[np.ndarray, " E"]:
    """Of each episode, whether its end shows the goal with all its parts; true where the goal cannot be read off."""
    goal = GOALS.get(demos.spec.task)
    if goal is None or not _readable(demos, goal):
        return np.ones(len(demos.episode_ends), bool)
    if goal.kept:
        return np.asarray(np.logical_or.reduceat(_done(demos, goal, slice(None)), demos.episode_starts).all(axis=1))
    return np.asarray(_done(demos, goal, demos.episode_ends - 1).all(axis=1))


def done_at_start(demos: Demonstrations) -> Bool[np.ndarray, " E"]:
    """Of each episode, whether a part of its goal is done at its first step; false where that cannot be read off."""
    goal = GOALS.get(demos.spec.task)
    if goal is None or not _readable(demos, goal):
        return np.zeros(len(demos.episode_ends), bool)
    return np.asarray(_done(demos, goal, demos.episode_starts).any(axis=1))


def _readable(demos: Demonstrations, goal: Goal) -> bool:
    return set(goal.channels) <= {channel.name for channel in demos.spec.observation}


def _done(demos: Demonstrations, goal: Goal, rows: slice | np.ndarray) -> Bool[np.ndarray, "N P"]:
    names = [channel.name for channel in demos.spec.observation]
    with np.errstate(invalid="ignore"):
        return goal.done(demos.observation[rows][:, [names.index(name) for name in goal.channels]].astype(np.float64))
