"""Results on disk and pooled: what comes back, what is refused, which seeds and sizes count, what is compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import more
from tests.support.results import made
from vqbet import statistics
from vqbet.comparison import results
from vqbet.comparison.results import Result
from vqbet.contract import GateError
from vqbet.evaluation import records
from vqbet.files import canonical
from vqbet.statistics import Interval

SIZES = ("small", "large")


def stored(tmp_path: Path, result: Result, change: Callable[[dict[str, Any]], object] | None = None) -> Path:
    value = result.to_json()
    if change is not None:
        change(value)
    path = tmp_path / result.size / "cell.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=20), seed=st.integers(0, 99))
def test_a_result_comes_back_as_it_was_written(scores: list[float], seed: int) -> None:
    result = made([round(score, 5) for score in scores], seed=seed, modes={"b0-t0": 1}, params={"prior": {"depth": 4}})
    text = canonical.document(result.to_json())
    again = Result.from_json(records.parse(text, "file"), "file")
    assert again == result
    assert canonical.document(again.to_json()) == text


def test_results_are_read_by_name_of_all_sizes(tmp_path: Path) -> None:
    stored(tmp_path, made([1.0], size="small"))
    stored(tmp_path, made([0.0], size="large"))
    (tmp_path / "time.png").write_bytes(b"a picture beside them")
    assert [result.size for result in results.read(tmp_path)] == ["large", "small"]
    assert results.read(tmp_path / "nothing here") == []


REFUSED: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("missing", lambda value: value.pop("policy"), "no result of this version"),
    ("unknown", lambda value: value.update(colour="red"), "no result of this version"),
    ("score", lambda value: value.update(score=[1.5, 0]), "score: expected one number in 0..1"),
    ("no episodes", lambda value: value.update(score=[], success=""), "score: expected one number in 0..1"),
    ("success", lambda value: value.update(success="1"), "success: expected 2 letters"),
    ("letters", lambda value: value.update(success="1x"), "success: expected 2 letters"),
    ("seed", lambda value: value.update(seed=True), "seed: expected a whole number"),
    ("train_s", lambda value: value.update(train_s="long"), "train_s: expected a number"),
    ("goal", lambda value: value.update(goal=1), "goal: expected true or false"),
    ("modes", lambda value: value.update(modes={"b0-t0": 0.5}), "modes: expected a number of episodes"),
    ("act_ms", lambda value: value.update(act_ms=[1]), "act_ms: expected an object"),
    ("size", lambda value: value.update(size="large"), "is a result of size 'large'"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_no_result_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    path = stored(tmp_path, made([1.0, 0.0]), change)
    with pytest.raises(GateError, match=message) as refusal:
        results.read(tmp_path)
    assert str(path) in str(refusal.value)
    assert "make paper" in str(refusal.value)


def test_seeds_are_pooled_over_their_episodes() -> None:
    [cell] = results.cells([made([0.0, 1.0, 1.0], seed=1, train_s=310), made([1.0], seed=0)], SIZES)
    assert [result.seed for result in cell.results] == [0, 1]
    assert cell.episodes == 4
    assert cell.score == statistics.mean_interval(np.array([1.0, 0.0, 1.0, 1.0]))
    assert cell.success == statistics.wilson(3, 4)
    assert cell.seeds == pytest.approx((2 / 3, 1))
    assert cell.average("train_s") == 305
    assert cell.mean("mean_max_coverage") == 0.8
    assert math.isnan(cell.mean("no metric"))
    assert cell.act_ms("action_1") == 0.3
    assert math.isnan(cell.act_ms("no time"))


def test_the_largest_size_counts_and_unknown_sizes_do_not() -> None:
    found = [made([0.0], size="large"), made([1.0]), made([0.5], size="other"), made([1.0], policy="bet")]
    assert {cell.first.policy: cell.first.size for cell in results.cells(found, SIZES)} == {
        "vqbet": "large",
        "bet": "small",
    }
    assert [cell.first.size for cell in results.every(found, SIZES)] == ["small", "small", "large"]


def test_a_seed_may_not_count_twice() -> None:
    with pytest.raises(GateError, match="one result per seed"):
        results.cells([made([0.0]), made([1.0])], SIZES)


def test_worlds_goals_policies_and_variants_are_cells_of_their_own() -> None:
    changes: list[dict[str, Any]] = [{}, {"goal": True}, {"task": "kitchen"}, {"policy": "bc"}, {"variant": "as it is"}]
    assert len(results.cells([made([1.0], **change) for change in changes], SIZES)) == len(changes)


def test_entropy_is_of_all_seeds_and_of_the_episodes_with_a_mode() -> None:
    even = [made([1.0] * 9, seed=0, modes={"a": 4, "b": 1}), made([1.0] * 9, seed=1, modes={"b": 3})]
    [cell] = results.cells(even, SIZES)
    assert cell.modes == {"a": 4, "b": 4}
    assert cell.entropy_bits == 1
    [none] = results.cells([made([1.0])], SIZES)
    assert none.entropy_bits == 0


def test_scores_are_told_in_the_worlds_unit() -> None:
    [cell] = results.cells([made([0.5, 1.0], task="kitchen")], SIZES)
    assert cell.measured.estimate == 3
    assert cell.measured.low == 4 * cell.score.low
    [unknown] = results.cells([made([0.5], task="juggling", policy="juggler")], SIZES)
    assert (unknown.measured.estimate, unknown.world.title, unknown.name) == (0.5, "juggling", "juggler")


@pytest.mark.parametrize(
    ("variant", "seen"),
    [("data 5 %", 0.05), ("data 12.5 %", 0.125), ("as it is", 1.0), ("data", None), ("big data 5 %", None), ("", None)],
)
def test_the_share_of_data_is_read_from_the_variants_name(variant: str, seen: float | None) -> None:
    [cell] = results.cells([made([1.0], variant=variant)], SIZES)
    assert cell.seen == seen


def test_differences_are_paired_by_seed_and_episode() -> None:
    [one] = results.cells([made([1.0, 0.0, 1.0], seed=0), made([1.0, 1.0], seed=1)], SIZES)
    [other] = results.cells([made([0.0, 0.0], seed=0), made([0.0, 1.0, 1.0], seed=1), made([1.0], seed=2)], SIZES)
    expected = statistics.paired_difference(np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.0, 1.0]))
    assert results.difference(one, other) == results.Difference(expected, (0.5, 0.5))
    [elsewhere] = results.cells([made([0.0, 0.0], first_seed=7)], SIZES)
    assert results.difference(one, elsewhere) is None


def test_variants_are_compared_with_the_unchanged_policy_at_their_own_size() -> None:
    found = [
        made([0.0] * 30, variant="as it is"),
        made([1.0] * 30, variant="as it is", size="large"),
        made([1.0] * 30, variant="better"),
        made([0.0] * 30, variant="worse", size="large"),
        made([0.0] * 30, variant="alone", task="kitchen"),
    ]
    compared = results.compared(results.cells(found, SIZES), results.every(found, SIZES))
    told = [(cell.first.variant, between and between.interval.estimate) for cell, between in compared]
    assert told == [("worse", -1), ("better", 1), ("alone", None)]


@pytest.mark.parametrize(
    ("low", "high", "by_seed", "side"),
    [
        (0.1, 0.3, (0.2,), 1),
        (0.1, 0.3, (0.3, 0.1), 1),
        (0.1, 0.3, (0.5, -0.1), 0),
        (-0.3, -0.1, (-0.1, -0.3), -1),
        (-0.3, -0.1, (-0.5, 0.1), 0),
        (-0.1, 0.3, (0.1, 0.1), 0),
    ],
)
def test_a_difference_has_a_side_where_every_training_says_so(
    low: float, high: float, by_seed: tuple[float, ...], side: int
) -> None:
    assert results.Difference(Interval((low + high) / 2, low, high), by_seed).side == side


intervals = st.lists(st.tuples(*[st.floats(0, 1)] * 3).map(sorted), min_size=1, max_size=6).map(
    lambda rows: [Interval(estimate, low, high) for low, estimate, high in rows]
)


@more(200)
@given(found=intervals)
def test_leaders_are_those_that_do_not_lie_below_the_highest(found: list[Interval]) -> None:
    leaders = results.leaders(found)
    highest = max(range(len(found)), key=lambda index: found[index].estimate)
    assert highest in leaders
    for index, interval in enumerate(found):
        if index not in leaders:
            assert results.relation(interval, found[highest]) == -1
        elif all(other.estimate != found[highest].estimate for other in found if other is not found[highest]):
            assert results.relation(interval, found[highest]) == 0
    for one in found:
        for other in found:
            assert results.relation(one, other) == -results.relation(other, one)
