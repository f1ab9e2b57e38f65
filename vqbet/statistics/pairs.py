"""Successes of two policies on the same initial conditions: tests, intervals, slices.

Of E pairs, `gained` were solved by the candidate only, `lost` by the champion only; the others do not tell which policy
is better. The difference of success rates is (gained - lost) / E.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from vqbet.contract import GateError
from vqbet.statistics.means import Interval

BLOCK = 1 << 20  # pairs times ways to exchange them held in memory at once: about 20 MB
SAME = 100 * np.finfo(np.float64).eps  # relative: sums that are closer differ by rounding only


@dataclass(frozen=True, slots=True)
class Pairs:
    """E pairs of successes, counted. Raises GateError unless gained and lost are counts of at most E >= 1 together."""

    episodes: int
    gained: int
    lost: int

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.gained < 0 or self.lost < 0 or self.gained + self.lost > self.episodes:
            raise GateError(
                f"expected gained + lost <= episodes, none below 0 and an episode or more, got {self.gained}, "
                f"{self.lost} and {self.episodes}"
            )

    @classmethod
    def count(cls, candidate: Bool[np.ndarray, " E"], champion: Bool[np.ndarray, " E"]) -> Pairs:
        """Count successes, paired by initial condition. Raises GateError where the lengths differ."""
        if candidate.shape != champion.shape:
            raise GateError(f"expected pairs, got {candidate.shape} successes of one and {champion.shape} of the other")
        return cls(len(candidate), int((candidate & ~champion).sum()), int((champion & ~candidate).sum()))

    @property
    def difference(self) -> float:
        return (self.gained - self.lost) / self.episodes


def mcnemar(pairs: Pairs) -> float:
    """Return the one-sided exact p-value of "the candidate is not better" (McNemar 1947, Psychometrika 12).

    Under this hypothesis each pair in which the policies differ is gained or lost like the toss of a fair coin.
    """
    differing = pairs.gained + pairs.lost
    return float(stats.binom.sf(pairs.gained - 1, differing, 0.5)) if differing else 1.0


def tango_zs(
    episodes: int, gained: Int[np.ndarray, " N"], lost: Int[np.ndarray, " N"], difference: float
) -> Float[np.ndarray, " N"]:
    """Return by how many standard errors, as if `difference` were true, observed differences lie above it.

    Infinite where `difference` makes the observation impossible. Tango's interval holds the differences with a small z:
    for successes, `means.paired_difference`.

    q, the likeliest share of lost pairs if that of gained pairs is q + difference, is the larger root of
    2 E q^2 + b q + c (Tango 1998, equation 8; b and c from setting the derivative of the log-likelihood to zero).
    """
    b = (2 * episodes - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    q = (np.sqrt(np.maximum(b * b - 8 * episodes * c, 0.0)) - b) / (4 * episodes)
    variance = episodes * np.maximum(2 * q + difference * (1 - difference), 0.0)
    away = gained - lost - episodes * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, away / np.sqrt(variance), np.where(away == 0, 0.0, np.copysign(np.inf, away)))


def fisher(one: tuple[int, int], two: tuple[int, int]) -> float:
    """Return the two-sided p-value of "the odds of two counts are equal" (Fisher's exact test)."""
    return float(stats.fisher_exact([list(one), list(two)]).pvalue)


def stratified(tables: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> float:
    """Return the one-sided p-value of "the candidate succeeds more often in no slice", for unpaired episodes.

    tables: per slice, (successes, failures) of the candidate, then of the champion. Cochran (1954) and Mantel and
    Haenszel (1959), with continuity correction. With one pair per slice this is an inexact McNemar test. Slices in
    which all succeed or all fail carry no information; the p-value is 1 if all slices are like that.
    """
    arrays = [np.array(table, dtype=np.float64) for table in tables]
    telling = [table for table in arrays if (table.sum(axis=0) > 0).all() and (table.sum(axis=1) > 0).all()]
    if not telling:
        return 1.0
    two_sided = _mantel_haenszel(np.stack(telling))
    expected = math.fsum(float(table[0].sum() * table[:, 0].sum() / table.sum()) for table in telling)
    above = math.fsum(float(table[0, 0]) for table in telling) > expected
    return two_sided / 2 if above else 1 - two_sided / 2


def _mantel_haenszel(tables: Float[np.ndarray, "S 2 2"]) -> float:
    """Return the two-sided p-value of "the odds are equal in every table", with continuity correction.

    The chi-square of Mantel and Haenszel (1959): the squared excess of the first row's successes over their expectation
    given the margins, divided by the hypergeometric variance.
    """
    mine, theirs = tables.sum(axis=2).T
    won, lost = tables.sum(axis=1).T
    total = tables.sum(axis=(1, 2))
    excess = abs(np.sum(tables[:, 0, 0] - won * mine / total)) - 0.5
    variance = np.sum(won * mine * theirs * lost / (total**2 * (total - 1)))
    return float(1 - stats.chi2.cdf(excess**2 / variance, 1))


def exchange(candidate: Float[np.ndarray, " E"], champion: Float[np.ndarray, " E"], *, draws: int = 9999) -> float:
    """Return the one-sided p-value of "exchanging the policies makes no difference": exact for equally good policies.

    It is the share of all ways to exchange candidate and champion within pairs whose difference is as large; for
    successes it is `mcnemar`. Of more than `draws` ways, `draws` are tried, always the same.
    """
    pairs = [candidate, champion]
    if set(np.unique(pairs)) <= {0.0, 1.0}:
        return mcnemar(Pairs.count(candidate > 0, champion > 0))
    differing = np.sort((candidate - champion)[candidate != champion])
    if len(differing) < 2:
        return 0.5 if differing.sum() > 0 else 1.0
    observed = np.sum(differing)
    least = observed - abs(SAME * observed)
    if 2 ** len(differing) <= draws:
        ways = (np.arange(2 ** len(differing))[:, None] >> np.arange(len(differing)) & 1).astype(np.int8)
        return float(np.mean(_sums(differing, ways) >= least))
    above, random = 1, np.random.PCG64(0)  # 1: the observed order counts as one way
    block = max(2, BLOCK // len(differing) // 2 * 2)  # even: each word of the generator holds two draws
    for first in range(0, draws, block):
        sums = _sums(differing, _drawn(random, block, len(differing)))
        above += int(np.count_nonzero(sums[: draws - first] >= least))
    return above / (draws + 1)


def _drawn(random: np.random.PCG64, ways: int, pairs: int) -> Int[np.ndarray, "W P"]:
    """Draw ways to exchange pairs, 1 to keep and 0 to exchange, from the lowest bit of every 32 of the generator."""
    words = random.random_raw((ways * pairs + 1) // 2).astype("<u8", copy=False)
    return (words.view(np.int8)[::4][: ways * pairs] & 1).reshape(ways, pairs)


def _sums(differing: Float[np.ndarray, " P"], kept: Int[np.ndarray, "W P"]) -> Float[np.ndarray, " W"]:
    """Return the sum of each way. Pairs are added one after another, so that results are equal on all processors."""
    signs = np.ascontiguousarray(kept.T) * np.int8(2) - np.int8(1)
    sums: np.ndarray = (signs * differing[:, None]).sum(axis=0)
    return sums


def bootstrap_difference(
    candidate: Float[np.ndarray, " E"],
    champion: Float[np.ndarray, " E"],
    confidence: float = 0.95,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the BCa bootstrap interval of the mean difference of paired scores (Efron 1987).

    A second opinion beside `paired_difference`. It assumes nothing about the scores but uses only observed values, so
    its width is zero where all pairs agree and too small where few differ. The same seed returns the same interval.
    """
    difference = candidate - champion
    estimate = math.fsum(difference) / len(difference)
    if len(difference) < 2 or np.ptp(difference) == 0:
        return Interval(estimate, estimate, estimate)
    found = stats.bootstrap(
        (difference,),
        np.mean,
        n_resamples=draws,
        batch=max(1, BLOCK // len(difference)),
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(estimate, float(found.low), float(found.high))
