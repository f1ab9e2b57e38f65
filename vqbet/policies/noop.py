"""Baseline that does nothing: the score of a world by itself."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import Pictures, Spec, WorldError


class NoOp:
    """Holds still: zero for relative actions, the observed channel of the same name for absolute ones."""

    def __init__(self, spec: Spec) -> None:
        """Raises WorldError where an absolute action names a channel that is not observed."""
        self.spec = spec
        self.goal: tuple[str, ...] = ()
        self._channels = [] if spec.action_kind == "relative" else _observed(spec)

    def reset(self, seeds: Int[np.ndarray, " E"], goals: Float[np.ndarray, "E C"] | None = None) -> None:
        """Do nothing: there is no state and no randomness."""

    def act(
        self, observation: Float[np.ndarray, "B D"], rows: Int[np.ndarray, " B"], cameras: Pictures | None = None
    ) -> Float[np.ndarray, "B A"]:
        if self.spec.action_kind == "relative":
            return np.zeros((len(rows), len(self.spec.action)), np.float32)
        return observation[:, self._channels].astype(np.float32)


def _observed(spec: Spec) -> list[int]:
    """Return, for each action channel, the position of the observation channel of the same name."""
    places = {channel.name: place for place, channel in enumerate(spec.observation)}
    missing = [channel.name for channel in spec.action if channel.name not in places]
    if missing:
        raise WorldError(
            f"task {spec.task!r}: cannot hold still: actions are absolute and {', '.join(missing)} are not observed "
            f"(observed: {', '.join(places)}); do not play 'noop' here"
        )
    return [places[channel.name] for channel in spec.action]
