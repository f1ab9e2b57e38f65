"""Parity of two actors: equal ones pass, and each kind of difference is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.small import WANTED, D
from tests.support.untrained import SPEC, T, build
from vqbet.contract import BundleError
from vqbet.policies import parity
from vqbet.policies.actor import Actor, Planned
from vqbet.policies.parity import ALONE, TOLERANCE

RANGE = 1.6  # of each action of SPEC


class Changed:
    """A planner whose plans are changed on the way."""

    def __init__(self, actor: Actor, change: Any) -> None:
        self.planner, self.change = actor.planner, change
        for name in ("window", "chunk", "channels", "goal_steps", "draws", "tags"):
            setattr(self, name, getattr(actor.planner, name))

    def plan(self, *given: Any) -> Planned:
        plan = self.planner.plan(*given)
        return self.change(Planned(*(part.copy() for part in plan)))


def compared(change: Any = lambda plan: plan, count: int = 200, **settings: Any) -> tuple[parity.Parity, list[int]]:
    one = build(**settings)
    other = Actor(SPEC, Changed(one, change), execute=one.execute, goal=one.goal)
    seen: list[int] = []
    scenes = parity.generated(SPEC, one.goal, T, count)
    return parity.compare(one, other, scenes, lambda done, _: seen.append(done)), seen


@pytest.mark.parametrize("goal", [0, 2])
def test_a_policy_equals_itself(goal: int) -> None:
    found, seen = compared(goal=goal)
    assert found == parity.Parity(200, "generated", 0.0)
    assert seen == [*range(1, ALONE + 1), 192, 200], "one at a time first, then in batches"


def test_what_rounding_does_is_allowed_and_said() -> None:
    found, _ = compared(lambda plan: plan._replace(chunk=plan.chunk + np.float32(0.5 * TOLERANCE * RANGE)))
    assert found.apart == pytest.approx(0.5 * TOLERANCE, rel=0.1)


def another_code(plan: Planned) -> Planned:
    plan.tags[-1, -1] += len(plan.tags) > 1  # in the last row of batches alone
    return plan


def another_action(plan: Planned) -> Planned:
    plan.chunk[-1, -1, -1] += 3 * TOLERANCE * RANGE
    return plan


def no_number(plan: Planned) -> Planned:
    plan.chunk[0, 0, 0] = np.nan
    return plan


def other_signals(plan: Planned) -> Planned:
    return plan._replace(signals=np.ones((len(plan.chunk), 2), np.float32))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (another_code, r"parity: expected equal codes in all of 200 generated scenes, got \["),
        (another_action, "parity: expected actions within 1e-05 of the range of their channels"),
        (no_number, "parity: expected actions within 1e-05"),
        (other_signals, "parity: expected the model's signals within 0.001"),
    ],
)
def test_a_difference_is_refused(change: Any, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        compared(change)


def test_signals_may_differ_as_rounding_does() -> None:
    one = build()
    both = (
        Changed(one, lambda plan, by=by: plan._replace(signals=np.full((len(plan.tags), 2), by))) for by in (0, 1e-4)
    )
    actors = [Actor(SPEC, planner, execute="first") for planner in both]
    scenes = parity.generated(SPEC, (), T, 10)
    assert parity.compare(*actors, scenes, lambda _done, _count: None).apart == 0.0


def test_generated_scenes_are_walks_within_the_limits() -> None:
    scenes = parity.generated(SPEC, WANTED, T, 300)
    assert scenes.observation.shape == (300, T, D)
    assert scenes.goals.shape == (300, len(WANTED))
    assert np.abs(scenes.observation).max() <= 3.0
    assert np.abs(np.diff(scenes.observation, axis=1)).max() < 1.0
    assert scenes.observation[:, 0].std() > 1.0, "they begin anywhere"
    again = parity.generated(SPEC, WANTED, T, 300)
    assert np.array_equal(scenes.observation, again.observation)
