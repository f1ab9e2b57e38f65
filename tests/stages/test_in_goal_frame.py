"""PushT with goals through the stages, in the frame of the goal: trained, packed, loaded and played there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.recorded import recorded
from tests.support.shrunk import PARAMS, shrunk
from tests.support.synthetic import synthetic
from vqbet import config
from vqbet.comparison import grid, trainable
from vqbet.comparison.grid import Cell
from vqbet.contract import ConfigError, Demonstrations
from vqbet.coordinates import demonstrated_frame
from vqbet.demos import store
from vqbet.demos.goals import GOALS
from vqbet.policies import loading
from vqbet.stages import artifacts, bundle, evaluate, prior, tokenizer
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks.pusht.world import PushT

TASK = "pusht"


@pytest.fixture(scope="module")
def demos() -> Demonstrations:
    env, rng = PushT(), np.random.default_rng(0)
    observation = env.reset(np.arange(8))
    demos = recorded(env, observation, lambda seen: (seen[:, 6:8] + rng.uniform(-60, 60, (8, 2))).clip(0, 512), 24)
    return replace(demos, columns=synthetic(8).columns)


@pytest.mark.parametrize(("goal_steps", "reference"), [(1, demonstrated_frame.AT[TASK]), (0, ())])
def test_what_was_trained_acts_where_it_is_told_to(
    tmp_path: Path, demos: Demonstrations, goal_steps: int, reference: tuple[float, ...]
) -> None:
    paths, params = Paths(tmp_path, TASK), shrunk(TASK, prior={"goal_steps": goal_steps, "goal_as": "features"})
    assert "goal_frame" in params.demos.views
    store.write(paths.store, demos)
    for stage in (tokenizer, prior, bundle, evaluate):
        stage.run(paths, params, Watch())
    policy, _ = loading.load(paths.policy)
    assert policy.reference == reference
    assert policy.goal == (GOALS[TASK] if goal_steps else ())
    assert artifacts.read_json(paths.metrics("evaluate"))["episodes"] == 3


@pytest.mark.parametrize(
    ("policy", "goal"), [("bc", True), ("bc", False), ("bet", True), ("bet", False), ("beso", True)]
)
def test_a_baseline_is_framed_as_vqbet_is(demos: Demonstrations, policy: str, goal: bool) -> None:
    chosen = grid.resolved(config.comparison(PARAMS), Cell(TASK, policy, goal, "", 0, 1.0, 1))
    wanted, steps = (GOALS[TASK], 1) if goal else ((), 0)
    made = trainable.baseline(policy, chosen, demos, goal=wanted, goal_steps=steps, seed=0)
    assert made.actor().reference == (demonstrated_frame.AT[TASK] if goal else ())
    assert len(made.windows) == 2 * len(demos.action)  # with its mirror images; one goal each


def test_results_of_tasks_without_the_switch_stay_what_they_are() -> None:
    params = config.comparison(PARAMS)
    for policy in ("vqbet", "bc"):
        for task, there in (("pusht", True), ("kitchen", False)):
            chosen = grid.resolved(params, Cell(task, policy, True, "", 0, 1.0, 1))
            for section in (chosen["tokenizer"], chosen["prior"]) if policy == "vqbet" else (chosen,):
                assert ("goal_frame" in section) == there


def test_it_is_refused_where_the_world_is_another_when_moved(tmp_path: Path, demos: Demonstrations) -> None:
    paths, params = Paths(tmp_path, "blockpush"), shrunk("blockpush", demos={"views": ["goal_frame"]})
    store.write(paths.store, demos)
    with pytest.raises(ConfigError, match=r"blockpush\.demos\.views: goal_frame: the world of 'blockpush'"):
        tokenizer.run(paths, params, Watch())
