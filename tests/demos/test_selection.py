"""Episodes left out of learning, by name, number or rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic import synthetic
from vqbet.contract import Demonstrations, ValidationError
from vqbet.demos import held_out, selection


@pytest.fixture
def demos() -> Demonstrations:
    """Eight episodes: the third failed, the last two are of another session, each with a source of its own."""
    made = synthetic(8)
    success = np.ones(8, bool)
    success[2] = False
    session = np.array(["monday"] * 6 + ["tuesday"] * 2)
    source = np.array([f"lerobot {number}" for number in range(8)])
    marked = np.zeros(len(made.action), bool)
    marked[made.episode_starts[4]] = True
    return replace(
        made, columns={**made.columns, "success": success, "session": session, "source": source}, intervention=marked
    )


@pytest.mark.parametrize(
    ("entry", "out"),
    [
        ({"episodes": [0, 3]}, {0, 3}),
        ({"episodes": ["lerobot 5"]}, {5}),
        ({"where": "success == false"}, {2}),
        ({"where": "session == tuesday"}, {6, 7}),
        ({"where": "session != monday"}, {6, 7}),
        ({"where": "interventions >= 1"}, {4}),
        ({"where": "steps < 1"}, set()),
    ],
)
def test_what_is_left_out(demos: Demonstrations, entry: dict[str, Any], out: set[int]) -> None:
    assert selection.kept(demos, [entry]).tolist() == sorted(set(range(8)) - out)


def test_lengths(demos: Demonstrations) -> None:
    longest = int(demos.lengths.max())
    kept = selection.kept(demos, [{"where": f"steps >= {longest}"}]) if demos.lengths.min() < longest else None
    assert kept is None or (demos.lengths[kept] < longest).all()


def test_entries_add_up(demos: Demonstrations) -> None:
    both = [{"episodes": [1]}, {"where": "session == tuesday"}]
    assert selection.kept(demos, both).tolist() == [0, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"episodes": [8]}, r"synthetic\.demos\.exclude\[0\]\.episodes: 8: no such episode; there are 0 to 7"),
        ({"episodes": ["take-9"]}, "'take-9': no such episode.*such as 'lerobot 0'"),
        ({"where": "length < 3"}, "expected <name> <sign> <value>, such as steps < 30; names: steps, success"),
        ({"where": "steps"}, "expected <name> <sign> <value>"),
        ({"where": "steps < few"}, "steps is a number; got 'few'"),
        ({"where": "session < tuesday"}, "session is a text; expected == or !="),
        ({"where": "steps >= 0"}, "leaves out all 8 episodes"),
    ],
)
def test_refused(demos: Demonstrations, entry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        selection.kept(demos, [entry])


def test_an_excluded_episode_is_neither_learned_from_nor_held_out(demos: Demonstrations) -> None:
    whole = held_out.learned(demos, {"held_out": 0.25})
    first = int(whole.episodes[0])
    found = held_out.learned(demos, {"held_out": 0.25, "exclude": [{"episodes": [first], "where": ""}]})
    assert first not in found.episodes
    hashes = held_out.contents(demos)
    assert set(held_out.contents(found.train)) == {
        hashes[number] for number in range(8) if number != first and number not in found.episodes
    }
    assert found.train.episode_ends[-1] == len(found.train.action)
