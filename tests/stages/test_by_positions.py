"""The kitchen through the stages, by positions: trained, packed, loaded and played so, as every baseline is."""

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
from vqbet.contract import Demonstrations
from vqbet.coordinates.demonstrated_positions import COUNTED
from vqbet.demos import store
from vqbet.policies import loading
from vqbet.stages import artifacts, bundle, evaluate, prior, tokenizer
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks.kitchen.world import Kitchen

TASK = "kitchen"


@pytest.fixture(scope="module")
def demos() -> Demonstrations:
    env, rng = Kitchen(), np.random.default_rng(0)
    demos = recorded(env, env.reset(np.arange(6)), lambda seen: rng.uniform(-1, 1, (len(seen), 9)), 20)
    return replace(demos, columns=synthetic(6).columns)


def test_what_was_trained_acts_by_positions(tmp_path: Path, demos: Demonstrations) -> None:
    paths, params = Paths(tmp_path, TASK), shrunk(TASK)
    assert params.demos.views == ["absolute"]
    store.write(paths.store, demos)
    for stage in (tokenizer, prior, bundle, evaluate):
        stage.run(paths, params, Watch())
    policy, packed = loading.load(paths.policy)
    assert policy.absolute == COUNTED[TASK]
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


@pytest.mark.parametrize("policy", ["bc", "bet", "diffusion_transformer"])
def test_a_baseline_acts_by_positions_as_vqbet_does(demos: Demonstrations, policy: str) -> None:
    chosen = grid.resolved(config.comparison(PARAMS), Cell(TASK, policy, False, "", 0, 1.0, 1))
    chosen["shape"] |= {"bins": 8} if policy == "bet" else {}
    made = trainable.baseline(policy, chosen, demos, goal=(), goal_steps=0, seed=0)
    assert made.actor().absolute == COUNTED[TASK]
    action = made.windows.gather(np.arange(4))["action"]
    first = demos.observation[0, :9] + 0.16 * demos.action[0]
    assert np.abs(action[0] - first).max(axis=-1).min() < 1e-6, "what it learns are positions"


def test_results_of_tasks_without_the_switch_stay_what_they_are() -> None:
    params = config.comparison(PARAMS)
    for task, there in (("kitchen", True), ("pusht", False)):
        chosen = grid.resolved(params, Cell(task, "vqbet", False, "", 0, 1.0, 1))
        assert [("absolute" in chosen[section]) for section in ("tokenizer", "prior")] == [there, there]
        assert ("absolute" in grid.resolved(params, Cell(task, "bc", False, "", 0, 1.0, 1))) == there
