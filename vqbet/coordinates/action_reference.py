"""Relative commands and the absolute positions that they lead to.

A world with relative actions counts a command from where it sees the robot. A chunk of such commands, executed whole,
adds up its own errors; one of the positions that they lead to does not, since each step's command is then counted
anew from where the robot is. Diffusion Policy (arXiv 2303.04137) found position control better for this reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Counted = tuple[tuple[str, float], ...]  # of each command: the observed channel it counts from, and how far 1 leads


@dataclass(frozen=True, slots=True)
class Absolute:
    """places: of each of the A commands, the observed channel that it counts from. reach: how far a command of 1 leads
    from there within a control step, in that channel's unit."""

    places: tuple[int, ...]
    reach: Float[np.ndarray, " A"]  # float32

    @classmethod
    def of(cls, counted: Counted, names: Sequence[str]) -> Absolute:
        """names: of the observed channels. Raises ValueError where a channel is none of them, or a reach is not a
        finite number above 0."""
        for name, reach in counted:
            if name not in names:
                raise ValueError(f"{name!r} is not among the observed channels")
            if not (np.isfinite(reach) and reach > 0):
                raise ValueError(f"{name!r}: expected a finite reach above 0, got {reach}")
        return cls(tuple(names.index(name) for name, _ in counted), np.array([far for _, far in counted], np.float32))

    def positions(
        self, observation: Float[np.ndarray, "N D"], command: Float[np.ndarray, "N A"]
    ) -> Float[np.ndarray, "N A"]:
        """Where commands lead that are given where `observation` is seen."""
        return observation[:, self.places] + self.reach * command

    def commands(
        self, observation: Float[np.ndarray, "B D"], position: Float[np.ndarray, "B A"]
    ) -> Float[np.ndarray, "B A"]:
        """The inverse of `positions`: what leads there from where `observation` is seen."""
        return (position - observation[:, self.places]) / self.reach
