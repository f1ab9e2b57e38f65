"""PushT with goals through the stages, in the frame of the goal: trained, packed, loaded and played there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recorded import recorded

from vqbet import config, playable
from vqbet.config import TaskParams
from vqbet.contract import ConfigError, Demonstrations
from vqbet.demos import frames, store
from vqbet.demos.goals import GOALS
from vqbet.sims.pusht import PushT
from vqbet.stages import bundle, cells, evaluate, files, prior, tokenizer, trainable
from vqbet.stages.cells import Cell
from vqbet.stages.paths import Paths
from vqbet.stages.watch import Watch
from vqbet.testing import synthetic

PARAMS = Path(__file__).resolve().parent.parent.parent / "params.yaml"
TASK = "pusht"
SMALL = {
    "tokenizer": {
        "steps": 20,
        "batch": 64,
        "health": {"max_mean_error": 9.0, "max_p99_error": 99.0, "min_used": 0.0},
    },
    "prior": {"steps": 4, "batch": 16, "width": 8, "heads": 1, "depth": 1, "head_hidden": 8, "warmup": 1},
    "evaluate": {"episodes": 3, "videos": 0},
}


def small(**changed: object) -> TaskParams:
    sections = config.task(PARAMS, TASK).model_dump(by_alias=True)
    for name, values in SMALL.items():
        sections[name] |= values
    sections["prior"] |= changed
    return TaskParams.model_validate(sections)


@pytest.fixture(scope="module")
def demos() -> Demonstrations:
    env, rng = PushT(), np.random.default_rng(0)
    observation = env.reset(np.arange(8))
    demos = recorded(env, observation, lambda seen: (seen[:, 6:8] + rng.uniform(-60, 60, (8, 2))).clip(0, 512), 24)
    return replace(demos, columns=synthetic(8).columns)


@pytest.mark.parametrize(("goal_steps", "reference"), [(1, frames.AT[TASK]), (0, ())])
def test_what_was_trained_acts_where_it_is_told_to(
    tmp_path: Path, demos: Demonstrations, goal_steps: int, reference: tuple[float, ...]
) -> None:
    paths, params = Paths(tmp_path, TASK), small(goal_steps=goal_steps, goal_as="features")
    assert params.prior.goal_frame
    store.write(paths.store, demos)
    for stage in (tokenizer, prior, bundle, evaluate):
        stage.run(paths, params, Watch())
    policy, _ = playable.load(paths.policy)
    assert policy.reference == reference
    assert policy.goal == (GOALS[TASK] if goal_steps else ())
    assert files.read_json(paths.metrics("evaluate"))["episodes"] == 3


@pytest.mark.parametrize("policy", ["bc", "bet", "beso"])
def test_a_baseline_is_framed_as_vqbet_is(demos: Demonstrations, policy: str) -> None:
    params = config.comparison(PARAMS)
    for goal, framed in ((True, frames.AT[TASK]), (False, ())):
        if policy == "beso" and not goal:
            continue
        chosen = cells.resolved(params, Cell(TASK, policy, goal, "", 0, 1.0, 1))
        wanted, steps = (GOALS[TASK], 1) if goal else ((), 0)
        made = trainable.baseline(policy, chosen, demos, goal=wanted, goal_steps=steps, seed=0)
        assert made.actor().reference == framed
        assert len(made.windows) == 2 * len(demos.action)  # with its mirror images; one goal each


def test_results_of_tasks_without_the_switch_stay_what_they_are() -> None:
    params = config.comparison(PARAMS)
    for policy in ("vqbet", "bc"):
        for task, there in (("pusht", True), ("kitchen", False)):
            chosen = cells.resolved(params, Cell(task, policy, True, "", 0, 1.0, 1))
            for section in (chosen["tokenizer"], chosen["prior"]) if policy == "vqbet" else (chosen,):
                assert ("goal_frame" in section) == there


def test_it_is_refused_where_the_world_is_another_when_moved(tmp_path: Path, demos: Demonstrations) -> None:
    text = PARAMS.read_text(encoding="utf-8").replace("goal_frame: false", "goal_frame: true")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    params = config.task(tmp_path / "params.yaml", "blockpush")
    with pytest.raises(ConfigError, match=r"blockpush\.tokenizer\.goal_frame: true: the world of 'blockpush'"):
        tokenizer.refuse_unfit("blockpush", params.tokenizer, demos)
