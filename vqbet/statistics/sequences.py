"""Sequential inference: interim looks at episodes that keep the error rate, however often one looks.

Two methods. Planned looks, each with a share of the error rate (`boundaries`: Lan & DeMets 1983, Biometrika 70). Or a
look after every episode: a bettor against "the mean is at most m" starts with wealth 1. If the hypothesis is true, the
wealth ever reaches 1 / alpha with probability alpha at most (Ville's inequality), for any distribution of scores in
0..1 (`betting_interval`: Waudby-Smith & Ramdas 2024, JRSS B 86, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Float
from scipy import optimize, special

from vqbet.contract import GateError
from vqbet.statistics.means import Interval, expect_scores, expect_share

HORIZONS = (1.0, 1 / 4, 1 / 16)  # fractions of the most episodes; a third of the wealth is bet optimally for each
LARGEST_BET = 0.5  # share of the wealth; all of it could be lost in one episode (c in the paper)
GRID = 2001  # points of the density of a random walk between two looks
REACH = 8.0  # standard deviations below zero where the density is cut off


def boundaries(shares: Sequence[float], spent: Sequence[float]) -> list[float]:
    """Return the boundary of a z statistic at each look; with no difference, any is crossed with chance `spent[-1]`.

    shares: fraction of the most episodes at each look, ascending to 1. spent: cumulative error rate at each look,
    ascending. Skipped looks make the boundaries conservative. Raises GateError where shares or spent break these rules.
    """
    ascending = all(earlier < later for earlier, later in zip([0.0, *shares], shares, strict=False))
    if not shares or not ascending or shares[-1] != 1.0:
        raise GateError(f"looks: expected ascending shares of the episodes that end with 1, got {list(shares)}")
    for rate in spent:
        expect_share("alpha", rate)
    if len(spent) != len(shares) or list(spent) != sorted(set(spent)):
        raise GateError(f"looks: expected an ascending error rate for each of {len(shares)} looks, got {list(spent)}")
    found = [NormalDist().inv_cdf(1 - spent[0])]
    walk = np.linspace(-REACH, found[0], GRID) * math.sqrt(shares[0])  # z times the root of the share is a random walk
    density = _normal(walk / math.sqrt(shares[0])) / math.sqrt(shares[0])
    for look in range(1, len(shares)):
        deviation = math.sqrt(shares[look] - shares[look - 1])
        weights = density * _trapezoid(walk)
        wanted = spent[look] - spent[look - 1]

        def crossed(z: float, at: float = math.sqrt(shares[look]), deviation: float = deviation) -> float:
            return float(weights @ special.ndtr((walk - z * at) / deviation)) - wanted  # noqa: B023  # called at once

        z = float(optimize.brentq(crossed, -REACH, REACH))
        found.append(z)
        after = np.linspace(-REACH, z, GRID) * math.sqrt(shares[look])
        density = _normal((after[:, None] - walk[None]) / deviation) @ weights / deviation
        walk = after
    return found


def log_wealth(scores: Float[np.ndarray, "*R E"], mean: float, *, alpha: float, most: int) -> Float[np.ndarray, "*R E"]:
    """Return the log wealth, after each episode, of a bettor against "the mean is at most `mean`"; scores in 0..1.

    Each bet depends only on earlier episodes. most: the largest number of episodes. The wealth decreases in `mean`.
    """
    seen = np.arange(1, scores.shape[-1] + 1)
    centre = (0.5 + scores.cumsum(axis=-1)) / (seen + 1)
    variance = (0.25 + np.square(scores - centre).cumsum(axis=-1)) / (seen + 1)
    before = np.concatenate([np.full_like(variance[..., :1], 0.25), variance[..., :-1]], axis=-1)
    owned = []
    for horizon in HORIZONS:
        bet = np.sqrt(2 * math.log(1 / alpha) / (max(horizon * most, 1.0) * before))
        bet = np.minimum(bet, LARGEST_BET / max(mean, 1e-12))
        owned.append(np.log1p(bet * (scores - mean)).cumsum(axis=-1))
    mixed: np.ndarray = special.logsumexp(np.stack(owned), axis=0) - math.log(len(HORIZONS))
    return mixed


def betting_interval(scores: Float[np.ndarray, " E"], *, alpha: float, most: int) -> Interval:
    """Return the interval of means in 0..1 that no bettor has rejected so far; `scores` in the order of the episodes.

    Each end errs at any time with probability alpha at most. Raises GateError where a score lies outside 0..1.
    """
    scores = expect_scores(scores)
    expect_share("alpha", alpha)
    low = _lowest(scores, alpha, most)
    high = 1 - _lowest(1 - scores, alpha, most)
    return Interval(math.fsum(scores) / len(scores), low, high)


def _lowest(scores: Float[np.ndarray, " E"], alpha: float, most: int) -> float:
    limit = math.log(1 / alpha)

    def refused(mean: float) -> bool:
        return bool(log_wealth(scores, mean, alpha=alpha, most=most).max() >= limit)

    if not refused(0.0):
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if refused(middle) else (low, middle)
    return low


def _normal(x: np.ndarray) -> np.ndarray:
    density: np.ndarray = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return density


def _trapezoid(points: np.ndarray) -> np.ndarray:
    weights = np.full(len(points), points[1] - points[0])
    weights[[0, -1]] /= 2
    return weights
