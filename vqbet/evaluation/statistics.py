"""Intervals for what episodes score, and how many episodes would decide.

One method serves proportions, scores in 0..1 and paired differences: the Wilson score interval (Wilson 1927, JASA 22)
taken at the effective number of episodes n / r, where r is the variance of the scores over the largest variance that
their mean allows, m (1 - m) (Bhatia & Davis 2000); the same use of a design effect as in Korn & Graubard 1998. For
successes r = 1 and the interval is Wilson's own. r is estimated with one 0 and one 1 added, so that it never reaches
zero: Student's t interval has no width where all scores agree, and misses a mean of 0.985 in 13 % of 200-episode runs.

Sums are exact (`math.fsum`), so that results do not depend on the order of episodes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from vqbet.contract import GateError

MAX_EPISODES = 10**7  # beyond this, episodes_to_decide says that none will


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimated mean (or difference of means) and the two-sided confidence interval around it."""

    estimate: float
    low: float
    high: float


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a proportion. Raises GateError unless 0 <= successes <= episodes > 0."""
    if episodes < 1 or not 0 <= successes <= episodes:
        raise GateError(f"expected 0 <= successes <= episodes, got {successes} of {episodes}")
    return _wilson(successes / episodes, 1.0, episodes, confidence)


def mean_interval(scores: Float[np.ndarray, " E"], confidence: float = 0.95) -> Interval:
    """The interval of the mean of scores in 0..1 (see the module). Raises GateError where one lies outside."""
    mean, ratio, episodes = _moments(scores)
    return _wilson(mean, ratio, episodes, confidence)


def paired_difference(
    candidate: Float[np.ndarray, " E"], champion: Float[np.ndarray, " E"], confidence: float = 0.95
) -> Interval:
    """The interval of mean(candidate - champion), scores in 0..1, element e of both from the same initial condition.

    Raises GateError where the lengths differ or a score lies outside 0..1.
    """
    interval = mean_interval(_halves(candidate, champion), confidence)
    return Interval(2 * interval.estimate - 1, 2 * interval.low - 1, 2 * interval.high - 1)


def episodes_to_decide(
    scores: Float[np.ndarray, " E"], *, above: float, below: float, confidence: float = 0.95
) -> int | None:
    """The number of episodes (these included) at which the interval would lie above `above` or below `below`.

    Assumes that mean and spread stay as observed, so that about half of the time a little more is needed. None where
    no number up to MAX_EPISODES would do, as for a mean that equals both. Raises GateError as `mean_interval`.
    """
    mean, ratio, episodes = _moments(scores)

    def decided(count: int) -> bool:
        interval = _wilson(mean, ratio, count, confidence)
        return interval.low > above or interval.high < below

    high = episodes
    while not decided(high):
        high *= 2
        if high > MAX_EPISODES:
            return None
    low = episodes - 1
    while high - low > 1:  # decided(high), and not decided(low) unless low is episodes - 1
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def paired_episodes_to_decide(
    candidate: Float[np.ndarray, " E"],
    champion: Float[np.ndarray, " E"],
    *,
    above: float,
    below: float,
    confidence: float = 0.95,
) -> int | None:
    """`episodes_to_decide` for the paired difference; `above` and `below` are differences, -1..1."""
    halves = _halves(candidate, champion)
    return episodes_to_decide(halves, above=(above + 1) / 2, below=(below + 1) / 2, confidence=confidence)


def mode_entropy(modes: Iterable[str]) -> float:
    """Shannon entropy, in bits, of the modes that episodes ended in; undecided ones (empty) are left out."""
    counts = Counter(mode for mode in modes if mode)
    total = sum(counts.values())
    return math.fsum(count / total * math.log2(total / count) for count in counts.values())


def _halves(candidate: Float[np.ndarray, " E"], champion: Float[np.ndarray, " E"]) -> Float[np.ndarray, " E"]:
    """Differences in -1..1 mapped to 0..1."""
    one, two = _scores(candidate), _scores(champion)
    if one.shape != two.shape:
        raise GateError(f"expected pairs, got {len(one)} scores of the candidate and {len(two)} of the champion")
    return (one - two + 1) / 2


def _scores(values: Float[np.ndarray, " E"]) -> Float[np.ndarray, " E"]:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not len(scores):
        raise GateError(f"expected one score per episode, got an array of shape {scores.shape}")
    if not ((scores >= 0) & (scores <= 1)).all():  # false for NaN too
        bad = int(np.argmin((scores >= 0) & (scores <= 1)))
        raise GateError(f"expected scores in 0..1, got {scores[bad]} at position {bad}")
    return scores


def _moments(values: Float[np.ndarray, " E"]) -> tuple[float, float, int]:
    """Mean, r (see the module) and count."""
    scores = _scores(values)
    episodes, total = len(scores), math.fsum(scores)
    padded = episodes + 2
    centre = (total + 1) / padded
    variance = math.fsum([*np.square(scores - centre), centre**2, (1 - centre) ** 2]) / padded
    return total / episodes, min(variance / (centre * (1 - centre)), 1.0), episodes


def _wilson(mean: float, ratio: float, episodes: int, confidence: float) -> Interval:
    if not 0 < confidence < 1:
        raise GateError(f"expected a confidence between 0 and 1, got {confidence}")
    shrink = NormalDist().inv_cdf((1 + confidence) / 2) ** 2 * ratio / episodes
    centre = (mean + shrink / 2) / (1 + shrink)
    half = math.sqrt(shrink * (mean * (1 - mean) + shrink / 4)) / (1 + shrink)
    low = 0.0 if mean <= 0 else max(centre - half, 0.0)
    high = 1.0 if mean >= 1 else min(centre + half, 1.0)
    return Interval(mean, low, high)
