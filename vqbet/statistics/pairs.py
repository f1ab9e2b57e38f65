"""Two policies that succeed or fail on the same initial conditions: tests, intervals, slices.

Of E pairs, `gained` are those that only the candidate solved, `lost` those that only the champion did; the others say
nothing about which is better. The difference of success rates is (gained - lost) / E.
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

BLOCK = 1 << 20  # pairs times ways to exchange them that are held at once: about 20 MB
SAME = 100 * np.finfo(np.float64).eps  # of a sum: two that are closer differ by rounding only


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
        """Successes by initial condition. Raises GateError where the lengths differ."""
        if candidate.shape != champion.shape:
            raise GateError(f"expected pairs, got {candidate.shape} successes of one and {champion.shape} of the other")
        return cls(len(candidate), int((candidate & ~champion).sum()), int((champion & ~candidate).sum()))

    @property
    def difference(self) -> float:
        return (self.gained - self.lost) / self.episodes


def mcnemar(pairs: Pairs) -> float:
    """The one-sided exact p-value of "the candidate is not better" (McNemar 1947, Psychometrika 12).

    Of the pairs in which they differ, as many are gained as heads fall with a fair coin.
    """
    differing = pairs.gained + pairs.lost
    return float(stats.binom.sf(pairs.gained - 1, differing, 0.5)) if differing else 1.0


def tango_zs(
    episodes: int, gained: Int[np.ndarray, " N"], lost: Int[np.ndarray, " N"], difference: float
) -> Float[np.ndarray, " N"]:
    """Standard errors by which observed differences lie above `difference`, estimated as if that were true.

    Infinite where what was observed is impossible then. Tango's interval is the differences of which this is small: for
    successes, `means.paired_difference`.

    q, the likeliest share of lost pairs where that of gained ones is q + difference, is the larger root of
    2 E q^2 + b q + c (Tango 1998, equation 8; b and c from setting the derivative of the log-likelihood to zero).
    """
    b = (2 * episodes - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    q = (np.sqrt(np.maximum(b * b - 8 * episodes * c, 0.0)) - b) / (4 * episodes)
    variance = episodes * np.maximum(2 * q + difference * (1 - difference), 0.0)
    away = gained - lost - episodes * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, away / np.sqrt(variance), np.where(away == 0, 0.0, np.copysign(np.inf, away)))


def stratified(tables: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> float:
    """The one-sided p-value of "in no slice does the candidate succeed more often", for episodes that are not paired.

    Of each slice: (successes, failures) of the candidate, then of the champion. Cochran (1954) and Mantel and Haenszel
    (1959), with continuity correction. With one pair a slice this is McNemar's test, without its exactness. A slice in
    which all succeed or all fail says nothing; where all slices are so, the p-value is 1.
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

    The chi-square of Mantel and Haenszel (1959): the successes of the first row, less what the margins let expect,
    over the hypergeometric variance.
    """
    mine, theirs = tables.sum(axis=2).T
    won, lost = tables.sum(axis=1).T
    total = tables.sum(axis=(1, 2))
    excess = abs(np.sum(tables[:, 0, 0] - won * mine / total)) - 0.5
    variance = np.sum(won * mine * theirs * lost / (total**2 * (total - 1)))
    return float(1 - stats.chi2.cdf(excess**2 / variance, 1))


def exchange(candidate: Float[np.ndarray, " E"], champion: Float[np.ndarray, " E"], *, draws: int = 9999) -> float:
    """The one-sided p-value of "which is which makes no difference": exact for policies that are equally good.

    The share of all ways to exchange candidate and champion in each pair that give a difference as large; for successes
    `mcnemar`. Where there are more than `draws` ways, so many of them, always the same ones.
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
    above, random = 1, np.random.PCG64(0)  # 1: as they were played
    block = max(2, BLOCK // len(differing) // 2 * 2)  # even: the generator has two draws in a word
    for first in range(0, draws, block):
        sums = _sums(differing, _drawn(random, block, len(differing)))
        above += int(np.count_nonzero(sums[: draws - first] >= least))
    return above / (draws + 1)


def _drawn(random: np.random.PCG64, ways: int, pairs: int) -> Int[np.ndarray, "W P"]:
    """Draw ways to exchange pairs: 1 keeps a pair, 0 exchanges it, the lowest bit of each 32 of the generator."""
    words = random.random_raw((ways * pairs + 1) // 2).astype("<u8", copy=False)
    return (words.view(np.int8)[::4][: ways * pairs] & 1).reshape(ways, pairs)


def _sums(differing: Float[np.ndarray, " P"], kept: Int[np.ndarray, "W P"]) -> Float[np.ndarray, " W"]:
    """Return the sum of each way. Pairs are added one after the other, so that no processor's arithmetic shows."""
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
    """The bootstrap interval of the mean difference of paired scores, bias-corrected and accelerated (Efron 1987).

    A second opinion beside `paired_difference`: it assumes nothing of the scores but sees only what was observed, so it
    has no width where all pairs agree and is too short where few differ. The same seed gives the same interval.
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
