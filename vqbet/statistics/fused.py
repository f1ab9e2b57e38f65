"""Prediction-powered means: few measurements, sharpened by many predictions of the same quantity.

With measured values Y and predictions f on the same n conditions, and predictions on N others, the estimate is

    w mean(f, others) + mean(Y - w f)

which is unbiased for any weight w, however wrong the predictions (Angelopoulos et al. 2023, Science 382, 669-674).
w = cov(Y, f) / ((1 + n / N) var(f)), within 0..1, has the least variance (Angelopoulos, Duchi & Zrnic 2023,
arXiv:2311.01453, PPI++). The two means have intervals as in `means`, which hold for few values, and are combined by
their distances from the estimates (Zou & Donner 2008, Statistics in Medicine 27, 1693-1702). With w = 0 the interval is
the one of the measured values alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vqbet.contract import GateError
from vqbet.statistics.means import Interval, expect_scores, mean_interval


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

    Raises GateError where a value lies outside 0..1, or measured and predicted values are no pairs.
    """
    mine, same, more = expect_scores(measured), expect_scores(predicted), expect_scores(others)
    if mine.shape != same.shape:
        raise GateError(f"expected pairs, got {len(mine)} measured values and {len(same)} predicted ones")
    weight = _weight(mine, same, more)
    rest = mean_interval((mine - weight * same + weight) / (1 + weight), confidence)
    left = Interval(*((1 + weight) * end - weight for end in (rest.estimate, rest.low, rest.high)))
    told = mean_interval(more, confidence)
    estimate = weight * told.estimate + left.estimate
    below = math.hypot(left.estimate - left.low, weight * (told.estimate - told.low))
    above = math.hypot(left.high - left.estimate, weight * (told.high - told.estimate))
    return Fused(Interval(estimate, max(estimate - below, 0.0), min(estimate + above, 1.0)), weight)


def _weight(measured: np.ndarray, predicted: np.ndarray, others: np.ndarray) -> float:
    together = np.concatenate([predicted, others])
    variance = float(together.var(ddof=1))
    if variance <= 0:
        return 0.0
    shared = float(np.mean((measured - measured.mean()) * (predicted - predicted.mean())))
    return min(max(shared / ((1 + len(measured) / len(others)) * variance), 0.0), 1.0)
