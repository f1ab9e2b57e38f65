"""Relative commands and the absolute positions that they lead to.

A world with relative actions counts a command from where it sees the robot. A chunk of such commands, executed whole,
adds up its own errors; one of the positions that they lead to does not, since each step's command is then counted
anew from where the robot is. Diffusion Policy (arXiv 2303.04137) found position control better for this reason.

A policy that learnt from demonstrations by positions (`absolute`) plans positions, and commands at each step what leads
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from vqbet.contract import Channel, Demonstrations, Spec

Counted = tuple[tuple[str, float], ...]  # of each command: the observed channel it counts from, and how far 1 leads


@dataclass(frozen=True, slots=True)
class ActionReference:
    """places: of each of the A commands, the observed channel that it counts from. reach: how far a command of 1 leads
    from there within a control step, in that channel's unit."""

    places: tuple[int, ...]
    reach: Float[np.ndarray, " A"]  # float32

    @classmethod
    def of(cls, counted: Counted, names: Sequence[str]) -> ActionReference:
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


def absolute(demos: Demonstrations, counted: Counted) -> Demonstrations:
    """Return the same demonstrations with positions for actions, in units of what is observed."""
    led = ActionReference.of(counted, [channel.name for channel in demos.spec.observation])
    return replace(demos, spec=_spec(demos.spec, led), action=led.positions(demos.observation, demos.action))


def _spec(spec: Spec, led: ActionReference) -> Spec:
    seen = [spec.observation[place] for place in led.places]
    wanted = (
        Channel(f"{channel.name}_wanted", channel.unit, channel.low - far, channel.high + far)
        for channel, far in zip(seen, led.reach.tolist(), strict=True)
    )
    return replace(spec, action=tuple(wanted), action_kind="absolute")
