"""Random subset of whole episodes of a set of demonstrations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from vqbet.contract import Demonstrations, StoreError
from vqbet.demos.picked import Picked


def share(demos: Demonstrations, fraction: float, seed: int) -> Demonstrations:
    """Return the first ceil(fraction * E) episodes of a random order given by `seed` alone, in their stored order.

    A larger fraction therefore contains the episodes of a smaller one. Raises StoreError unless 0 < fraction <= 1.
    """
    episodes = len(demos.episode_ends)
    if not 0 < fraction <= 1:
        raise StoreError(f"task {demos.spec.task!r}: expected a share of the demonstrations in (0, 1], got {fraction}")
    kept = np.sort(np.random.default_rng(seed).permutation(episodes)[: math.ceil(fraction * episodes)])
    starts, ends = demos.episode_starts[kept], demos.episode_ends[kept]
    steps = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
    return replace(
        demos,
        observation=demos.observation[steps],
        action=demos.action[steps],
        time_s=demos.time_s[steps],
        episode_ends=np.cumsum(ends - starts),
        columns={name: column[kept] for name, column in demos.columns.items()},
        state=None if demos.state is None else demos.state[steps],
        intervention=None if demos.intervention is None else demos.intervention[steps],
        cameras={name: Picked(frames, steps) for name, frames in demos.cameras.items()},
    )
