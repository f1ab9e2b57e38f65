"""Intervals against published numbers, and their coverage by simulation with fixed seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqbet.contract import GateError
from vqbet.evaluation import statistics
from vqbet.evaluation.statistics import mean_interval, mode_entropy, paired_difference, wilson

RUNS = 3000

scores = st.lists(st.floats(0, 1), min_size=1, max_size=60).map(np.array)


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, episodes: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3."""
    interval = wilson(successes, episodes)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@settings(max_examples=60, deadline=None)
@given(episodes=st.integers(1, 500), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_of_successes_the_mean_interval_is_wilsons(episodes: int, share: float, confidence: float) -> None:
    successes = round(share * episodes)
    values = np.repeat([1.0, 0.0], [successes, episodes - successes])
    one, two = mean_interval(values, confidence), wilson(successes, episodes, confidence)
    assert (one.estimate, one.low, one.high) == pytest.approx((two.estimate, two.low, two.high), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(values=scores)
def test_an_interval_holds_its_estimate_has_width_and_does_not_depend_on_order(values: np.ndarray) -> None:
    interval = mean_interval(values)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.high - interval.low > 0
    assert mean_interval(values[::-1]) == interval


@settings(max_examples=60, deadline=None)
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


@pytest.mark.parametrize("name", THREE)
def test_coverage_at_200_episodes(name: str) -> None:
    """Within 1.5 points below nominal on each side (2.5 % each); above it only where nearly all scores agree."""
    chances = np.array(THREE[name])
    draws = np.random.default_rng(1).choice([0.0, 0.5, 1.0], (RUNS, 200), p=chances)
    truth = float(chances @ [0, 0.5, 1])
    intervals = [mean_interval(row) for row in draws]
    too_high = sum(interval.low > truth for interval in intervals) / RUNS
    too_low = sum(interval.high < truth for interval in intervals) / RUNS
    assert too_high <= 0.04
    assert too_low <= 0.04
    assert 1 - too_high - too_low >= 0.935


def test_students_interval_fails_where_ours_holds() -> None:
    """The planted fault: without the two added scores, intervals near 1 are too short, or have no width."""
    draws = np.random.default_rng(1).choice([0.0, 0.5, 1.0], (RUNS, 200), p=THREE["nearly always 1"])
    low = draws.mean(axis=1) - 1.972 * draws.std(axis=1, ddof=1) / math.sqrt(200)
    assert (low > 0.985).mean() > 0.10


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.3])
def test_coverage_of_a_paired_difference_of_continuous_scores(spread: float) -> None:
    """Coverage-like scores: initial conditions differ much, the policies little, the candidate is 0.02 better."""
    random = np.random.default_rng(2)
    easy = random.beta(8, 3, (RUNS, 200)) * (0.96 - spread)
    champion = easy + spread * random.random((RUNS, 200))
    candidate = easy + spread * random.random((RUNS, 200)) + 0.02
    intervals = [paired_difference(one, two) for one, two in zip(candidate, champion, strict=True)]
    covered = sum(interval.low <= 0.02 <= interval.high for interval in intervals) / RUNS
    assert covered >= 0.935


def test_pairing_is_worth_it() -> None:
    random = np.random.default_rng(3)
    easy = random.random(200) * 0.9
    champion, candidate = easy + 0.05 * random.random(200), easy + 0.05 * random.random(200) + 0.04
    assert paired_difference(candidate, champion).low > 0
    shuffled = paired_difference(random.permutation(candidate), champion)
    assert shuffled.low < 0 < shuffled.high


def test_three_lucky_seeds_of_200_are_no_evidence() -> None:
    """3 wins, 0 losses: an exact sign test gives 0.125, the asymptotic one would promote at 0.05 one-sided."""
    champion, candidate = np.zeros(200), np.zeros(200)
    candidate[:3] = 1
    assert paired_difference(candidate, champion, confidence=0.90).low < 0


def test_episodes_to_decide_is_where_the_interval_first_decides() -> None:
    values = np.repeat([1.0, 0.0], [110, 90])
    needed = statistics.episodes_to_decide(values, above=0.5, below=0.5)
    assert needed is not None
    assert 350 < needed < 420  # (1.96 / 0.05)**2 / 4 = 384
    assert wilson(round(0.55 * needed), needed).low == pytest.approx(0.5, abs=2e-3)
    assert statistics.episodes_to_decide(values, above=0.3, below=0.3) == 200
    assert statistics.episodes_to_decide(values, above=0.5, below=0.7) == 200  # already below 0.7
    assert statistics.episodes_to_decide(np.repeat([1.0, 0.0], 100), above=0.5, below=0.5) is None


def test_paired_episodes_to_decide_speaks_of_differences() -> None:
    random = np.random.default_rng(4)
    champion = random.integers(0, 2, 400).astype(float)
    candidate = np.where(random.random(400) < 0.1, 1 - champion, champion)
    difference = paired_difference(candidate, champion)
    needed = statistics.paired_episodes_to_decide(candidate, champion, above=difference.low, below=-1.0)
    assert needed is not None
    assert needed in (400, 401)


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
    with pytest.raises(GateError, match="3 scores of the candidate and 2"):
        paired_difference(np.zeros(3), np.zeros(2))
