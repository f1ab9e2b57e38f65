"""Baseline that replays, open loop, the demonstration with the most similar first observation."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import Demonstrations, Pictures, StoreError

UNCHOSEN = -1


class NearestDemonstration:
    """Open-loop replay of the demonstration whose first observation is nearest to the episode's.

    Distance: Euclidean, each channel divided by its standard deviation over the demonstrations' first observations;
    channels equal in all of them are ignored, and so are pictures. After the last action, absolute actions are held,
    relative ones are zero.
    """

    def __init__(self, demos: Demonstrations) -> None:
        """Raises StoreError where there are no demonstrations."""
        if not len(demos.episode_ends):
            raise StoreError(f"task {demos.spec.task!r}: expected demonstrations to replay, got none")
        self.spec = demos.spec
        self.goal: tuple[str, ...] = ()
        self._action = demos.action
        self._starts = np.asarray(demos.episode_starts)
        self._lengths = np.asarray(demos.lengths)
        first = demos.observation[self._starts].astype(np.float64)
        spread = first.std(axis=0)
        self._weight = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        self._first = first * self._weight
        self.reset(np.zeros(0, np.int64))

    def reset(self, seeds: Int[np.ndarray, " E"], goals: Float[np.ndarray, "E C"] | None = None) -> None:
        self._chosen = np.full(len(seeds), UNCHOSEN)
        self._step = np.zeros(len(seeds), np.int64)

    def act(
        self, observation: Float[np.ndarray, "B D"], rows: Int[np.ndarray, " B"], cameras: Pictures | None = None
    ) -> Float[np.ndarray, "B A"]:
        for place in np.flatnonzero(self._chosen[rows] == UNCHOSEN):
            distance = np.square(self._first - observation[place] * self._weight).sum(axis=1)
            self._chosen[rows[place]] = distance.argmin()
        chosen, step = self._chosen[rows], self._step[rows]
        last = self._lengths[chosen] - 1
        action = self._action[self._starts[chosen] + np.minimum(step, last)].astype(np.float32)
        if self.spec.action_kind == "relative":
            action[step > last] = 0
        self._step[rows] += 1
        return action
