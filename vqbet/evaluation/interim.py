"""An interim look at the episodes played so far: the intervals and error rates that the plan allows there.

Over all looks of the plan together, each end of an interval errs with probability `plan.level` at most, the attempt's
share of alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from vqbet import statistics
from vqbet.evaluation.plan import Plan
from vqbet.statistics import Interval

FEWEST_DRAWS, MOST_DRAWS = 9_999, 99_999


@dataclass(frozen=True, slots=True)
class Look:
    """The look after `episodes` of each arm, one of the plan's looks. Values are in the order of their seeds."""

    plan: Plan
    episodes: int

    @property
    def chance(self) -> float:
        """The error probability of one end of an interval at this look; for "anytime", the whole level."""
        if self.plan.stopping == "anytime":
            return self.plan.level
        return _chance(self.plan, self.episodes)

    @property
    def draws(self) -> int:
        """The number of exchanges an exact test must draw to resolve a p-value as small as `chance`."""
        return min(max(FEWEST_DRAWS, math.ceil(10 / self.chance)), MOST_DRAWS)

    def interval(self, values: Float[np.ndarray, " E"]) -> Interval:
        """Return the interval of the mean of values in 0..1."""
        if self.plan.stopping == "anytime":
            return statistics.betting_interval(values, alpha=self.plan.level, most=self.plan.most)
        return statistics.mean_interval(values, 1 - 2 * self.chance)

    def difference(self, candidate: Float[np.ndarray, " E"], other: Float[np.ndarray, " E"]) -> Interval:
        """Return the interval of the mean difference of scores from the same initial conditions."""
        found = self.interval(statistics.halves(candidate, other))
        return Interval(*(2 * end - 1 for end in (found.estimate, found.low, found.high)))

    def needed(self, values: Float[np.ndarray, " E"], *, above: float, below: float) -> int | None:
        """Return the episodes, these included, at which the interval would lie above or below, at the observed rates.

        None where no number suffices. For "anytime", assumes that a bettor's wealth grows by a constant factor.
        """
        plan = self.plan
        if plan.stopping != "anytime":
            last = 1 - 2 * _chance(plan, plan.most)
            return statistics.episodes_to_decide(values, above=above, below=below, confidence=last)
        rich = math.log(1 / plan.level)
        grown = [
            float(statistics.log_wealth(values, above, alpha=plan.level, most=plan.most)[-1]),
            float(statistics.log_wealth(1 - values, 1 - below, alpha=plan.level, most=plan.most)[-1]),
        ]
        return math.ceil(len(values) * rich / max(grown)) if max(grown) > 0 else None


def _chance(plan: Plan, episodes: int) -> float:
    return 1 - NormalDist().cdf(_boundaries(plan.looks, plan.level)[plan.looks.index(episodes)])


@lru_cache(maxsize=64)
def _boundaries(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """Return boundaries that spend alpha with the squared share of episodes (Kim & DeMets 1987, Biometrika 74)."""
    shares = [look / looks[-1] for look in looks]
    return tuple(statistics.boundaries(shares, [alpha * share**2 for share in shares]))
