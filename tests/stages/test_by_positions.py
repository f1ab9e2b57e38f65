"""The kitchen through the stages, by positions: trained, packed, loaded and played so, as every baseline is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import untrained
from tests.support.guarded import handshake
from tests.support.recorded import recorded
from tests.support.shrunk import shrunk
from tests.support.synthetic import synthetic
from vqbet import policies
from vqbet.contract import BundleError, Demonstrations
from vqbet.demos import store
from vqbet.serving.guard import Guard, Limits
from vqbet.serving.limits import LIMIT, listed
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


@pytest.mark.slow
def test_the_bundle_guards_the_commands_and_not_the_positions(tmp_path: Path, demos: Demonstrations) -> None:
    paths, params = Paths(tmp_path, TASK), shrunk(TASK)
    store.write(paths.store, demos)
    for stage in (tokenizer, prior, bundle):
        stage.run(paths, params, Watch())
    policy, packed = policies.load(paths.policy, watched=True)
    assert passing(demos, packed.components["guard"]) == len(demos.action)
    assert policy.planner.watched
    assert bundle.run(paths, params, Watch()) == artifacts.read_json(paths.metrics("bundle"))
    assert policies.load(paths.policy)[1].digest == packed.digest, "equal inputs, equal bytes"
    store.write(paths.store, replace(demos, action=demos.action * np.float32(0.5)))
    with pytest.raises(BundleError, match="component 'prior' was trained on other demonstrations or views"):
        bundle.run(paths, params, Watch())


def test_a_bundle_without_guard_is_played(tmp_path: Path, demos: Demonstrations) -> None:
    _, digest = untrained.written(tmp_path / "policy", demos)
    _, packed = policies.load(tmp_path / "policy", digest)
    assert "guard" not in packed.components


def passing(demos: Demonstrations, component: Mapping[str, np.ndarray]) -> int:
    """Return the number of recorded actions that the component's limits let pass."""
    guard, count = Guard(Limits.of(handshake(demos.spec, listed(component, LIMIT)))), 0
    for first, end in zip(demos.episode_starts, demos.episode_ends, strict=True):
        guard.start()
        for step in range(first, end):
            count += guard.check(demos.action[step], demos.observation[step], age_s=0.0).verdict == "pass"
    return count
