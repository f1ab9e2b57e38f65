"""One policy, one episode at a time, for a robot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float

from vqbet import policies
from vqbet.contract import SLACK, Channel, Spec, WorldError
from vqbet.files import reading

ROW = np.zeros(1, np.int64)


@final
class Session:
    """A verified bundle, ready to act: `start` an episode, then call `act` once per control step.

    Raises BundleError where the folder does not hold exactly the bundle of this digest (None: any bundle that matches
    its own manifest), or this code cannot play it.
    """

    def __init__(self, folder: Path, digest: str | None) -> None:
        self._policy, packed = policies.load(folder, digest)
        self.digest = packed.digest
        self._started = False
        channels = {channel.name: channel for channel in self.spec.observation}
        self._observed = _Limits("observation", self.spec.observation)
        self._wanted = _Limits("goal", [channels[name] for name in self.goal])

    @property
    def spec(self) -> Spec:
        return self._policy.spec

    @property
    def goal(self) -> tuple[str, ...]:
        return self._policy.goal

    def start(self, seed: int, goal: Float[np.ndarray, " C"] | None = None) -> None:
        """Start an episode; no state of the previous one remains.

        Raises WorldError for a goal of another policy or beyond its channels' limits, and for an invalid seed.
        """
        if not (isinstance(seed, (int, np.integer)) and 0 <= seed < 2**63):
            raise WorldError(f"seed: expected a whole number from 0 to 2^63 - 1, got {reading.short(seed)}")
        if goal is not None:
            self._wanted.check(goal)
        self._policy.reset(np.array([seed]), None if goal is None else goal[None])
        self._started = True

    def act(self, observation: Float[np.ndarray, " D"]) -> Float[np.ndarray, " A"]:
        """Return the action of this control step in physical units.

        Raises WorldError, naming channel and value, unless the observation is an array of D finite numbers, within
        SLACK of their channels' limits; the state of the episode is then unchanged.
        """
        if not self._started:
            call = "start(seed, goal)" if self.goal else "start(seed)"
            raise WorldError(f"session of {self.spec.task!r}: no episode was started; call {call} first")
        self._observed.check(observation)
        return self._policy.act(observation[None], ROW)[0]


class _Limits:
    """Check of an array of one number per channel: real, of this shape, and within the channels' limits and SLACK."""

    def __init__(self, name: str, channels: Sequence[Channel]) -> None:
        self.name, self.channels, self.shape = name, channels, (len(channels),)
        low, high = (np.array([getattr(channel, end) for channel in channels], np.float64) for end in ("low", "high"))
        self.low, self.high = low - SLACK * (high - low), high + SLACK * (high - low)

    def check(self, value: Any) -> None:
        if type(value) is not np.ndarray or value.dtype.kind not in "fiu":
            found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
            raise WorldError(f"{self.name}: expected a numpy array of {self.shape[0]} real numbers, got {found}")
        if value.shape != self.shape:
            raise WorldError(f"{self.name}: expected shape {self.shape}, got {value.shape}")
        if not ((value >= self.low) & (value <= self.high)).all():  # also true for NaN
            place = int(np.argmin((value >= self.low) & (value <= self.high)))
            channel = self.channels[place]
            raise WorldError(
                f"{self.name} {channel.name!r} is {value[place]:g} {channel.unit}, its limits are {channel.low:g} to "
                f"{channel.high:g}, of which it may miss {SLACK:.0%} of their range; check units, order of channels "
                "and sensor"
            )
