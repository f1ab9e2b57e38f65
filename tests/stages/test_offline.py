"""Held-out steps are aligned with what is predicted at them; a policy that repeats the mean is rejected; the G1 set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.g1 import g1
from tests.support.synthetic import synthetic
from vqbet import config
from vqbet.contract import Demonstrations
from vqbet.demos import held_out
from vqbet.evaluation import gate, offline_gate
from vqbet.evaluation import offline as errors
from vqbet.policies.actor import Actor, Planned
from vqbet.stages import offline
from vqbet.stages.offline import Offline

SHIPPED = Path(__file__).resolve().parents[2] / "params.yaml"
SAID = {"views": [], "held_out": 0.25}


@dataclass
class Constant:
    """A planner that always plans the same action."""

    action: np.ndarray
    channels: tuple[int, int, int]
    window: int = 2
    chunk: int = 5
    goal_steps: int = 0
    draws: int = 1
    tags: int = 0

    def plan(self, observation: np.ndarray, goal: Any, uniform: np.ndarray) -> Planned:
        count = len(observation)
        chunk = np.broadcast_to(self.action, (count, self.chunk, len(self.action))).astype(np.float32)
        return Planned(chunk, np.zeros((count, 0), np.int64), np.zeros((count, 0), np.float32))


def constant(demos: Demonstrations, action: np.ndarray, **shape: int) -> Actor:
    sizes = (len(demos.spec.observation), len(demos.spec.action), 0)
    return Actor(demos.spec, Constant(action, sizes, **shape), execute="first")  # type: ignore[arg-type]


def prepared(demos: Demonstrations, actor: Actor, said: dict[str, Any] | None = None) -> Offline:
    found = offline.prepare(actor, demos, SAID if said is None else said)
    assert found is not None
    return found


def test_moments_are_the_steps_with_an_action_before_and_a_whole_chunk_from_there_on() -> None:
    demos = synthetic(6)
    at = offline.moments(constant(demos, np.zeros(2)), demos, {}, 10_000)
    assert len(at.chunk) == sum(length - 5 for length in demos.lengths)
    for row in (0, 17, len(at.chunk) - 1):
        first = int(demos.episode_starts[at.episode[row]]) + int(at.step[row])
        assert np.array_equal(at.chunk[row], demos.action[first : first + 5])
        assert np.array_equal(at.previous[row], demos.action[first - 1])
        assert np.array_equal(at.observation[row], demos.observation[first - 1 : first + 1])
    few = offline.moments(constant(demos, np.zeros(2)), demos, {}, 50)
    assert set(few.episode) == set(range(6))
    assert len(few.chunk) <= 60


def test_nothing_held_out_is_nothing_to_evaluate() -> None:
    demos = synthetic(6)
    assert offline.prepare(constant(demos, np.zeros(2)), demos, {"views": []}) is None


def test_a_policy_that_repeats_the_mean_is_rejected() -> None:
    """Planted, with the shipped floor and baselines, and once more with no floor at all."""
    demos = synthetic(40)
    train = held_out.learned(demos, SAID).train
    shown = offline.moments(constant(demos, np.zeros(2)), train, SAID, 10_000)
    actor = constant(demos, shown.chunk[:, 0].mean(axis=0, dtype=np.float64))
    sets = prepared(demos, actor)
    shipped = config.task(SHIPPED, "blockpush")
    for changes, named in (
        ({}, "better than nearest"),
        ({"offline_floor": 0.0, "offline_baselines": ["mean"]}, "mean"),
    ):
        params = shipped.model_copy(update={"gate": shipped.gate.model_copy(update=changes)})
        plan = offline.plan(params, demos, sets, {"candidate": "c" * 64})
        records = offline.recorded(actor, sets, plan)
        verdict = offline_gate.decide(plan, gate.by_policy(records))
        assert verdict.outcome == "REJECT", verdict.reason
        assert named in verdict.reason
        mine, theirs = (gate.by_policy(records)[name] for name in ("candidate", "mean"))
        assert [one.score for one in mine] == pytest.approx([one.score for one in theirs], abs=1e-5)


def test_sessions_are_a_set_of_their_own() -> None:
    demos = synthetic(40)
    actor = constant(demos, np.zeros(2))
    sets = prepared(demos, actor, {**SAID, "held_out_sessions": 1})
    assert list(sets.sets) == ["episodes", "sessions"]
    assert sets.sets["sessions"].numbers.tolist() == list(range(30, 40))
    plan = offline.plan(config.task(SHIPPED, "blockpush"), demos, sets, {"candidate": "c" * 64})
    assert plan.most == 8 + 10
    records = gate.by_policy(offline.recorded(actor, sets, plan))["candidate"]
    assert [record.seed for record in records] == list(range(18))
    assert [record.slice for record in records] == ["episodes"] * 8 + ["sessions"] * 10


def test_on_the_humanoid_a_linear_map_is_better_than_its_neighbours(real_demos: Callable[[str], Path]) -> None:
    demos = g1(real_demos("g1_bottle"))
    actor = constant(demos, np.zeros(26), window=1, chunk=10)
    sets = prepared(demos, actor, {"views": [], "held_out": 0.2})
    part = sets.sets["episodes"]
    assert len(part.numbers) == 20
    rows = errors.table(sets.references.predict(part.moments), part.moments, sets.references.deviation)
    wanted = {"previous": 0.018, "measured": 0.162, "linear": 0.134, "nearest": 0.273, "mean": 0.861}
    assert {name: row["next_mean"] for name, row in rows.items()} == pytest.approx(wanted, abs=0.01)
    assert errors.beaten(rows, "nearest")["next"] == ["previous", "measured", "linear"]


def test_the_humanoids_last_posture_is_far_for_the_nearest_neighbour(real_demos: Callable[[str], Path]) -> None:
    demos = g1(real_demos("g1_bottle"))
    sessions = np.where(np.arange(100) >= 79, "new", "old")
    apart = replace(demos, columns={**demos.columns, "session": sessions})
    sets = prepared(apart, constant(demos, np.zeros(26), window=1, chunk=10), {"views": [], "held_out_sessions": 1})
    (part,) = sets.sets.values()
    rows = errors.table(sets.references.predict(part.moments), part.moments, sets.references.deviation)
    assert rows["nearest"]["next_mean"] > 0.4
    assert rows["linear"]["next_mean"] < 0.25
