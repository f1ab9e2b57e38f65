"""Prediction-powered means: the published estimate, and coverage where it is used, with few measurements."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqbet import statistics
from vqbet.contract import GateError

scores = st.floats(0, 1)


def reference(measured: np.ndarray, predicted: np.ndarray, others: np.ndarray) -> tuple[float, float, float]:
    """Weight, estimate and standard error as in PPI++ (arXiv:2311.01453), written from its equations."""
    n, N = len(measured), len(others)
    every = np.concatenate([predicted, others])
    covariance = (
        sum((y - measured.mean()) * (f - predicted.mean()) for y, f in zip(measured, predicted, strict=True)) / n
    )
    weight = min(max(covariance / ((1 + n / N) * every.var(ddof=1)), 0.0), 1.0) if every.var() > 0 else 0.0
    estimate = weight * others.mean() + (measured - weight * predicted).mean()
    error = math.sqrt(weight**2 * others.var() / N + (measured - weight * predicted).var() / n)
    return weight, estimate, error


def drawn(random: np.random.Generator, n: int, N: int, agree: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measured and predicted differences of paired successes, mapped to 0..1; agree: how often they are the same."""
    values, chances = np.array([0.0, 0.5, 1.0]), [0.1, 0.6, 0.3]
    predicted = random.choice(values, n + N, p=chances)
    same = random.uniform(size=n) < agree
    measured = np.where(same, predicted[:n], random.choice(values, n, p=chances))
    return measured, predicted[:n], predicted[n:]


TRUE = 0.6


@pytest.mark.parametrize("agree", [0.0, 0.5, 0.9])
def test_with_many_values_it_is_the_published_estimate_and_interval(agree: float) -> None:
    rows = drawn(np.random.default_rng(0), 2000, 6000, agree)
    weight, estimate, error = reference(*rows)
    found = statistics.prediction_powered(*rows)
    assert (found.weight, found.interval.estimate) == pytest.approx((weight, estimate), abs=1e-12)
    assert found.interval.high - found.interval.low == pytest.approx(2 * 1.959964 * error, rel=0.002)


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=12), st.lists(scores, min_size=1, max_size=12))
def test_the_estimate_is_the_published_one_for_any_values_and_lies_in_its_interval(
    pairs: list[tuple[float, float]], more: list[float]
) -> None:
    measured, predicted = (np.array(row) for row in zip(*pairs, strict=True))
    others = np.array(more)
    weight, estimate, _ = reference(measured, predicted, others)
    found = statistics.prediction_powered(measured, predicted, others)
    if found.weight or not weight:
        alone = (0.0, measured.mean())
        wanted = alone if found.interval == statistics.mean_interval(measured) else (weight, estimate)
        assert (found.weight, found.interval.estimate) == pytest.approx(wanted, abs=1e-6)
    assert found.interval.low <= min(max(found.interval.estimate, 0), 1) + 1e-9
    assert found.interval.high >= max(min(found.interval.estimate, 1), 0) - 1e-9
    assert 0 <= found.interval.low <= found.interval.high <= 1


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20, 40])
@pytest.mark.parametrize("agree", [0.0, 0.5, 0.9])
def test_the_interval_covers_the_truth_with_few_measurements(n: int, agree: float) -> None:
    random, covered, runs = np.random.default_rng(n), 0, 600
    for _ in range(runs):
        interval = statistics.prediction_powered(*drawn(random, n, 150, agree)).interval
        covered += interval.low <= TRUE <= interval.high
    assert covered / runs >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs)


def test_predictions_that_agree_shorten_the_interval_and_useless_ones_leave_it() -> None:
    random = np.random.default_rng(3)
    for agree, least, most in ((0.9, 0.3, 0.7), (0.0, 0.8, 1.2)):
        rows = drawn(random, 30, 300, agree)
        alone = statistics.mean_interval(rows[0])
        found = statistics.prediction_powered(*rows).interval
        assert least < (found.high - found.low) / (alone.high - alone.low) < most
    measured = np.array([0.0, 1.0, 1.0, 0.5])
    constant = statistics.prediction_powered(measured, np.full(4, 0.5), np.full(9, 0.5))
    assert constant.weight == 0
    assert constant.interval.estimate == statistics.mean_interval(measured).estimate


def test_measurements_that_are_all_alike_have_the_interval_that_allows_for_others() -> None:
    """All pairs tied, or all as simulated: the published interval would have no width, or that of the simulation."""
    alike, varied = np.full(10, 0.5), np.array([0.0, 0.5, 0.5, 1.0, 0.5, 0.5, 0.5, 0.5, 0.0, 1.0])
    found = statistics.prediction_powered(alike, varied, np.tile(varied, 5))
    assert found == statistics.Fused(statistics.mean_interval(alike), 0.0)
    assert found.interval.high - found.interval.low > 0.2
    single = statistics.prediction_powered(np.array([1.0]), np.array([0.5]), varied)
    assert single == statistics.Fused(statistics.mean_interval(np.array([1.0])), 0.0)


def test_predictions_that_are_wrong_do_not_move_the_estimate() -> None:
    """A simulation that flatters by 0.3: its mean is off, the difference to the measurements takes it back."""
    random, found = np.random.default_rng(1), []
    for _ in range(300):
        measured, predicted, others = drawn(random, 40, 300, 0.8)
        flattered = [np.clip(row + 0.3, 0, 1) for row in (predicted, others)]
        found.append(statistics.prediction_powered(measured, *flattered).interval.estimate)
    assert np.mean(found) == pytest.approx(TRUE, abs=0.012)


def test_what_is_no_pair_or_no_score_is_refused() -> None:
    with pytest.raises(GateError, match="expected pairs, got 2 measured values and 1 predicted ones"):
        statistics.prediction_powered(np.array([0.0, 1.0]), np.array([0.5]), np.array([0.5]))
    with pytest.raises(GateError, match=r"expected scores in 0\.\.1"):
        statistics.prediction_powered(np.array([2.0]), np.array([0.5]), np.array([0.5]))
