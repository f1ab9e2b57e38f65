"""Demonstrations by the positions that their commands lead to, in worlds whose commands count from what is observed.

A policy that learnt them plans positions, and commands at each step what leads there, see
`vqbet.coordinates.action_reference`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vqbet.contract import Channel, Demonstrations, Spec
from vqbet.coordinates.action_reference import Absolute, Counted

# Tasks whose commands count from observed channels, noise included, and how far a command of 1 leads in a control step.
# Franka Kitchen's servos are told where the arm was seen and 2 rad/s, for the fingers 2 m/s, for 0.08 s from there. The
# world does the same, a test compares.
COUNTED: Mapping[str, Counted] = {
    "kitchen": tuple(
        (f"robot_{part}_position", 0.16)
        for part in ("joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "joint7", "finger1", "finger2")
    )
}


def absolute(demos: Demonstrations) -> Demonstrations:
    """The same demonstrations with positions for actions, in units of what is observed; the task is in COUNTED."""
    led = Absolute.of(COUNTED[demos.spec.task], [channel.name for channel in demos.spec.observation])
    return replace(demos, spec=_spec(demos.spec, led), action=led.positions(demos.observation, demos.action))


def _spec(spec: Spec, led: Absolute) -> Spec:
    seen = [spec.observation[place] for place in led.places]
    wanted = (
        Channel(f"{channel.name}_wanted", channel.unit, channel.low - far, channel.high + far)
        for channel, far in zip(seen, led.reach.tolist(), strict=True)
    )
    return replace(spec, action=tuple(wanted), action_kind="absolute")
