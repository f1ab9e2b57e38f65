"""Which episodes came, went or changed: by content, whatever their order and labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.drifting import chosen, joined, process
from vqbet.contract import Demonstrations
from vqbet.drift.episodes import contents, difference, pool

OLD = process(0, episodes=6)


def counts(new: Demonstrations, old: Demonstrations = OLD) -> tuple[int, int, int, int]:
    found = difference(old, new)
    return len(found.kept), len(found.changed), len(found.removed), len(found.added)


def edited(demos: Demonstrations, episode: int, amount: float = 1e-3) -> Demonstrations:
    action = demos.action.copy()
    action[demos.episode_starts[episode], 0] += amount
    return replace(demos, action=action)


def unseeded(demos: Demonstrations) -> Demonstrations:
    return replace(demos, columns={**demos.columns, "seed": np.full(len(demos.episode_ends), -1)})


def test_the_same_is_kept() -> None:
    assert counts(OLD) == (6, 0, 0, 0)


@pytest.mark.parametrize("make", [lambda demos: demos, unseeded])
def test_another_order_is_no_change(make) -> None:
    old = make(OLD)
    found = difference(old, chosen(old, [5, 0, 4, 1, 3, 2]))
    assert found.kept.tolist() == [[0, 1], [1, 3], [2, 5], [3, 4], [4, 2], [5, 0]]
    assert not len(found.changed) + len(found.removed) + len(found.added)


def test_one_more_and_one_fewer() -> None:
    more = joined(OLD, process(1, episodes=1))
    assert counts(more) == (6, 0, 0, 1)
    assert difference(OLD, more).added.tolist() == [6]
    assert counts(OLD, more) == (6, 0, 1, 0)
    assert difference(OLD, chosen(OLD, [0, 1, 3, 4, 5])).removed.tolist() == [2]


def test_another_number_under_the_same_seed_is_a_change_wherever_it_stands() -> None:
    found = difference(OLD, chosen(edited(OLD, 3), [3, 5, 0, 1, 2, 4]))
    assert found.changed.tolist() == [[3, 0]]
    assert counts(edited(OLD, 3)) == (5, 1, 0, 0)


def test_under_another_seed_it_is_another_episode() -> None:
    seeds = OLD.columns["seed"].copy()
    seeds[3] = 77
    new = edited(OLD, 3)
    assert counts(replace(new, columns={**new.columns, "seed": seeds})) == (5, 0, 1, 1)


def test_without_seeds_the_place_names_the_recording() -> None:
    old = unseeded(OLD)
    assert difference(old, edited(old, 3)).changed.tolist() == [[3, 3]]
    assert counts(chosen(edited(old, 3), [0, 2, 3, 4, 5]), old) == (4, 0, 2, 1)


def test_an_episode_that_is_there_twice_counts_twice() -> None:
    twice = joined(OLD, chosen(OLD, [2]))
    assert counts(twice) == (6, 0, 0, 1)
    assert counts(OLD, twice) == (6, 0, 1, 0)
    assert counts(twice, twice) == (7, 0, 0, 0)


def test_labels_and_times_make_no_other_episode() -> None:
    labels = {**OLD.columns, "operator": np.full(6, "another"), "success": np.zeros(6, bool)}
    assert counts(replace(OLD, columns=labels, time_s=OLD.time_s + 1)) == (6, 0, 0, 0)


def test_where_an_episode_is_cut_is_part_of_it() -> None:
    ends = OLD.episode_ends.copy()
    ends[0] -= 1
    assert counts(replace(OLD, episode_ends=ends)) == (4, 2, 0, 0)


def test_the_pool_holds_every_distinct_episode_once() -> None:
    new = joined(chosen(OLD, [4, 1, 1]), process(1, episodes=2))
    found = pool(OLD, new, difference(OLD, new).changed)
    every = [*contents(OLD), *contents(new)]
    assert sorted(every[index] for index in found.first) == sorted(set(every))
    assert (len(found.first), found.old.sum(), found.new.sum()) == (8, 6, 5)
    assert sorted(zip(found.old.tolist(), found.new.tolist(), strict=True)) == [(0, 1)] * 2 + [(1, 0)] * 4 + [
        (1, 1),
        (1, 2),
    ]
    assert not len(found.pairs)


def test_the_pool_knows_changed_recordings_by_both_their_selves() -> None:
    new = chosen(edited(edited(OLD, 3), 1), [5, 3, 1, 0, 2, 4])
    found = pool(OLD, new, difference(OLD, new).changed)
    before, after = contents(OLD), contents(new)
    every = [*before, *after]
    pairs = {(every[found.first[one]], every[found.first[two]]) for one, two in found.pairs}
    assert pairs == {(before[3], after[1]), (before[1], after[2])}
    twice = joined(OLD, chosen(OLD, [3]))
    assert len(pool(twice, new, difference(twice, new).changed).pairs) == 1
