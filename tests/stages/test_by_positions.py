"""The kitchen through the stages, by positions: trained, packed, loaded and played so, as every baseline is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.recorded import recorded
from tests.support.shrunk import shrunk
from tests.support.synthetic import synthetic
from vqbet import policies
from vqbet.contract import Demonstrations
from vqbet.demos import store
from vqbet.stages import artifacts, bundle, evaluate, prior, tokenizer
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import TASKS
from vqbet.tasks.kitchen.world import Kitchen

TASK = "kitchen"


@pytest.fixture(scope="module")
def demos() -> Demonstrations:
    env, rng = Kitchen(), np.random.default_rng(0)
    demos = recorded(env, env.reset(np.arange(6)), lambda seen: rng.uniform(-1, 1, (len(seen), 9)), 20)
    return replace(demos, columns=synthetic(6).columns)


@pytest.mark.slow
def test_what_was_trained_acts_by_positions(tmp_path: Path, demos: Demonstrations) -> None:
    paths, params = Paths(tmp_path, TASK), shrunk(TASK)
    assert params.demos.views == ["absolute"]
    store.write(paths.store, demos)
    for stage in (tokenizer, prior, bundle, evaluate):
        stage.run(paths, params, Watch())
    policy, packed = policies.load(paths.policy)
    assert policy.absolute == TASKS[TASK].action_reference
    assert packed.spec == demos.spec, "it is still told what the world observes, and gives it commands"
    assert artifacts.read_json(paths.health)["channels"][0] == "robot_joint1_position_wanted"
    assert artifacts.read_json(paths.metrics("evaluate"))["episodes"] == 3
    policy.reset(np.arange(2))
    first = policy.act(demos.observation[:2], np.arange(2))
    led = demos.observation[:2, :9] + 0.16 * first
    again = policy.act(demos.observation[:2], np.arange(2))  # the chunk goes on from the same observation
    assert np.abs(first).max() <= 1
    assert np.isfinite(led).all()
    assert not np.array_equal(first, again)
