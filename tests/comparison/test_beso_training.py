"""BESO: what it learns, with and without a goal, and that it trains in the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import small
from tests.support.small import between, learn
from tests.support.synthetic import synthetic
from vqbet.comparison.policies.beso import Beso, BesoShape
from vqbet.demos.goals import GoalWindows
from vqbet.demos.windows import Windows
from vqbet.models.spaces import Spaces
from vqbet.policies.actor import Actor
from vqbet.training.recipe import seed_everything


@pytest.fixture(scope="module")
def guided() -> Beso:
    """One observation, two actions, 50 and 450 px; the goal says which, and is not told half of the time."""
    torch.manual_seed(0)
    side = np.where(np.arange(256) % 2, 1.0, -1.0).astype(np.float32)[:, None, None]
    batch = {
        "observation": np.ones((256, 1, 1), np.float32),
        "action": 250 + 200 * side,
        "valid": np.ones((256, 1), bool),
        "goal": side,
    }
    shape = BesoShape(window=1, depth=1, heads=2, width=32, dropout=0.0, goal_steps=1)
    spaces = Spaces(between(-2.0, 2.0, 1), between(0.0, 500.0, 1), between(-2.0, 2.0, 1))
    policy = Beso(spaces, shape, goal_dropout=0.5)
    learn(policy, batch, steps=250, lr=1e-2)
    return policy


def sampled(policy: Beso, wanted: float, **settings: Any) -> np.ndarray:
    """400 actions, as parts of the way from 250 px to the demonstrated ones: those of the two modes are -1 and 1."""
    arguments = policy.arguments()
    arguments["sampling"].update(settings)
    again = Beso.from_components(arguments, policy.components())
    uniform = torch.rand(400, again.draws, dtype=torch.float64, generator=torch.Generator())
    actions, _, _ = again.plan(torch.ones(400, 1, 1), torch.full((400, 1, 1), wanted), uniform)
    return (actions[:, 0, 0] - 250) / 200


@pytest.mark.parametrize("wanted", [-1.0, 1.0])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_the_goal_decides(guided: Beso, wanted: float, guidance: float) -> None:
    actions = sampled(guided, wanted, guidance=guidance, steps=10, sampler="euler_ancestral")
    assert np.mean(np.abs(actions - wanted) < 0.3) > 0.9
    assert np.mean(sampled(guided, wanted, guidance=guidance) * wanted > 0) > 0.98


@pytest.mark.parametrize("sampler", ["ddim", "euler_ancestral"])
def test_two_modes_are_sampled_as_two_modes(guided: Beso, sampler: str) -> None:
    """Without being told a goal: both ways, half of the time each, and little between them."""
    actions = sampled(guided, 1.0, guidance=0.0, sampler=sampler, steps=10)
    assert np.mean(np.abs(np.abs(actions) - 1) < 0.3) > 0.8
    assert 0.35 < np.mean(actions > 0) < 0.65


def test_it_trains_in_the_loop(tmp_path: Path) -> None:
    seed_everything(0)
    demos = synthetic(4, D=5, A=2)
    goal = tuple(channel.name for channel in demos.spec.observation[:2])
    source = GoalWindows(Windows(demos, window=3, chunk=1), demos, channels=goal, steps=2)
    shape = BesoShape(window=3, depth=2, heads=2, width=16, dropout=0.1, goal_steps=2)
    policy = Beso(Spaces.fit(demos, goal), shape, guidance=1.7, goal_dropout=0.1)
    before = {name: value.copy() for name, value in policy.components()["model"].items()}
    done = small.three_steps(policy, source, tmp_path)
    assert done.steps == 3
    assert {"loss", "action_error"} <= done.history[-1].keys()
    assert all(not np.array_equal(value, before[name]) for name, value in policy.components()["model"].items())
    actor = Actor(demos.spec, policy, execute="first", goal=goal)
    actor.reset(np.arange(2), demos.observation[-2:, :2])
    assert np.isfinite(actor.act(demos.observation[:2], np.arange(2))).all()
