"""Checks of what a robot sends, before anything is computed: observations and goals by their channels, and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from vqbet.contract import GOAL_PICTURES, SLACK, Channel, ServingError, Spec, WorldError
from vqbet.files import reading


@final
class ChannelLimits:
    """Check of an array of one number per channel: real, of this shape, and within the channels' limits and SLACK."""

    def __init__(self, name: str, channels: Sequence[Channel]) -> None:
        self.name, self.channels, self.shape = name, channels, (len(channels),)
        low, high = (np.array([getattr(channel, end) for channel in channels], np.float64) for end in ("low", "high"))
        self.low, self.high = low - SLACK * (high - low), high + SLACK * (high - low)

    def check(self, value: Any, *, steps: int | None = None) -> None:
        """Raise WorldError for anything but an array of shape (channels,) or, with `steps`, (steps, channels)."""
        shape = self.shape if steps is None else (steps, *self.shape)
        if type(value) is not np.ndarray or value.dtype.kind not in "fiu":
            found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
            raise WorldError(f"{self.name}: expected a numpy array of {self.shape[0]} real numbers, got {found}")
        if value.shape != shape:
            raise WorldError(f"{self.name}: expected shape {shape}, got {value.shape}")
        fitting = (value >= self.low) & (value <= self.high)
        if not fitting.all():  # also true for NaN
            place = np.unravel_index(int(np.argmin(fitting)), shape)
            channel = self.channels[int(place[-1])]
            raise WorldError(
                f"{self.name} {channel.name!r} is {value[place]:g} {channel.unit}, its limits are {channel.low:g} to "
                f"{channel.high:g}, of which it may miss {SLACK:.0%} of their range; check units, order of channels "
                "and sensor"
            )


def limits_of(spec: Spec, goal: Sequence[str]) -> tuple[ChannelLimits, ChannelLimits]:
    """Return the checks of observations and of goals. goal: names of observed channels.

    Raises ServingError for GOAL_PICTURES, since an episode that is served cannot be given pictures of its goal.
    """
    if GOAL_PICTURES in goal:
        raise ServingError(
            f"{spec.task}: this policy takes pictures of its goal, and an episode that is served begins without any; "
            "play it with vqbet rollout"
        )
    channels = {channel.name: channel for channel in spec.observation}
    return ChannelLimits("observation", spec.observation), ChannelLimits("goal", [channels[name] for name in goal])


def check_seed(seed: Any) -> None:
    """Raise WorldError unless `seed` is a whole number that an episode's random numbers can come from."""
    if isinstance(seed, bool) or not (isinstance(seed, (int, np.integer)) and 0 <= seed < 2**63):
        raise WorldError(f"seed: expected a whole number from 0 to 2^63 - 1, got {reading.short(seed)}")
