"""BESO: what it learns, with and without a goal, and that it trains in the loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vqbet.demos.goals import GoalWindows
from vqbet.demos.windows import Windows
from vqbet.normalizer import Normalizer
from vqbet.policies.acting import Actor
from vqbet.policies.beso import Beso, BesoShape
from vqbet.policies.spaces import Spaces
from vqbet.recipe import Recipe, seed_everything
from vqbet.testing import synthetic
from vqbet.train import train


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small matrices: more threads are slower
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def between(low: float, high: float, channels: int) -> Normalizer:
    return Normalizer.fit(np.array([[low] * channels, [high] * channels], np.float32))


def learn(policy: Beso, batch: dict[str, np.ndarray], steps: int, lr: float = 3e-3) -> Beso:
    optimizer = torch.optim.Adam(policy.train().parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss, _ = policy.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return policy.eval()


@pytest.fixture(scope="module")
def guided() -> Beso:
    """One observation, two actions, 50 and 450 px; the goal says which, and is not told half of the time."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    side = np.where(np.arange(256) % 2, 1.0, -1.0).astype(np.float32)[:, None, None]
    batch = {
        "observation": np.ones((256, 1, 1), np.float32),
        "action": 250 + 200 * side,
        "valid": np.ones((256, 1), bool),
        "goal": side,
    }
    shape = BesoShape(window=1, depth=1, heads=2, width=32, dropout=0.0, goal_steps=1)
    spaces = Spaces(between(-2.0, 2.0, 1), between(0.0, 500.0, 1), between(-2.0, 2.0, 1))
    return learn(Beso(spaces, shape, goal_dropout=0.5), batch, steps=250, lr=1e-2)


def sampled(policy: Beso, wanted: float, **settings: Any) -> np.ndarray:
    """400 actions, as parts of the way from 250 px to the demonstrated ones: those of the two modes are -1 and 1."""
    arguments = policy.arguments()
    arguments["sampling"].update(settings)
    again = Beso.from_components(arguments, policy.components())
    uniform = torch.rand(400, again.draws, dtype=torch.float64, generator=torch.Generator())
    with torch.inference_mode():
        actions, _ = again.plan(torch.ones(400, 1, 1), torch.full((400, 1, 1), wanted), uniform)
    return (actions[:, 0, 0].numpy() - 250) / 200


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
    recipe = Recipe(steps=3, batch=8, lr=1e-3, warmup=1, min_lr=0.1, weight_decay=0.01, clip=1.0, ema=0.9, seed=0)
    done = train(
        policy, source.gather, len(source), recipe, folder=tmp_path, fingerprint="f", track=lambda step, metrics: None
    )
    assert done.steps == 3
    assert {"loss", "action_error"} <= done.history[-1].keys()
    assert all(not np.array_equal(value, before[name]) for name, value in policy.components()["model"].items())
    actor = Actor(demos.spec, policy, execute="first", goal=goal)
    actor.reset(np.arange(2), demos.observation[-2:, :2])
    assert np.isfinite(actor.act(demos.observation[:2], np.arange(2))).all()
