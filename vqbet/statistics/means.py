"""Confidence intervals of mean scores, and the number of episodes that would decide.

One statistic serves proportions, scores in 0..1 and paired differences (mapped to 0..1). To test a mean m, take the
likeliest distribution on 0..1 whose mean is m. It has weights on the observed values and, where these alone are too
unlikely, on 0 or 1 (empirical likelihood, Owen 1988, Biometrika 75, with the known ends). z is the distance of the
observed mean from m over its standard error under this distribution. For successes this is Wilson's statistic (1927,
JASA 22); for pairs of successes, Tango's (1998, Statistics in Medicine 17, 891-908). In all other cases it allows for
an outcome that was not observed. Student's t does not and is anti-conservative: for a policy that loses 0.5 on average
in 3 % of 50 episodes, its 95 % bound misses the truth in 32 % of runs instead of 5 %.

Values are counted first, so that results do not depend on the order of episodes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

from vqbet.contract import GateError

MAX_EPISODES = 10**7  # beyond this, episodes_to_decide returns None
CLOSEST = 1e-12  # least distance of a tested mean from 0 and 1
EXACT = 1e-13  # tolerance of a root


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimated mean (or difference of means) and the two-sided confidence interval around it."""

    estimate: float
    low: float
    high: float


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval of a proportion. Raises GateError unless 0 <= successes <= episodes > 0."""
    _expect_counts(successes, episodes)
    expect_share("confidence", confidence)
    found = stats.binomtest(successes, episodes).proportion_ci(confidence, method="wilson")
    return Interval(successes / episodes, float(found.low), float(found.high))


def clopper_pearson(successes: int, episodes: int, confidence: float = 0.95) -> Interval:
    """Return the exact, conservative interval of a proportion (Clopper & Pearson 1934, Biometrika 26).

    Raises GateError as `wilson`.
    """
    _expect_counts(successes, episodes)
    expect_share("confidence", confidence)
    found = stats.binomtest(successes, episodes).proportion_ci(confidence, method="exact")
    return Interval(successes / episodes, float(found.low), float(found.high))


def mean_interval(scores: Float[np.ndarray, " E"], confidence: float = 0.95) -> Interval:
    """Return the interval of the mean of scores in 0..1 (see the module). Raises GateError where one lies outside."""
    expect_share("confidence", confidence)
    sample = Sample.of(scores)
    limit = NormalDist().inv_cdf((1 + confidence) / 2)
    low = _end(lambda mean: sample.z(mean) - limit, CLOSEST, sample.mean)
    high = _end(lambda mean: sample.z(mean) + limit, 1 - CLOSEST, sample.mean)
    return Interval(sample.mean, 0.0 if low == CLOSEST else low, 1.0 if high == 1 - CLOSEST else high)


def paired_difference(
    candidate: Float[np.ndarray, " E"], champion: Float[np.ndarray, " E"], confidence: float = 0.95
) -> Interval:
    """Return the interval of mean(candidate - champion): scores in 0..1, paired by initial condition.

    For successes it is Tango's. Raises GateError where the lengths differ or a score lies outside 0..1.
    """
    interval = mean_interval(halves(candidate, champion), confidence)
    return Interval(2 * interval.estimate - 1, 2 * interval.low - 1, 2 * interval.high - 1)


def episodes_to_decide(
    scores: Float[np.ndarray, " E"], *, above: float, below: float, confidence: float = 0.95
) -> int | None:
    """Return the number of episodes (these included) at which the interval would lie above `above` or below `below`.

    Assumes every value at its observed frequency, so about half of the time a few more are needed. None where no number
    up to MAX_EPISODES suffices, as for a mean that equals both. Raises GateError as `mean_interval`.
    """
    expect_share("confidence", confidence)
    sample = Sample.of(scores)
    limit = NormalDist().inv_cdf((1 + confidence) / 2)
    # z grows with the square root of the number of episodes, as its distribution stays the same
    ratios = [limit / z for z in (sample.z(above), -sample.z(below)) if z > 0]
    if not ratios:
        return None
    needed = max(sample.episodes, math.floor(sample.episodes * min(ratios) ** 2) + 1)
    return needed if needed <= MAX_EPISODES else None


def mode_entropy(modes: Iterable[str]) -> float:
    """Shannon entropy, in bits, of the modes that episodes ended in; undecided modes (empty) are left out."""
    counts = Counter(mode for mode in modes if mode)
    total = sum(counts.values())
    return math.fsum(count / total * math.log2(total / count) for count in counts.values())


def halves(candidate: Float[np.ndarray, " E"], champion: Float[np.ndarray, " E"]) -> Float[np.ndarray, " E"]:
    """Return differences in -1..1, mapped to 0..1. Raises GateError as `paired_difference`."""
    one, two = expect_scores(candidate), expect_scores(champion)
    if one.shape != two.shape:
        raise GateError(f"expected pairs, got {len(one)} scores of the candidate and {len(two)} of the champion")
    mapped: np.ndarray = (one - two + 1) / 2
    return mapped


def expect_scores(values: Float[np.ndarray, " E"]) -> Float[np.ndarray, " E"]:
    """Return scores as float64. Raises GateError unless there is one score or more and all are in 0..1."""
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not len(scores):
        raise GateError(f"expected one score per episode, got an array of shape {scores.shape}")
    if not ((scores >= 0) & (scores <= 1)).all():  # false for NaN too
        bad = int(np.argmin((scores >= 0) & (scores <= 1)))
        raise GateError(f"expected scores in 0..1, got {scores[bad]} at position {bad}")
    return scores


def expect_share(name: str, value: float) -> None:
    """Raise GateError unless 0 < value < 1."""
    if not 0 < value < 1:
        raise GateError(f"expected a {name} between 0 and 1, got {value}")


@dataclass(frozen=True, slots=True)
class Sample:
    """Distinct scores in ascending order and their counts."""

    values: Float[np.ndarray, " V"]
    counts: Float[np.ndarray, " V"]
    episodes: int
    mean: float

    @classmethod
    def of(cls, scores: Float[np.ndarray, " E"]) -> Sample:
        """Count scores. Raises GateError as `expect_scores`."""
        scores = expect_scores(scores)
        values, counts = np.unique(scores, return_counts=True)
        return cls(values, counts.astype(np.float64), len(scores), math.fsum(scores) / len(scores))

    def z(self, mean: float) -> float:
        """Return (observed mean - mean) over its standard error if `mean` were true; see the module."""
        away = self.mean - mean
        variance = self._variance(mean)
        if variance > 0:
            return away * math.sqrt(self.episodes / variance)
        return math.copysign(math.inf, away) if away else 0.0

    def _variance(self, mean: float) -> float:
        """Variance of the likeliest distribution with this mean: weights 1 / (E (1 + tilt (x - mean))), rest on an end.

        The tilt solves sum (x - mean) / (1 + tilt (x - mean)) = 0, between its bounds 1 / (mean - 1) and 1 / mean.
        """
        away = self.values - mean
        least = -1 / (1 - mean) if mean < 1 else -math.inf
        most = 1 / mean if mean > 0 else math.inf

        def slope(tilt: float) -> float:
            return float(self.counts @ (away / (1 + tilt * away)))

        inner = (1 - 1e-9) * np.array([least, most])
        if not np.isfinite(inner).all():
            return 0.0
        low, high = float(inner[0]), float(inner[1])
        if slope(high) >= 0:
            tilt = high
        elif slope(low) <= 0:
            tilt = low
        else:
            tilt = float(optimize.brentq(slope, low, high, xtol=EXACT))
        weights = self.counts / (self.episodes * (1 + tilt * away))
        rest = max(1 - math.fsum(weights), 0.0)
        end = mean if tilt > 0 else 1 - mean
        return math.fsum(weights * away * away) + rest * end * end


def _end(crossing: Callable[[float], float], outermost: float, estimate: float) -> float:
    """Return the zero of `crossing` between an end of 0..1 and the estimate; the end where there is none."""
    if abs(outermost - estimate) <= CLOSEST or crossing(outermost) * crossing(estimate) > 0:
        return outermost
    return float(optimize.brentq(crossing, outermost, estimate, xtol=EXACT))


def _expect_counts(successes: int, episodes: int) -> None:
    if episodes < 1 or not 0 <= successes <= episodes:
        raise GateError(f"expected 0 <= successes <= episodes, got {successes} of {episodes}")
