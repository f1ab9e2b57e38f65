"""One look at the episodes played so far: the interval of a mean or of a paired difference that the plan allows there.

However often the plan looks, each end of all its intervals together errs with probability `plan.level` at most, which
is the attempt's share of alpha.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from vqbet import statistics
from vqbet.evaluation.plan import Plan
from vqbet.statistics import Interval

FEWEST_DRAWS, MOST_DRAWS = 9_999, 99_999


def interval(plan: Plan, values: Float[np.ndarray, " E"]) -> Interval:
    """Of the mean of values in 0..1, in the order of their seeds, E one of the plan's looks."""
    if plan.stopping == "anytime":
        return statistics.betting_interval(values, alpha=plan.level, most=plan.most)
    return statistics.mean_interval(values, confidence(plan, len(values)))


def difference(plan: Plan, candidate: Float[np.ndarray, " E"], other: Float[np.ndarray, " E"]) -> Interval:
    """Of the mean difference of scores from the same initial conditions."""
    found = interval(plan, statistics.halves(candidate, other))
    return Interval(*(2 * end - 1 for end in (found.estimate, found.low, found.high)))


def chance(plan: Plan, episodes: int) -> float:
    """The probability with which one end may err at this look; for "anytime", all of the level."""
    if plan.stopping == "anytime":
        return plan.level
    return 1 - NormalDist().cdf(_boundaries(plan.looks, plan.level)[plan.looks.index(episodes)])


def draws(plan: Plan, episodes: int) -> int:
    """How many exchanges an exact test must try, so that the p-value which this look asks for can be found."""
    return min(max(FEWEST_DRAWS, math.ceil(10 / chance(plan, episodes))), MOST_DRAWS)


def confidence(plan: Plan, episodes: int) -> float:
    """Two-sided, of the intervals at this look."""
    return 1 - 2 * chance(plan, episodes)


def needed(plan: Plan, values: Float[np.ndarray, " E"], *, above: float, below: float) -> int | None:
    """Episodes, these included, with which the interval would lie above or below at the rates observed; None: never.

    A bettor's wealth grows by the same factor with each episode.
    """
    if plan.stopping != "anytime":
        last = confidence(plan, plan.most)
        return statistics.episodes_to_decide(values, above=above, below=below, confidence=last)
    rich = math.log(1 / plan.level)
    grown = [
        float(statistics.log_wealth(values, above, alpha=plan.level, most=plan.most)[-1]),
        float(statistics.log_wealth(1 - values, 1 - below, alpha=plan.level, most=plan.most)[-1]),
    ]
    return math.ceil(len(values) * rich / max(grown)) if max(grown) > 0 else None


@lru_cache(maxsize=64)
def _boundaries(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    return tuple(statistics.boundaries([look / looks[-1] for look in looks], alpha, "quadratic"))
