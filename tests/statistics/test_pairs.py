"""Comparisons of pairs: against exact enumeration, second derivations and other libraries."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats import contingency_tables

from vqbet.contract import GateError
from vqbet.statistics import (
    Pairs,
    bootstrap_difference,
    exchange,
    mcnemar,
    paired_difference,
    pairs,
    stratified,
)
from vqbet.statistics.pairs import tango_zs

counts = st.integers(1, 200).flatmap(
    lambda episodes: st.integers(0, episodes).flatmap(
        lambda gained: st.integers(0, episodes - gained).map(lambda lost: Pairs(episodes, gained, lost))
    )
)


def arms(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Successes that count to `pairs`; half of the others succeed twice."""
    candidate, champion = np.zeros(pairs.episodes), np.zeros(pairs.episodes)
    candidate[: pairs.gained] = 1
    champion[pairs.gained : pairs.gained + pairs.lost] = 1
    both = slice(pairs.gained + pairs.lost, None, 2)
    candidate[both] = champion[both] = 1
    return candidate, champion


def enumerated(episodes: int, gained: float, lost: float) -> list[tuple[Pairs, float]]:
    """All counts and their probabilities."""
    found = []
    for one in range(episodes + 1):
        for two in range(episodes - one + 1):
            chance = stats.multinomial.pmf(
                [one, two, episodes - one - two], episodes, [gained, lost, 1 - gained - lost]
            )
            if chance > 1e-9:
                found.append((Pairs(episodes, one, two), float(chance)))
    return found


def z_of(pairs: Pairs, difference: float) -> float:
    """Tango's z of one pair of counts."""
    return float(tango_zs(pairs.episodes, np.array(pairs.gained), np.array(pairs.lost), difference))


@given(pairs=counts)
def test_mcnemars_p_value_is_that_of_another_library(pairs: Pairs) -> None:
    if pairs.gained > pairs.lost:
        table = [[0, pairs.gained], [pairs.lost, 0]]
        assert 2 * mcnemar(pairs) == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue, rel=1e-9)
    else:
        assert mcnemar(pairs) >= 0.5


@pytest.mark.parametrize("differing", [0.02, 0.1, 0.4])
def test_mcnemar_calls_equal_policies_better_at_most_as_often_as_it_says(differing: float) -> None:
    chances = enumerated(60, differing / 2, differing / 2)
    assert sum(chance for pairs, chance in chances if mcnemar(pairs) <= 0.05) <= 0.05


def test_three_lucky_seeds_of_200_are_no_evidence() -> None:
    """Three wins, no loss: z is 1.73, beyond 5 % one-sided; with a fair coin it happens once in eight times."""
    assert z_of(Pairs(200, 3, 0), 0.0) == pytest.approx(math.sqrt(3))
    assert mcnemar(Pairs(200, 3, 0)) == 0.125
    candidate, champion = arms(Pairs(200, 3, 0))
    assert exchange(candidate, champion) == 0.125
    assert exchange(0.5 * candidate, 0.5 * champion) == pytest.approx(0.125)


@given(pairs=counts, difference=st.integers(-90, 90).map(lambda percent: percent / 100))
def test_tangos_z_is_under_the_likeliest_distribution_with_that_difference(pairs: Pairs, difference: float) -> None:
    """Against a search for the share of lost pairs, and not the root of a quadratic equation."""
    ties = pairs.episodes - pairs.gained - pairs.lost

    def unlikely(lost: float) -> float:
        shares = np.maximum([lost + difference, lost, 1 - 2 * lost - difference], 1e-300)
        return -float(np.dot([pairs.gained, pairs.lost, ties], np.log(shares)))

    low, high = max(0.0, -difference), (1 - difference) / 2
    lost = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    deviation = math.sqrt(pairs.episodes * max(2 * lost + difference * (1 - difference), 1e-300))
    expected = (pairs.gained - pairs.lost - pairs.episodes * difference) / deviation
    if abs(expected) < 30:
        assert z_of(pairs, difference) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@given(pairs=counts)
def test_the_paired_difference_of_successes_is_tangos_interval(pairs: Pairs) -> None:
    """The ends by another way: where Tango's z, a formula for counts, is as large as the interval allows."""
    found = paired_difference(*arms(pairs))

    def end(limit: float, outermost: float) -> float:
        def beyond(difference: float) -> float:
            return z_of(pairs, difference) - limit

        estimate = pairs.difference
        if abs(outermost - estimate) < 1e-9 or beyond(outermost) * beyond(estimate) > 0:
            return round(outermost)
        return float(optimize.brentq(beyond, outermost, estimate, xtol=1e-12))

    low, high = end(1.959964, -1 + 1e-12), end(-1.959964, 1 - 1e-12)
    assert (found.estimate, found.low, found.high) == pytest.approx((pairs.difference, low, high), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("gained", "lost"), [(0.05, 0.05), (0.02, 0.07), (0.2, 0.1), (0.006, 0.056), (0.4, 0.4)])
def test_tangos_interval_covers_what_it_says(gained: float, lost: float) -> None:
    """Exact, at 100 pairs: not under 95 % by more than a point, and 0.3 points over 5 % on the side that lets pass."""
    chances = enumerated(100, gained, lost)
    z = np.array([z_of(pairs, gained - lost) for pairs, _ in chances])
    weights = np.array([chance for _, chance in chances])
    assert weights[np.abs(z) <= 1.95996].sum() >= 0.94
    assert weights[z > 1.64485].sum() <= 0.053


@pytest.mark.slow
def test_equal_policies_are_rarely_called_better_by_exchange() -> None:
    random = np.random.default_rng(3)
    pairs = random.beta(2, 1, (400, 2, 30)).round(1)
    assert np.mean([exchange(one, two, draws=500) <= 0.05 for one, two in pairs]) <= 0.05 + 0.022


@pytest.mark.parametrize("scores", [2, 10, 1000])
@pytest.mark.parametrize("episodes", [18, 41, 160])
def test_exchange_is_the_permutation_test_of_scipy(scores: int, episodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very same draws and sums, wherever a block ends: p-values are equal to the last bit."""
    random = np.random.default_rng(scores * episodes)
    one, two = (random.integers(1, scores, episodes, endpoint=True) / (scores + 1) for _ in range(2))
    differing = np.sort((one - two)[one != two])
    options = {"permutation_type": "samples", "n_resamples": 999, "alternative": "greater", "vectorized": True}
    expected = stats.permutation_test((differing,), np.sum, rng=np.random.default_rng(0), **options).pvalue
    for block in (1, 3 * episodes, 1 << 20):
        monkeypatch.setattr(pairs, "BLOCK", block)
        assert exchange(one, two, draws=999) == expected


def test_exchange_takes_every_way_of_few_pairs() -> None:
    random = np.random.default_rng(5)
    one, two = random.random((2, 9))
    ways = np.array(list(itertools.product((-1, 1), repeat=9)))
    assert exchange(one, two) == np.mean(ways @ (one - two) >= (one - two).sum() - 1e-12)


def test_exchange_keeps_its_memory_whatever_the_episodes() -> None:
    random = np.random.default_rng(0)
    one, two = random.random((2, 20_000))
    tracemalloc.start()
    exchange(one, two, draws=500)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 64 * 2**20


def test_a_bootstrap_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = np.random.default_rng(0).random((2, 101))
    whole = bootstrap_difference(one, two)
    monkeypatch.setattr(pairs, "BLOCK", 700)
    assert bootstrap_difference(one, two) == whole


def test_exchange_is_one_where_nothing_differs() -> None:
    assert exchange(np.full(9, 0.3), np.full(9, 0.3)) == 1.0
    assert exchange(np.array([0.3, 0.8]), np.array([0.3, 0.7])) == 0.5
    assert exchange(np.array([0.3, 0.7]), np.array([0.3, 0.8])) == 1.0


def test_one_pair_a_slice_is_mcnemars_test() -> None:
    pairs = Pairs(60, 14, 5)
    candidate, champion = arms(pairs)
    tables = [
        ((int(one), int(1 - one)), (int(two), int(1 - two))) for one, two in zip(candidate, champion, strict=True)
    ]
    z = (abs(pairs.gained - pairs.lost) - 1) / math.sqrt(pairs.gained + pairs.lost)
    assert stratified(tables) == pytest.approx(stats.norm.sf(z), rel=1e-6)


def test_slices_are_pooled_as_statsmodels_does_to_the_last_bit() -> None:
    random = np.random.default_rng(8)
    for _ in range(300):
        tables = random.integers(1, 400, (random.integers(1, 6), 2, 2))
        table = contingency_tables.StratifiedTable([one.T for one in tables])
        two_sided = float(table.test_null_odds(correction=True).pvalue)
        found = stratified([((int(a), int(b)), (int(c), int(d))) for (a, b), (c, d) in tables])
        assert found in (two_sided / 2, 1 - two_sided / 2)
        assert (found < 0.5) == (two_sided < 1 and found == two_sided / 2)


def test_slices_keep_an_easy_one_from_speaking_for_all() -> None:
    """Simpson's paradox: worse in both slices, and yet better when they are thrown together."""
    slices = [((18, 2), (76, 4)), ((24, 56), (8, 12))]
    together = [((95, 5), (42, 58))]
    assert stratified(slices) > 0.5
    assert stratified(together) < 1e-6
    assert stratified([((5, 0), (7, 0)), ((0, 4), (0, 4))]) == 1.0


@pytest.mark.slow
def test_equal_policies_are_rarely_called_better_over_slices() -> None:
    random = np.random.default_rng(4)
    shares, called = np.array([0.9, 0.5, 0.2]), 0
    for _ in range(2000):
        won = random.binomial(30, shares, (2, 3))
        called += stratified([((int(a), 30 - int(a)), (int(b), 30 - int(b))) for a, b in won.T]) <= 0.05
    assert called / 2000 <= 0.05


@pytest.mark.slow
def test_the_bootstrap_covers_what_it_says_where_scores_spread() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        easy = 0.7 * random.beta(4, 2, 60)
        candidate, champion = easy + 0.2 * random.random(60) + 0.05, easy + 0.2 * random.random(60)
        found = bootstrap_difference(candidate, champion, draws=500)
        covered += found.low <= 0.05 <= found.high
    assert covered / 400 >= 0.94 - 0.03  # three standard errors of 400 runs


def test_the_bootstrap_repeats_itself_and_has_no_width_where_all_agree() -> None:
    values = np.random.default_rng(6).random((2, 40))
    assert bootstrap_difference(*values) == bootstrap_difference(*values)
    found = bootstrap_difference(np.full(9, 0.5), np.full(9, 0.25))
    assert (found.low, found.estimate, found.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("wrong", [(0, 0, 0), (5, 3, 3), (5, -1, 0)])
def test_impossible_counts_are_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(GateError, match="gained \\+ lost <= episodes"):
        Pairs(*wrong)
    with pytest.raises(GateError, match="successes of one and"):
        Pairs.count(np.zeros(3, bool), np.zeros(2, bool))
