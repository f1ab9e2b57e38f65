"""One policy, one episode at a time, as a robot has it."""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float

from vqbet import playable
from vqbet.contract import Spec

ROW = np.zeros(1, np.int64)


@final
class Session:
    """A bundle that was verified and built; `start` an episode, then one `act` per control step.

    Raises BundleError where the folder does not hold exactly the bundle of this digest, or this code cannot play it.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self._policy, packed = playable.load(folder, digest)
        self.digest = packed.digest

    @property
    def spec(self) -> Spec:
        return self._policy.spec

    @property
    def goal(self) -> tuple[str, ...]:
        return self._policy.goal

    def start(self, seed: int, goal: Float[np.ndarray, " C"] | None = None) -> None:
        """Begin an episode; nothing of the one before is left. Raises WorldError for a goal of another policy."""
        self._policy.reset(np.array([seed]), None if goal is None else goal[None])

    def act(self, observation: Float[np.ndarray, " D"]) -> Float[np.ndarray, " A"]:
        """The action of this control step in physical units. Raises WorldError for an observation that is none."""
        return self._policy.act(observation[None], ROW)[0]
