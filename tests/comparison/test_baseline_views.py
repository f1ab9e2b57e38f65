"""Baselines see demonstrations in the same views as VQ-BeT: by positions in the kitchen, framed in PushT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.recorded import recorded
from tests.support.synthetic import synthetic
from vqbet.comparison import grid, params, trainable
from vqbet.comparison.grid import Cell
from vqbet.contract import Demonstrations
from vqbet.tasks import TASKS
from vqbet.tasks.kitchen.world import Kitchen
from vqbet.tasks.pusht.world import PushT

PROJECT = Path(__file__).resolve().parents[2] / "params.yaml"


@pytest.fixture(scope="module")
def kitchen() -> Demonstrations:
    env, rng = Kitchen(), np.random.default_rng(0)
    demos = recorded(env, env.reset(np.arange(6)), lambda seen: rng.uniform(-1, 1, (len(seen), 9)), 20)
    return replace(demos, columns=synthetic(6).columns)


@pytest.fixture(scope="module")
def pusht() -> Demonstrations:
    env, rng = PushT(), np.random.default_rng(0)
    observation = env.reset(np.arange(8))
    demos = recorded(env, observation, lambda seen: (seen[:, 6:8] + rng.uniform(-60, 60, (8, 2))).clip(0, 512), 24)
    return replace(demos, columns=synthetic(8).columns)


@pytest.mark.parametrize("policy", ["bc", "bet", "diffusion_transformer"])
def test_a_baseline_acts_by_positions_as_vqbet_does(kitchen: Demonstrations, policy: str) -> None:
    chosen = grid.resolved(params.read(PROJECT), Cell("kitchen", policy, False, "", 0, 1.0, 1))
    chosen["shape"] |= {"bins": 8} if policy == "bet" else {}
    made = trainable.baseline(policy, chosen, kitchen, goal=(), goal_steps=0, seed=0)
    assert made.actor().absolute == TASKS["kitchen"].action_reference
    action = made.windows.gather(np.arange(4))["action"]
    first = kitchen.observation[0, :9] + 0.16 * kitchen.action[0]
    assert np.abs(action[0] - first).max(axis=-1).min() < 1e-6, "what it learns are positions"


def test_results_of_tasks_without_positions_stay_what_they_are() -> None:
    known = params.read(PROJECT)
    for task, there in (("kitchen", True), ("pusht", False)):
        chosen = grid.resolved(known, Cell(task, "vqbet", False, "", 0, 1.0, 1))
        assert [("absolute" in chosen[section]) for section in ("tokenizer", "prior")] == [there, there]
        assert ("absolute" in grid.resolved(known, Cell(task, "bc", False, "", 0, 1.0, 1))) == there


@pytest.mark.parametrize(
    ("policy", "goal"), [("bc", True), ("bc", False), ("bet", True), ("bet", False), ("beso", True)]
)
def test_a_baseline_is_framed_as_vqbet_is(pusht: Demonstrations, policy: str, goal: bool) -> None:
    chosen = grid.resolved(params.read(PROJECT), Cell("pusht", policy, goal, "", 0, 1.0, 1))
    wanted, steps = (TASKS["pusht"].goal, 1) if goal else ((), 0)
    made = trainable.baseline(policy, chosen, pusht, goal=wanted, goal_steps=steps, seed=0)
    assert made.actor().reference == (TASKS["pusht"].goal_frame if goal else ())
    assert len(made.windows) == 2 * len(pusht.action)  # with its mirror images; one goal each


def test_results_of_tasks_without_goal_frame_stay_what_they_are() -> None:
    known = params.read(PROJECT)
    for policy in ("vqbet", "bc"):
        for task, there in (("pusht", True), ("kitchen", False)):
            chosen = grid.resolved(known, Cell(task, policy, True, "", 0, 1.0, 1))
            for section in (chosen["tokenizer"], chosen["prior"]) if policy == "vqbet" else (chosen,):
                assert ("goal_frame" in section) == there


def test_an_ablation_of_positions_is_one_change_for_tokenizer_and_prior() -> None:
    known = params.read(PROJECT)
    as_it_is = grid.resolved(known, Cell("kitchen", "vqbet", False, "", 0, 1.0, 1))
    velocities = Cell("kitchen", "vqbet", False, "velocities", 0, 1.0, 1, (("demos.views", []),))
    without = grid.resolved(known, velocities)
    for section in ("tokenizer", "prior"):
        assert as_it_is[section]["absolute"]
        assert "absolute" not in without[section]
