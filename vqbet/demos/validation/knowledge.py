"""Prior knowledge about a task's world, which its demonstrations are checked against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Seen = Float[np.ndarray, "N C"]


@dataclass(frozen=True, slots=True)
class Goal:
    """Observed channels that decide a goal. done: returns which of the P parts their values (N, C) show done.

    kept: a part that was done once counts, as in a world that ticks parts off.
    """

    channels: tuple[str, ...]
    done: Callable[[Seen], Bool[np.ndarray, "N P"]]
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """Action channel and the observed channel that it moves. lag: control steps from a command to its motion.

    slope: motion over command at this lag, in the units of both. strength: their correlation, median over episodes.
    """

    action: str
    observed: str
    lag: int
    slope: float
    strength: float


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Goal that can be read off observations, and references of action channels; empty where nothing is known."""

    goal: Goal | None = None
    references: tuple[Known, ...] = ()
