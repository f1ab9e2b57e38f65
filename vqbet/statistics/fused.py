"""Prediction-powered means: few measurements, sharpened by many predictions of the same quantity.

With measured values Y and predictions f on the same n conditions, and predictions on N others, the estimate is

    w mean(f, others) + mean(Y - w f)

which is unbiased for any weight w, however wrong the predictions (Angelopoulos et al. 2023, Science 382, 669-674).
w = cov(Y, f) / ((1 + n / N) var(f)), within 0..1, has the least variance (Angelopoulos, Duchi & Zrnic 2023,
arXiv:2311.01453, PPI++). The interval is the published one, with Student's t for the few measurements. It assumes that
the differences Y - w f are not all alike; where they are, they say nothing about their spread, and the interval is that
of the measured values alone (`means`), with w = 0. For a second opinion, not for a decision: an outcome that was not
observed is not allowed for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from vqbet.contract import GateError
from vqbet.statistics.means import Interval, expect_scores, mean_interval

SAME = 1e-12  # spread below which differences are all alike


@dataclass(frozen=True, slots=True)
class Fused:
    """A prediction-powered mean. weight: of the predictions, 0..1."""

    interval: Interval
    weight: float


def prediction_powered(
    measured: Float[np.ndarray, " n"],
    predicted: Float[np.ndarray, " n"],
    others: Float[np.ndarray, " N"],
    *,
    confidence: float = 0.95,
) -> Fused:
    """Return the mean of values in 0..1, of which `measured` were measured; `predicted` belongs to the same conditions.

    The estimate may lie outside 0..1, its interval does not. Raises GateError where a value lies outside, or measured
    and predicted values are no pairs.
    """
    mine, same, more = expect_scores(measured), expect_scores(predicted), expect_scores(others)
    if mine.shape != same.shape:
        raise GateError(f"expected pairs, got {len(mine)} measured values and {len(same)} predicted ones")
    weight = _weight(mine, same, more)
    rest = mine - weight * same
    if len(rest) < 2 or np.ptp(rest) < SAME:
        return Fused(mean_interval(mine, confidence), 0.0)
    estimate = weight * math.fsum(more) / len(more) + math.fsum(rest) / len(rest)
    error = math.sqrt(weight**2 * float(more.var()) / len(more) + float(rest.var(ddof=1)) / len(rest))
    reach = float(stats.t.ppf((1 + confidence) / 2, len(rest) - 1)) * error
    return Fused(Interval(estimate, max(estimate - reach, 0.0), min(estimate + reach, 1.0)), weight)


def _weight(measured: np.ndarray, predicted: np.ndarray, others: np.ndarray) -> float:
    together = np.concatenate([predicted, others])
    variance = float(together.var(ddof=1))
    if variance <= 0:
        return 0.0
    shared = float(np.mean((measured - measured.mean()) * (predicted - predicted.mean())))
    return min(max(shared / ((1 + len(measured) / len(others)) * variance), 0.0), 1.0)
