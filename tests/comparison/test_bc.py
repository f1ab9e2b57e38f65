"""Behaviour cloning: network and losses against a second derivation, what it makes of modes, goals, round trips."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import small
from tests.support.small import (
    FAULTS,
    GOALS,
    SEEDS,
    WANTED,
    A,
    C,
    D,
    Fault,
    G,
    alike,
    learn,
    observations,
    part,
    plan,
    play,
    untold,
)
from tests.support.synthetic import synthetic
from vqbet.comparison.policies import KINDS
from vqbet.comparison.policies.bc import BehaviorCloning, BehaviorCloningShape
from vqbet.contract import BundleError, TrainingError
from vqbet.demos.goals import GoalWindows
from vqbet.demos.windows import Windows
from vqbet.models.spaces import Spaces
from vqbet.policies.actor import Actor
from vqbet.training.recipe import seed_everything

T, H = 3, 4
SHAPE = BehaviorCloningShape(window=T, chunk=H, depth=3, hidden=32, dropout=0.0)
SPEC = small.limited(0.0, 500.0)
windows = partial(small.windows, window=T, chunk=H)


def model(shape: BehaviorCloningShape = SHAPE, seed: int = 0, **objective: Any) -> BehaviorCloning:
    torch.manual_seed(seed)
    return BehaviorCloning(small.spaces(goal=shape.goal_steps > 0), shape, **objective)


def conditional(**changes: Any) -> BehaviorCloning:
    return model(replace(SHAPE, goal_steps=G, **changes))


def by_hand(policy: BehaviorCloning, batch: dict[str, np.ndarray]) -> np.ndarray:
    """The chunks (B, H, A) in physical units, in float64 numpy, from the weights and the definition of min-max."""
    parts = [batch["observation"].reshape(len(batch["observation"]), -1) / 3.0]
    if policy.goal_steps:
        parts.append(batch["goal"].reshape(len(batch["goal"]), -1) / 2.0)
    x = np.concatenate(parts, axis=1).astype(np.float64)
    weights = [value.astype(np.float64) for value in policy.components()["model"].values()]
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    for matrix, bias in pairs[:-1]:
        x = np.maximum(x @ matrix.T + bias, 0)
    matrix, bias = pairs[-1]
    return (x @ matrix.T + bias).reshape(-1, H, A) * 250 + 250


# --- what defines it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("goal_steps", [0, G])
def test_the_network_is_what_its_weights_say(depth: int, goal_steps: int) -> None:
    policy = model(replace(SHAPE, depth=depth, goal_steps=goal_steps))
    assert len(policy.components()["model"]) == 2 * (depth + 1)
    np.testing.assert_allclose(plan(policy, windows()), by_hand(policy, windows()), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("loss", ["l2", "l1"])
@pytest.mark.parametrize("goal_steps", [0, G])
def test_the_loss_is_the_error_of_the_last_positions_chunk(loss: str, goal_steps: int) -> None:
    policy, batch = model(replace(SHAPE, goal_steps=goal_steps), loss=loss), windows()
    batch["valid"][:5, -1] = False
    error = (by_hand(policy, batch) - batch["action"][:, T - 1 :]) / 250
    size = error**2 if loss == "l2" else np.abs(error)
    got, metrics = policy.loss(batch)
    assert float(got.detach()) == pytest.approx(size[5:].mean(axis=(1, 2)).sum() / 16, rel=1e-4)
    assert float(metrics["action_error"]) == pytest.approx(np.abs(error[5:] * 250).mean(), rel=1e-4)


@pytest.mark.parametrize(("loss", "share"), [("l2", 0.75), ("l1", 1.0)])
def test_of_two_modes_it_gives_what_is_between_them(loss: str, share: float) -> None:
    """One observation, three chunks at 100 px and one at 400 px: least squares answers their mean, 175 px, which nobody
    demonstrated; least absolute error the median of each number, 100 px."""
    modes = np.array([100.0, 100.0, 100.0, 400.0], np.float32)
    batch = alike(np.tile(modes[:, None, None], (16, T + H - 1, A)), T)
    policy = model(loss=loss)
    learn(policy, batch)
    np.testing.assert_allclose(plan(policy, batch), 100 * share + 400 * (1 - share), atol=1.0)


def test_of_ways_around_an_obstacle_it_takes_the_one_through() -> None:
    """Where an episode begins, half of the demonstrations of `synthetic` go left and half go right."""
    demos = synthetic(episodes=40)
    slots = Windows(demos, window=1, chunk=H)
    torch.manual_seed(0)
    policy = BehaviorCloning(Spaces.fit(demos), replace(SHAPE, window=1, hidden=64))
    batch = slots.gather(np.arange(0, len(slots), 3))
    learn(policy, batch, steps=200)
    starts = slots.gather(demos.episode_starts)
    shown, true = (chunk[:, -1] - starts["observation"][:, 0, :A] for chunk in (plan(policy, starts), starts["action"]))
    assert np.abs(true[:, 1]).min() > 0.09  # metres sideways within a chunk
    assert np.abs(shown[:, 1]).mean() < 0.5 * np.abs(true[:, 1]).mean()
    np.testing.assert_allclose(shown[:, 0], true[:, 0], atol=0.1)  # ahead, where all go alike


def test_it_learns_the_goal_where_the_goal_decides() -> None:
    """The same windows, chunks at 100 or 400 px as the goal has it: told the goal it is exact, else in between."""
    goal = np.where(np.arange(64) % 2 == 0, -1.0, 1.0).astype(np.float32)
    action = np.tile((250 + 150 * goal)[:, None, None], (1, T + H - 1, A))
    batch = alike(action, T, np.tile(goal[:, None, None], (1, G, C)))
    told, untold = conditional(), model()
    learn(told, batch)
    learn(untold, batch)
    np.testing.assert_allclose(plan(told, batch), batch["action"][:, T - 1 :], atol=2.0)
    np.testing.assert_allclose(plan(untold, batch), 250.0, atol=2.0)


# --- what training must not depend on --------------------------------------------------------------------------------


def gradients(policy: BehaviorCloning, batch: dict[str, Any]) -> list[torch.Tensor]:
    policy.zero_grad()
    policy.loss(batch)[0].backward()
    return [parameter.grad.clone() for parameter in policy.parameters()]


def test_gradients_come_from_valid_chunks_only() -> None:
    policy, batch = conditional(), windows()
    batch["valid"][10:, -1] = False
    whole = gradients(policy, batch)
    valid = gradients(policy, part(batch, slice(10)))
    for one, two in zip(whole, valid, strict=True):
        torch.testing.assert_close(one, two * 10 / 16)
    seen = torch.from_numpy(batch["observation"]).requires_grad_()
    policy.loss(batch | {"observation": seen})[0].backward()
    assert (seen.grad[:10].abs().sum(2) > 0).all()  # every step of the window counts
    assert not seen.grad[10:].any()


def test_padding_and_earlier_positions_change_nothing() -> None:
    policy, batch = model(), windows()
    batch["valid"][:3, -2:] = False
    before = policy.loss(batch)[0]
    batch["action"][:3, -2:] = 9e9
    batch["action"][:, : T - 1] = -9e9
    batch["valid"][:, : T - 1] = False
    assert torch.equal(policy.loss(batch)[0], before)


def test_a_batch_with_nothing_valid_has_loss_zero() -> None:
    batch = windows()
    batch["valid"][:] = False
    loss, metrics = model().loss(batch)
    assert float(loss.detach()) == 0
    assert {name: float(value) for name, value in metrics.items()} == {"action_error": 0}


@pytest.mark.parametrize("loss", ["l2", "l1"])
def test_the_loss_of_a_batch_is_the_mean_of_its_halves(loss: str) -> None:
    policy, batch = model(loss=loss), windows()
    batch["valid"][:3, -1] = False
    torch.testing.assert_close(policy.loss(batch)[0], small.mean_of_halves(policy, batch))


def test_dropout_acts_in_training_alone() -> None:
    policy, batch = model(replace(SHAPE, dropout=0.5)), windows()
    assert not torch.equal(policy.train().loss(batch)[0], policy.loss(batch)[0])
    assert np.array_equal(plan(policy, batch), plan(policy, batch))
    metrics = policy.loss(batch)[1]
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())


def test_windows_with_goals_train_an_unconditional_model_too() -> None:
    assert torch.equal(model().loss(windows())[0], model().loss(untold(windows()))[0])


def test_it_trains_in_the_loop(tmp_path: Path) -> None:
    demos, goal = synthetic(episodes=4), ("feature_0", "feature_1")
    slots = GoalWindows(Windows(demos, window=T, chunk=H), demos, channels=goal, steps=G)
    seed_everything(0)
    policy = BehaviorCloning(Spaces.fit(demos, goal), replace(SHAPE, goal_steps=G, dropout=0.1))
    trained = small.three_steps(policy, slots, tmp_path)
    assert [row["step"] for row in trained.history] == [1, 2, 3]
    assert list(trained.history[0]) == ["step", "lr", "loss", "action_error", "gradient_norm"]
    assert not policy.training


# --- acting, and to a bundle and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("execute", ["first", "chunk", "average"])
@pytest.mark.parametrize("told", [False, True])
def test_arguments_and_components_rebuild_it_bitwise(execute: str, told: bool) -> None:
    made = conditional(dropout=0.3).eval() if told else model(replace(SHAPE, dropout=0.3), loss="l1").eval()
    actor = Actor(SPEC, made, execute=execute, goal=WANTED if told else ())
    again, goals = small.rebuilt("bc", actor, KINDS), GOALS if told else None
    assert np.array_equal(play(actor, observations(), goals=goals), play(again, observations(), goals=goals))
    assert set(actor.components()) == {"model", "normalizer"}


def test_it_is_deterministic_and_rows_do_not_see_one_another() -> None:
    actor = Actor(SPEC, conditional().eval(), execute="first", goal=WANTED)
    together = play(actor, observations(), SEEDS, GOALS)
    assert np.array_equal(together, play(actor, observations(), SEEDS + 99, GOALS))
    assert not np.allclose(together, play(actor, observations(), SEEDS, GOALS + 0.5))
    policy, batch = conditional().eval(), windows()
    alone = np.concatenate([plan(policy, part(batch, [row])) for row in range(16)])
    np.testing.assert_allclose(alone, plan(policy, batch), rtol=1e-5, atol=1e-3)
    assert (policy.draws, policy.tags, policy.channels, policy.window) == (0, 0, (D, A, C), T)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: model(loss="huber"), "bc: loss: expected one of l2, l1, got 'huber'"),
        (
            lambda: BehaviorCloning(small.spaces(), replace(SHAPE, goal_steps=1)),
            "bc: goal_steps 1 and 0 goal channels must come together",
        ),
        (
            lambda: BehaviorCloning(small.spaces(goal=True), SHAPE),
            "bc: goal_steps 0 and 3 goal channels must come together",
        ),
        (
            lambda: conditional().loss(untold(windows())),
            r"batch: goal: expected \(steps, channels\) \(2, 3\), got no goal",
        ),
        (
            lambda: conditional().loss(windows() | {"goal": np.zeros((16, 1, C), np.float32)}),
            r"batch: goal: expected \(steps, channels\) \(2, 3\), got \(1, 3\)",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(wrong: Any, sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        wrong()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        *FAULTS,
        (lambda a, c: a.pop("loss"), "arguments are not those of this version: 'loss'"),
        (lambda a, c: a["shape"].update(hidden=9), r"model: tensor 'network\.0\.weight': expected"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(fault: Fault, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        small.build_with(fault, "bc", Actor(SPEC, model().eval(), execute="first"), KINDS)
