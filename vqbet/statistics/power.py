"""Sample sizes and power of a comparison, and the spread of scores between trainings of one recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy import stats

from vqbet.contract import GateError
from vqbet.statistics.means import expect_share
from vqbet.statistics.pairs import tango_zs

MAX_PAIRS = 4000  # beyond this, exact enumeration takes more than a second
UNLIKELY = 1e-12  # counts with a smaller probability are left out


def pairs_power(episodes: int, *, gained: float, lost: float, limit: float, alpha: float) -> float:
    """Return the probability that `episodes` pairs show a difference of success rates above `limit`, by enumeration.

    gained, lost: the true shares of pairs that only the candidate and only the champion solve. Tango's z at one-sided
    `alpha` decides. Raises GateError where these are not shares, or there are more than MAX_PAIRS episodes.
    """
    _expect_pairs(episodes, gained, lost, alpha)
    differing = np.arange(episodes + 1)
    likely = stats.binom.pmf(differing, episodes, gained + lost)
    power = 0.0
    for count in differing[likely > UNLIKELY].tolist():
        won = np.arange(count + 1)
        shown = tango_zs(episodes, won, count - won, limit) > NormalDist().inv_cdf(1 - alpha)
        share = gained / (gained + lost) if count else 0.0
        power += likely[count] * float(stats.binom.pmf(won, count, share)[shown].sum())
    return min(power, 1.0)


def pairs_needed(power: float, *, gained: float, lost: float, limit: float, alpha: float) -> int | None:
    """Return the fewest pairs, within 1 %, with a `pairs_power` of `power` or more; None: more than MAX_PAIRS.

    Raises GateError as `pairs_power`, or where the true difference is not above the limit.
    """
    expect_share("power", power)
    _expect_pairs(1, gained, lost, alpha)
    if gained - lost <= limit:
        raise GateError(f"power: a difference of {gained - lost:g} is never shown to be above {limit:g}")

    def enough(episodes: int) -> bool:
        return pairs_power(episodes, gained=gained, lost=lost, limit=limit, alpha=alpha) >= power

    high = 8
    while not enough(high):
        high *= 2
        if high > MAX_PAIRS:
            return None
    low = high // 2
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def mean_power(episodes: float, *, spread: float, difference: float, limit: float, alpha: float) -> float:
    """Return the probability that a mean difference is shown above `limit`; differences have deviation `spread`.

    Normal approximation, for scores that are not successes.
    """
    expect_share("alpha", alpha)
    if spread <= 0 or episodes <= 0:
        raise GateError(f"power: expected a spread and episodes above 0, got {spread:g} and {episodes:g}")
    return NormalDist().cdf(math.sqrt(episodes) * (difference - limit) / spread - NormalDist().inv_cdf(1 - alpha))


def mean_needed(power: float, *, spread: float, difference: float, limit: float, alpha: float) -> int:
    """Return the episodes for a `mean_power` of `power`. Raises GateError unless the difference is above the limit."""
    expect_share("power", power)
    expect_share("alpha", alpha)
    if difference <= limit:
        raise GateError(f"power: a difference of {difference:g} is never shown to be above {limit:g}")
    together = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)
    return max(1, math.ceil((together * spread / (difference - limit)) ** 2))


@dataclass(frozen=True, slots=True)
class Retraining:
    """Mean scores of policies that differ only in the training seed. Raises GateError for fewer than two."""

    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.scores) < 2 or not all(0 <= score <= 1 for score in self.scores):
            raise GateError(f"retraining: expected two or more mean scores in 0..1, got {list(self.scores)}")

    @property
    def deviation(self) -> float:
        """The sample standard deviation between trainings."""
        return float(np.std(self.scores, ddof=1))

    def chance(self, difference: float) -> float:
        """Return the probability that of two trainings the first scores higher by `difference` or more.

        Student's t with one degree of freedom less than trainings: few trainings tell little about their spread.
        """
        if self.deviation == 0:
            return 0.0 if difference > 0 else 1.0
        return float(stats.t.sf(difference / (math.sqrt(2) * self.deviation), len(self.scores) - 1))


def _expect_pairs(episodes: int, gained: float, lost: float, alpha: float) -> None:
    expect_share("alpha", alpha)
    if not 1 <= episodes <= MAX_PAIRS:
        raise GateError(f"power: expected 1 to {MAX_PAIRS} episodes, got {episodes}")
    if not (gained >= 0 and lost >= 0 and 0 < gained + lost <= 1):
        raise GateError(f"power: expected shares of pairs that differ, above 0 and at most 1, got {gained} and {lost}")
