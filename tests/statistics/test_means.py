"""Intervals against published numbers, and their coverage by simulation with fixed seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from tests.support.examples import up_to
from vqbet import statistics
from vqbet.contract import GateError
from vqbet.statistics import clopper_pearson, mean_interval, mode_entropy, paired_difference, wilson
from vqbet.statistics.means import Sample

RUNS = 3000
TWO_SIDED, ONE_SIDED = 1.95996, 1.64485  # z at 95 %
MONTE_CARLO = 0.008  # three standard errors of a share of 2.5 % among RUNS

scores = st.lists(st.floats(0, 1), min_size=1, max_size=60).map(np.array)


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, episodes: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3."""
    interval = wilson(successes, episodes)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@given(episodes=st.integers(1, 500), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_of_successes_the_mean_interval_is_wilsons(episodes: int, share: float, confidence: float) -> None:
    successes = round(share * episodes)
    values = np.repeat([1.0, 0.0], [successes, episodes - successes])
    one, two = mean_interval(values, confidence), wilson(successes, episodes, confidence)
    assert (one.estimate, one.low, one.high) == pytest.approx((two.estimate, two.low, two.high), abs=1e-9)


@pytest.mark.slow
@up_to(30)
@given(episodes=st.integers(1, 300), share=st.integers(0, 1000).map(lambda thousandth: thousandth / 1000))
def test_clopper_and_pearson_never_cover_less_than_they_say(episodes: int, share: float) -> None:
    """Against the sums of the binomial distribution that define the interval."""
    found = clopper_pearson(round(share * episodes), episodes, 0.9)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    successes = np.arange(episodes + 1)
    chances = stats.binom.pmf(successes, episodes, share)
    ends = [clopper_pearson(int(count), episodes, 0.9) for count in successes[chances > 1e-6]]
    covered = [interval.low <= share <= interval.high for interval in ends]
    assert chances[chances > 1e-6][covered].sum() >= 0.9 - 1e-3


def test_of_a_few_distinct_scores_the_weights_are_the_likeliest() -> None:
    """The variance against a search over all distributions on these scores and the ends that have the mean."""
    values = np.repeat([0.2, 0.5, 0.9], [7, 2, 4])
    support, counts = np.array([0.0, 0.2, 0.5, 0.9, 1.0]), np.array([0, 7, 2, 4, 0])
    for mean in (0.1, 0.3, 0.47, 0.7, 0.95):
        found = optimize.minimize(
            lambda weights: -counts @ np.log(np.maximum(weights, 1e-12)),
            np.full(5, 0.2),
            bounds=[(0, 1)] * 5,
            constraints=[
                {"type": "eq", "fun": lambda weights: weights.sum() - 1},
                {"type": "eq", "fun": lambda weights, mean=mean: weights @ support - mean},
            ],
            options={"ftol": 1e-12, "maxiter": 500},
        ).x
        variance = found @ np.square(support - mean)
        expected = (values.mean() - mean) * math.sqrt(len(values) / variance)
        assert Sample.of(values).z(mean) == pytest.approx(expected, rel=2e-3)


@given(values=scores)
def test_an_interval_holds_its_estimate_has_width_and_does_not_depend_on_order(values: np.ndarray) -> None:
    interval = mean_interval(values)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.high - interval.low > 0
    assert mean_interval(values[::-1]) == interval


@given(values=scores, data=st.data())
def test_a_paired_difference_changes_sign_with_its_arms(values: np.ndarray, data: st.DataObject) -> None:
    others = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(values), max_size=len(values))))
    one, two = paired_difference(values, others), paired_difference(others, values)
    assert (one.estimate, one.low, one.high) == pytest.approx((-two.estimate, -two.high, -two.low), abs=1e-9)
    assert -1 <= one.low <= one.estimate + 1e-12
    assert one.estimate - 1e-12 <= one.high <= 1


THREE = {  # probability of the scores 0, 0.5 and 1, as of no, one or two blocks
    "nearly always 1": (0.01, 0.01, 0.98),
    "often 1": (0.02, 0.06, 0.92),
    "good": (0.05, 0.25, 0.70),
    "mixed": (0.30, 0.40, 0.30),
    "successes": (0.10, 0.00, 0.90),
    "poor": (0.90, 0.08, 0.02),
    "nearly always half": (0.02, 0.96, 0.02),
}


@pytest.mark.slow
@pytest.mark.parametrize("episodes", [50, 200])
@pytest.mark.parametrize("name", THREE)
def test_coverage(name: str, episodes: int) -> None:
    """Not under nominal by more than a point; what lets a policy pass that should not errs least."""
    chances = np.array(THREE[name])
    draws = np.random.default_rng(1).choice([0.0, 0.5, 1.0], (RUNS, episodes), p=chances)
    z = np.array([Sample.of(row).z(float(chances @ [0, 0.5, 1])) for row in draws])
    assert (np.abs(z) <= TWO_SIDED).mean() >= 0.94
    if name != "poor":  # for rare successes Wilson's is no better: 3.5 % instead of 2.5
        assert (z > TWO_SIDED).mean() <= 0.025 + MONTE_CARLO


def test_students_interval_fails_where_ours_holds() -> None:
    """The planted fault: 3 % of episodes lose everything, which few samples of 50 show in full."""
    random = np.random.default_rng(1)
    lost = random.random((RUNS, 50)) < 0.03
    values = np.where(lost, -random.random((RUNS, 50)), 0.02 * random.standard_normal((RUNS, 50)).clip(-3, 3))
    student = (values.mean(axis=1) + 0.015) / values.std(axis=1, ddof=1) * math.sqrt(50)
    assert (student > 1.676).mean() > 0.25
    ours = np.array([Sample.of((row + 1) / 2).z((1 - 0.015) / 2) for row in values])
    assert (ours > ONE_SIDED).mean() <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.02, 0.1, 0.3])
def test_coverage_of_a_paired_difference_of_continuous_scores(spread: float) -> None:
    """Coverage-like scores: initial conditions differ much, the policies little, the candidate is 0.02 better."""
    random = np.random.default_rng(2)
    easy = random.beta(8, 3, (RUNS, 200)) * (0.96 - spread)
    champion = easy + spread * random.random((RUNS, 200))
    candidate = easy + spread * random.random((RUNS, 200)) + 0.02
    z = np.array([Sample.of(row).z(0.51) for row in (candidate - champion + 1) / 2])
    assert (np.abs(z) <= TWO_SIDED).mean() >= 0.94


def test_pairing_is_worth_it() -> None:
    random = np.random.default_rng(3)
    easy = random.random(200) * 0.9
    champion, candidate = easy + 0.05 * random.random(200), easy + 0.05 * random.random(200) + 0.04
    assert paired_difference(candidate, champion).low > 0
    shuffled = paired_difference(random.permutation(candidate), champion)
    assert shuffled.low < 0 < shuffled.high


def test_episodes_to_decide_is_where_the_interval_first_decides() -> None:
    values = np.repeat([1.0, 0.0], [110, 90])
    needed = statistics.episodes_to_decide(values, above=0.5, below=0.5)
    assert needed is not None
    assert 350 < needed < 420  # (1.96 / 0.05)**2 / 4 = 384
    assert wilson(round(0.55 * needed), needed).low == pytest.approx(0.5, abs=2e-3)
    assert statistics.episodes_to_decide(values, above=0.3, below=0.3) == 200
    assert statistics.episodes_to_decide(values, above=0.5, below=0.7) == 200  # already below 0.7
    assert statistics.episodes_to_decide(np.repeat([1.0, 0.0], 100), above=0.5, below=0.5) is None


@pytest.mark.parametrize(
    ("modes", "bits"),
    [(["a", "b", "c", "d"] * 5, 2.0), (["a"] * 9, 0.0), (["a", "b", ""], 1.0), (["", ""], 0.0), ([], 0.0)],
)
def test_mode_entropy(modes: list[str], bits: float) -> None:
    assert mode_entropy(modes) == pytest.approx(bits)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.zeros(0), "one score per episode"),
        (np.zeros((2, 2)), r"shape \(2, 2\)"),
        (np.array([0.5, np.nan]), "got nan at position 1"),
        (np.array([0.5, 1.5]), "got 1.5 at position 1"),
    ],
)
def test_scores_outside_their_range_are_refused(values: np.ndarray, sentence: str) -> None:
    with pytest.raises(GateError, match=sentence):
        mean_interval(values)


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(GateError, match="3 of 2"):
        wilson(3, 2)
    with pytest.raises(GateError, match="0 of 0"):
        wilson(0, 0)
    with pytest.raises(GateError, match="confidence between 0 and 1"):
        wilson(1, 2, confidence=1.0)
    with pytest.raises(GateError, match="3 of 2"):
        clopper_pearson(3, 2)
    with pytest.raises(GateError, match="3 scores of the candidate and 2"):
        paired_difference(np.zeros(3), np.zeros(2))
