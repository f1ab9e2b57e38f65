"""Boundaries against published ones, and the promise that looking often costs nothing, by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest

from vqbet.contract import GateError
from vqbet.statistics import betting_interval, boundaries, log_wealth

RUNS = 3000
ALPHA = 0.05
MONTE_CARLO = 0.012  # three standard errors of a share of 5 % among RUNS


def obrien_fleming(alpha: float, share: float) -> float:
    """Almost nothing early, so that the last look is nearly that of a single one."""
    return 2 * (1 - NormalDist().cdf(NormalDist().inv_cdf(1 - alpha / 2) / math.sqrt(share)))


def pocock(alpha: float, share: float) -> float:
    """Evenly."""
    return alpha * math.log(1 + (math.e - 1) * share)


def quadratic(alpha: float, share: float) -> float:
    """Between the two: the gate's."""
    return alpha * share**2


Spending = Callable[[float, float], float]


def limits(shares: list[float], alpha: float, spending: Spending) -> list[float]:
    return boundaries(shares, [spending(alpha, share) for share in shares])


@pytest.mark.parametrize(
    ("spending", "published"),
    [
        (obrien_fleming, [4.3326, 2.9631, 2.3590, 2.0141]),
        (pocock, [2.3683, 2.3675, 2.3582, 2.3500]),
    ],
)
def test_boundaries_are_the_published_ones(spending: Spending, published: list[float]) -> None:
    """Four equally spaced looks, one-sided 2.5 %: gsDesign's sfLDOF and sfLDPocock print the same."""
    assert limits([0.25, 0.5, 0.75, 1.0], 0.025, spending) == pytest.approx(published, abs=1e-3)


def test_quadratic_spending_is_between_the_two() -> None:
    shares = [0.1, 0.25, 0.5, 1.0]
    late, even, found = (limits(shares, ALPHA, each) for each in (obrien_fleming, pocock, quadratic))
    assert found[0] == pytest.approx(3.2905, abs=1e-3)  # of 0.05 / 100
    assert late[0] > found[0] > even[0]
    assert late[-1] < found[-1] < even[-1]
    assert found[-1] < 1.76  # the last look costs as much as 12 % more episodes


def test_one_look_is_the_fixed_test() -> None:
    assert boundaries([1.0], [ALPHA]) == pytest.approx([1.64485], abs=1e-4)


@pytest.mark.parametrize("spending", [obrien_fleming, quadratic])
@pytest.mark.parametrize("shares", [[0.1, 0.2, 0.5, 1.0], [0.5, 1.0], [0.9, 1.0]])
def test_looks_together_err_as_often_as_they_say(shares: list[float], spending: Spending) -> None:
    steps = np.random.default_rng(1).standard_normal((40_000, len(shares))) * np.sqrt(np.diff([0.0, *shares]))
    z = steps.cumsum(axis=1) / np.sqrt(shares)
    crossed = (z > limits(shares, ALPHA, spending)).any(axis=1).mean()
    assert crossed == pytest.approx(ALPHA, abs=0.004)
    assert (z > 1.64485).any(axis=1).mean() > ALPHA + 0.01  # the planted fault: each look at the full error rate


DIFFERENCES = {  # of success, -1, 0 and 1, of policies that are equally good
    "rarely differ": (0.02, 0.96, 0.02),
    "often differ": (0.3, 0.4, 0.3),
    "always differ": (0.5, 0.0, 0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_bettor_is_rarely_rich_where_there_is_nothing_to_win(name: str) -> None:
    """Looking after each of 1,000 episodes; a fixed test that looks as often errs many times more."""
    steps = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], (RUNS, 1000), p=DIFFERENCES[name])
    wealth = log_wealth((steps + 1) / 2, 0.5, alpha=ALPHA, most=1000)
    assert (wealth.max(axis=1) >= math.log(1 / ALPHA)).mean() <= ALPHA
    z = steps.cumsum(axis=1) / np.sqrt(np.maximum(np.square(steps).cumsum(axis=1), 1))
    assert (z[:, 30:] > 1.64485).any(axis=1).mean() > 3 * ALPHA


def test_a_bettor_finds_a_difference() -> None:
    steps = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], (RUNS, 500), p=(0.1, 0.7, 0.2))
    wealth = log_wealth((steps + 1) / 2, 0.5, alpha=ALPHA, most=500)
    found = (wealth >= math.log(1 / ALPHA)).any(axis=1)
    assert found.mean() > 0.9
    when = (wealth >= math.log(1 / ALPHA)).argmax(axis=1)[found]
    assert np.median(when) < 300  # and most of the time well before the last episode


@pytest.mark.slow
@pytest.mark.parametrize("chances", [(0.02, 0.06, 0.92), (0.3, 0.4, 0.3), (0.9, 0.08, 0.02)])
def test_an_interval_that_may_be_looked_at_any_time_covers(chances: tuple[float, ...]) -> None:
    draws = np.random.default_rng(4).choice([0.0, 0.5, 1.0], (RUNS, 300), p=chances)
    truth = float(np.dot(chances, [0, 0.5, 1]))
    low = log_wealth(draws, truth, alpha=ALPHA, most=300).max(axis=1)
    high = log_wealth(1 - draws, 1 - truth, alpha=ALPHA, most=300).max(axis=1)
    assert (low >= math.log(1 / ALPHA)).mean() <= ALPHA
    assert (high >= math.log(1 / ALPHA)).mean() <= ALPHA


def test_the_intervals_ends_are_where_the_bettor_gets_rich() -> None:
    values = np.random.default_rng(5).beta(3, 2, 200)
    found = betting_interval(values, alpha=ALPHA, most=200)
    assert found.estimate == pytest.approx(values.mean())
    assert found.low < found.estimate < found.high
    rich = math.log(1 / ALPHA)
    assert log_wealth(values, found.low - 1e-6, alpha=ALPHA, most=200).max() >= rich
    assert log_wealth(values, found.low + 1e-6, alpha=ALPHA, most=200).max() < rich
    assert log_wealth(1 - values, 1 - found.high - 1e-6, alpha=ALPHA, most=200).max() >= rich
    assert betting_interval(np.array([0.4]), alpha=ALPHA, most=200).low == 0.0


def test_an_interval_only_narrows() -> None:
    values = np.random.default_rng(6).random(120)
    found = [betting_interval(values[:count], alpha=ALPHA, most=120) for count in (10, 40, 80, 120)]
    assert all(one.low <= two.low and two.high <= one.high for one, two in pairwise(found))


def test_wealth_falls_as_the_mean_that_is_doubted_rises() -> None:
    values = np.random.default_rng(7).random(80)
    wealth = np.array([log_wealth(values, mean, alpha=ALPHA, most=80) for mean in np.linspace(0.0, 1.0, 21)])
    assert (np.diff(wealth, axis=0) <= 1e-12).all()


@pytest.mark.parametrize("shares", [[], [0.5], [0.5, 0.4, 1.0], [0.0, 1.0], [0.5, 1.0, 1.0]])
def test_looks_that_are_none_are_refused(shares: list[float]) -> None:
    with pytest.raises(GateError, match="ascending shares of the episodes that end with 1"):
        limits(shares, ALPHA, quadratic)


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(GateError, match="alpha between 0 and 1"):
        boundaries([1.0], [1.0])
    for spent in ([ALPHA], [ALPHA, ALPHA / 2], [ALPHA, ALPHA]):
        with pytest.raises(GateError, match="an ascending error rate for each of 2 looks"):
            boundaries([0.5, 1.0], spent)
    with pytest.raises(GateError, match=r"scores in 0\.\.1, got 1\.5"):
        betting_interval(np.array([1.5]), alpha=ALPHA, most=9)
