"""One policy, one episode at a time, for a robot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float, UInt8

from vqbet import policies
from vqbet.contract import Spec, WorldError
from vqbet.serving.cameras import checked
from vqbet.serving.channels import check_seed, limits_of

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
        self._observed, self._wanted = limits_of(self.spec, self.goal)

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
        check_seed(seed)
        if goal is not None:
            self._wanted.check(goal)
        self._policy.reset(np.array([seed]), None if goal is None else goal[None])
        self._started = True

    def act(
        self,
        observation: Float[np.ndarray, " D"],
        cameras: Mapping[str, UInt8[np.ndarray, "height width 3"]] | None = None,
    ) -> Float[np.ndarray, " A"]:
        """Return the action of this control step in physical units.

        cameras: one picture of each camera of the spec. Raises WorldError, naming channel and value, unless the
        observation is an array of D finite numbers, within SLACK of their channels' limits; ServingError for other
        pictures. The state of the episode is then unchanged.
        """
        if not self._started:
            call = "start(seed, goal)" if self.goal else "start(seed)"
            raise WorldError(f"session of {self.spec.task!r}: no episode was started; call {call} first")
        self._observed.check(observation)
        shown = checked(self.spec.cameras, cameras or {})
        pictures = {name: each[None] for name, each in shown.items()} or None
        return self._policy.act(observation[None], ROW, pictures)[0]
