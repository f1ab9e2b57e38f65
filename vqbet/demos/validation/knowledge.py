"""What is known of a task's world before its demonstrations are seen, and they are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Seen = Float[np.ndarray, "N C"]


@dataclass(frozen=True, slots=True)
class Goal:
    """The observed channels that decide a goal, and which of its P parts are done where they are seen (N, C).

    kept: a part that was done once counts, as in a world that ticks parts off.
    """

    channels: tuple[str, ...]
    done: Callable[[Seen], Bool[np.ndarray, "N P"]]
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """An action channel and the observed channel that it moves. lag: control steps from a command to its motion.

    slope: motion over command at that lag, in the units of both. strength: their correlation there, median of episodes.
    """

    action: str
    observed: str
    lag: int
    slope: float
    strength: float


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The goal as it can be read off observations, and references of action channels; empty where nothing is known."""

    goal: Goal | None = None
    references: tuple[Known, ...] = ()
