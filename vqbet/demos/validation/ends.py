"""Beginning and end of episodes, in tasks whose goal can be read off observations, which must confirm success labels.

A goal has parts, such as the blocks that lie in targets. In an episode that is labelled as a success the observations
must show all parts done, and none done at the first step.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from vqbet.contract import Demonstrations
from vqbet.demos.validation.knowledge import Goal


def success_seen(demos: Demonstrations, goal: Goal | None) -> Bool[np.ndarray, " E"]:
    """Return whether the end of each episode shows all parts of the goal; true where the goal cannot be read off."""
    if goal is None or not _readable(demos, goal):
        return np.ones(len(demos.episode_ends), bool)
    if goal.kept:
        return np.asarray(np.logical_or.reduceat(_done(demos, goal, slice(None)), demos.episode_starts).all(axis=1))
    return np.asarray(_done(demos, goal, demos.episode_ends - 1).all(axis=1))


def done_at_start(demos: Demonstrations, goal: Goal | None) -> Bool[np.ndarray, " E"]:
    """Return whether each episode's first step shows a part of the goal done; false where it cannot be read off."""
    if goal is None or not _readable(demos, goal):
        return np.zeros(len(demos.episode_ends), bool)
    return np.asarray(_done(demos, goal, demos.episode_starts).any(axis=1))


def _readable(demos: Demonstrations, goal: Goal) -> bool:
    return set(goal.channels) <= {channel.name for channel in demos.spec.observation}


def _done(demos: Demonstrations, goal: Goal, rows: slice | np.ndarray) -> Bool[np.ndarray, "N P"]:
    names = [channel.name for channel in demos.spec.observation]
    with np.errstate(invalid="ignore"):
        return goal.done(demos.observation[rows][:, [names.index(name) for name in goal.channels]].astype(np.float64))
