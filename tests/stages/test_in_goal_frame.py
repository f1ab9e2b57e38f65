"""PushT with goals through the stages, in the frame of the goal: trained, packed, loaded and played there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.recorded import recorded
from tests.support.shrunk import shrunk
from tests.support.synthetic import synthetic
from vqbet import policies
from vqbet.contract import ConfigError, Demonstrations
from vqbet.demos import store
from vqbet.stages import artifacts, bundle, evaluate, prior, tokenizer
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks.pusht import TASK as PUSHT
from vqbet.tasks.pusht.world import PushT

TASK = "pusht"


@pytest.fixture(scope="module")
def demos() -> Demonstrations:
    env, rng = PushT(), np.random.default_rng(0)
    observation = env.reset(np.arange(8))
    demos = recorded(env, observation, lambda seen: (seen[:, 6:8] + rng.uniform(-60, 60, (8, 2))).clip(0, 512), 24)
    return replace(demos, columns=synthetic(8).columns)


@pytest.mark.slow
@pytest.mark.parametrize(("goal_steps", "reference"), [(1, PUSHT.goal_frame), (0, ())])
def test_what_was_trained_acts_where_it_is_told_to(
    tmp_path: Path, demos: Demonstrations, goal_steps: int, reference: tuple[float, ...]
) -> None:
    paths, params = Paths(tmp_path, TASK), shrunk(TASK, prior={"goal_steps": goal_steps, "goal_as": "features"})
    assert "goal_frame" in params.demos.views
    store.write(paths.store, demos)
    for stage in (tokenizer, prior, bundle, evaluate):
        stage.run(paths, params, Watch())
    policy, packed = policies.load(paths.policy)
    assert ("limit.start_low" in packed.components["guard"]) is (not goal_steps), "goals may lie anywhere"
    assert policy.reference == reference
    assert policy.goal == (PUSHT.goal if goal_steps else ())
    assert artifacts.read_json(paths.metrics("evaluate"))["episodes"] == 3


def test_it_is_refused_where_the_world_is_another_when_moved(tmp_path: Path, demos: Demonstrations) -> None:
    paths, params = Paths(tmp_path, "blockpush"), shrunk("blockpush", demos={"views": ["goal_frame"]})
    store.write(paths.store, replace(demos, spec=replace(demos.spec, task="blockpush")))
    with pytest.raises(ConfigError, match=r"blockpush\.demos\.views: goal_frame: the world of 'blockpush'"):
        tokenizer.run(paths, params, Watch())
