"""Permutation test of a difference between two versions: whole episodes are dealt to both versions at random.

The unit is the episode, as the steps of an episode depend on each other: a test over steps would report a drift for
every second seed of the same process. The distinct episodes of both versions are shuffled over their places (in the
old version, in the new one, in both), which keeps the number of shared episodes. A changed recording is only exchanged
with its former self, so that a small offset in all recordings is detected despite their variety. Without drift every
deal is equally likely, so the test is exact (Phipson and Smyth, arXiv 1603.05766, for the p-value).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vqbet.drift.episodes import Pool
from vqbet.statistics.multiple import holm

ALPHA = 0.05  # over all tests of one comparison
LEAST = 1999  # minimum number of deals
PER_TEST = 40  # deals per test: the smallest p-value times the number of tests stays below ALPHA
BATCH = 100
EXACT_STEPS = 2**24  # float32 counts exactly below this

# (P, B) counts of the old and of the new version -> (P,) differences, larger for versions further apart
Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Measure:
    """A difference as a function of the counts of each episode's values in B bins."""

    counts: Int[np.ndarray, "U B"]  # per distinct episode, in the order of the pool
    statistic: Statistic


def counted(bins: Int[np.ndarray, " M"], owner: Int[np.ndarray, " M"], episodes: int, width: int) -> np.ndarray:
    """Return counts (episodes, width) of each episode's values in each bin; owner: the episode of each value."""
    return np.bincount(owner * width + bins, minlength=episodes * width).reshape(episodes, width)


def p_values(
    measures: Sequence[Measure], pool: Pool, *, seed: int = 0, progress: Progress | None = None
) -> Float[np.ndarray, " M"]:
    """Return for each measure the share of deals that differ at least as much as observed, corrected by Holm's method.

    Without drift, any of the p-values is below ALPHA in at most a share ALPHA of comparisons.
    """
    deals = max(LEAST, PER_TEST * len(measures) - 1)
    generator = np.random.default_rng(seed)
    exact = np.float32 if sum(int(measure.counts.sum()) for measure in measures) < EXACT_STEPS else np.float64
    held = np.stack([pool.old, pool.new]).astype(exact)  # (2, U)
    counts = [measure.counts.astype(exact) for measure in measures]
    found = _statistics(measures, counts, held[:, None])
    reached = np.ones(len(measures))
    for first in range(0, deals, BATCH):
        dealt = held[:, _orders(pool, min(BATCH, deals - first), generator)]  # (2, P, U)
        reached += (_statistics(measures, counts, dealt) >= found - 1e-12).sum(axis=1)
        if progress is not None:
            progress(min(first + BATCH, deals), deals)
    return holm(reached / (deals + 1))


def tellable(pool: Pool, tests: int) -> bool:
    """Return whether enough deals differ for a p-value below ALPHA after correction for `tests` tests."""
    free = _free(pool)
    _, sizes = np.unique(np.stack([pool.old, pool.new])[:, free], axis=1, return_counts=True)
    shuffles = math.lgamma(len(free) + 1) - sum(math.lgamma(size + 1) for size in sizes)
    return shuffles + len(pool.pairs) * math.log(2) >= math.log(tests / ALPHA)


def _free(pool: Pool) -> Int[np.ndarray, " F"]:
    """Return the episodes that are in no pair."""
    return np.setdiff1d(np.arange(len(pool.first)), pool.pairs)


def _orders(pool: Pool, deals: int, generator: np.random.Generator) -> Int[np.ndarray, "P U"]:
    """Return, for each deal and place, the episode whose membership in the versions it takes over."""
    free, (before, after) = _free(pool), pool.pairs.T
    order = np.tile(np.arange(len(pool.first)), (deals, 1))
    order[:, free] = generator.permuted(order[:, free], axis=1)
    swapped = generator.random((deals, len(before))) < 0.5
    order[:, before], order[:, after] = np.where(swapped, after, before), np.where(swapped, before, after)
    return order


def _statistics(
    measures: Sequence[Measure], counts: Sequence[np.ndarray], dealt: Float[np.ndarray, "2 P U"]
) -> Float[np.ndarray, "M P"]:
    old, new = dealt
    return np.stack(
        [
            measure.statistic((old @ count).astype(np.float64), (new @ count).astype(np.float64))
            for measure, count in zip(measures, counts, strict=True)
        ]
    )
