"""What chance alone would show: false alarms are rare, real shifts are found, and steps are no episodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.drifting import LIMITS, chosen, coded, compared, joined, moved, process
from vqbet.contract import Demonstrations
from vqbet.drift import chance, compare, episodes
from vqbet.drift.chance import ALPHA, Measure

COMPARISONS = 200


def alarms(pairs, coder=coded) -> int:
    """In how many comparisons anything at all is called more than chance."""
    found = 0
    for old, new in pairs:
        report = compare(old, new, (coder(old), coder(new)), LIMITS)
        found += min(report.p.values()) <= ALPHA
    return found


@pytest.fixture
def _fewer_deals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chance, "LEAST", 1)  # PER_TEST decides


@pytest.mark.slow
@pytest.mark.usefixtures("_fewer_deals")
def test_other_seeds_of_the_same_process_are_no_drift() -> None:
    pairs = ((process(2 * index, 16), process(2 * index + 1, 16)) for index in range(COMPARISONS))
    assert alarms(pairs) <= ALPHA * COMPARISONS


@pytest.mark.slow
@pytest.mark.usefixtures("_fewer_deals")
def test_versions_that_share_episodes_are_no_drift_either() -> None:
    def grown(index: int):
        old = process(2 * index, 16)
        return old, joined(chosen(old, range(12)), process(2 * index + 1, 8))

    assert alarms(grown(index) for index in range(60)) <= ALPHA * 60 + 2


@pytest.mark.slow
@pytest.mark.usefixtures("_fewer_deals")
def test_recordings_made_again_are_no_drift_either() -> None:
    """Everything changed, by a new draw from the process: pairs that have nothing in common but their label."""

    def again(index: int):
        old, new = process(2 * index, 12), process(2 * index + 1, 12)
        return old, replace(new, columns=old.columns)

    assert alarms(again(index) for index in range(60)) <= ALPHA * 60 + 2


def test_a_small_offset_in_every_recording_is_more_than_chance() -> None:
    """Hidden behind the variety of episodes where they are other ones, plain where they are the same ones changed."""
    old = process(2, 20)
    report = compared(old, moved(old, 3, by=0.1))
    assert (len(report.difference.changed), report.p["action.a0"] <= ALPHA) == (20, True)
    assert report.p["action.a1"] == 1
    assert compared(old, moved(process(3, 20), 3, by=0.1)).p["action.a0"] > ALPHA


@pytest.mark.usefixtures("_fewer_deals")
def test_the_planted_fault_a_test_over_steps_lies() -> None:
    """Steps taken for episodes: the same comparisons, and most of them alarms."""

    def stepwise(demos):
        steps = len(demos.action)
        columns = {name: np.resize(column, steps) for name, column in demos.columns.items()}
        return replace(demos, episode_ends=np.arange(1, steps + 1), columns=columns)

    pairs = ((stepwise(process(2 * index, 16)), stepwise(process(2 * index + 1, 16))) for index in range(10))
    assert alarms(pairs, lambda demos: coded(demos, chunk=1)) >= 8


def test_one_number_that_moved_in_the_added_episodes_alone_is_found() -> None:
    old = process(0, 40)
    report = compared(old, joined(old, moved(process(1, 20), 1, by=1.5)))
    assert report.p["observation.o1"] <= ALPHA
    assert report.ranked()[0].name == "observation.o1"
    assert report.p["observation.o0"] > ALPHA


def test_the_order_of_episodes_changes_no_number() -> None:
    old, new = process(0, 12), moved(process(1, 12), 0, by=0.4)
    order = np.random.default_rng(0).permutation(12)
    one, two = compared(old, new), compared(chosen(old, order), chosen(new, order[::-1]))
    assert one.p == two.p
    assert [each.distance for each in one.shifts] == pytest.approx([each.distance for each in two.shifts])


def unlike(old: Demonstrations, new: Demonstrations) -> episodes.Pool:
    return episodes.pool(old, new, episodes.difference(old, new).changed)


def test_a_p_value_is_the_share_of_deals() -> None:
    """Two versions of two episodes each, six deals: two of them part ones from zeros."""
    demos = process(0, 4)
    old, new = chosen(demos, [0, 1]), chosen(demos, [2, 3])
    distinct = unlike(old, new)
    ones = (distinct.old == 1).astype(int)
    counts = np.stack([1 - ones, ones], axis=1)
    found = chance.p_values([Measure(counts, lambda a, b: np.abs(a - b)[:, 0])], distinct)
    assert found[0] == pytest.approx(1 / 3, abs=0.04)


def test_too_few_episodes_to_tell() -> None:
    demos = process(0, 12)
    assert not chance.tellable(unlike(chosen(demos, [0, 1]), chosen(demos, [2, 3])), 1)
    assert chance.tellable(unlike(chosen(demos, range(6)), chosen(demos, range(6, 12))), 9)
    assert not chance.tellable(unlike(demos, demos), 1)
    assert not chance.tellable(unlike(chosen(demos, range(7)), moved(chosen(demos, range(7)), 0, by=1.0)), 9)
    assert chance.tellable(unlike(chosen(demos, range(8)), moved(chosen(demos, range(8)), 0, by=1.0)), 9)
