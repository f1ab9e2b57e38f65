"""Relative commands and the absolute positions that they lead to.

A world with relative actions adds each command to the observed position of the robot. The errors of a chunk of such
commands add up when it is executed open loop. Those of a chunk of positions do not, because the command of each step is
computed from the current position. Diffusion Policy (arXiv 2303.04137) found position control better for this reason.

A policy trained on demonstrations with absolute actions (`absolute`) plans positions. At each step they are converted
to the commands that lead there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from vqbet.contract import Channel, Demonstrations, Spec

Counted = tuple[tuple[str, float], ...]  # per command: its observed reference channel, and how far a command of 1 moves


@dataclass(frozen=True, slots=True)
class ActionReference:
    """References of A commands. places: the observed channel that each command is relative to. reach: distance that a
    command of 1 moves within a control step, in the unit of its channel."""

    places: tuple[int, ...]
    reach: Float[np.ndarray, " A"]  # float32

    @classmethod
    def of(cls, counted: Counted, names: Sequence[str]) -> ActionReference:
        """Return the references among the observed channels `names`. Raises ValueError for a channel that is not among
        them, and for a reach that is not finite or not above 0."""
        for name, reach in counted:
            if name not in names:
                raise ValueError(f"{name!r} is not among the observed channels")
            if not (np.isfinite(reach) and reach > 0):
                raise ValueError(f"{name!r}: expected a finite reach above 0, got {reach}")
        return cls(tuple(names.index(name) for name, _ in counted), np.array([far for _, far in counted], np.float32))

    def positions(
        self, observation: Float[np.ndarray, "N D"], command: Float[np.ndarray, "N A"]
    ) -> Float[np.ndarray, "N A"]:
        """Return the positions that the commands lead to when issued at `observation`."""
        return observation[:, self.places] + self.reach * command

    def commands(
        self, observation: Float[np.ndarray, "B D"], position: Float[np.ndarray, "B A"]
    ) -> Float[np.ndarray, "B A"]:
        """Return the commands that lead from `observation` to the positions; the inverse of `positions`."""
        return (position - observation[:, self.places]) / self.reach


def absolute(demos: Demonstrations, counted: Counted) -> Demonstrations:
    """Return the same demonstrations with positions as actions, in the units of the observed channels."""
    led = ActionReference.of(counted, [channel.name for channel in demos.spec.observation])
    return replace(demos, spec=_spec(demos.spec, led), action=led.positions(demos.observation, demos.action))


def _spec(spec: Spec, led: ActionReference) -> Spec:
    seen = [spec.observation[place] for place in led.places]
    wanted = (
        Channel(f"{channel.name}_wanted", channel.unit, channel.low - far, channel.high + far)
        for channel, far in zip(seen, led.reach.tolist(), strict=True)
    )
    return replace(spec, action=tuple(wanted), action_kind="absolute")
