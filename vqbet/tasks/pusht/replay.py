"""Replay of recorded actions from recorded first states, to prove that demonstrations were recorded in this world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from vqbet.contract import Demonstrations, WorldError
from vqbet.tasks.pusht.world import PushT


def replay(
    env: PushT,
    demos: Demonstrations,
    episodes: Int[np.ndarray, " E"],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Play each episode's actions open loop from its first state, and return one array of length E for each of:

    max_coverage, final_coverage: of the replayed episode, 0..1. deviation_px: largest distance, over the steps and over
    finger and block, between a replayed and the recorded position. progress(step, steps) is called after every step.
    Raises WorldError where the demonstrations have no states, have another spec, or outlast the world.
    """
    episodes = np.asarray(episodes, np.int64)
    starts, lengths = demos.episode_starts[episodes], demos.lengths[episodes]
    recorded = _replayable(env, demos, episodes)
    env.restore(recorded[starts])
    deviation = np.zeros(len(episodes))
    longest = int(lengths.max(initial=0))
    for step in range(longest):
        rows = np.flatnonzero(lengths > step)
        env.step(demos.action[starts[rows] + step], rows)
        rows = np.flatnonzero(lengths > step + 1)  # nothing was recorded after an episode's last action
        offset = env.state()[rows, :4] - recorded[starts[rows] + step + 1, :4]
        distance = np.linalg.norm(offset.reshape(-1, 2, 2), axis=2).max(axis=1)
        deviation[rows] = np.maximum(deviation[rows], distance)
        if progress:
            progress(step + 1, longest)
    metrics = env.metrics()
    return {name: metrics[name] for name in ("max_coverage", "final_coverage")} | {"deviation_px": deviation}


def _replayable(env: PushT, demos: Demonstrations, episodes: np.ndarray) -> np.ndarray:
    lengths = demos.lengths[episodes]
    differences = env.spec.differences(demos.spec)
    if differences:
        raise WorldError("pusht: replay: these demonstrations are of another spec: " + "; ".join(differences))
    if demos.state is None or demos.stateless[episodes].any():
        raise WorldError("pusht: replay: these demonstrations hold no states to start from; import them with states")
    if lengths.max(initial=0) > env.max_steps:
        raise WorldError(f"pusht: replay: an episode has {lengths.max()} steps, the world ends after {env.max_steps}")
    return demos.state
