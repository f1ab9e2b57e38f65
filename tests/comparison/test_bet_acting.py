"""Behavior Transformer in use: residuals, modes and goals it has learnt, drawing, refusals, bundles and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.comparison.bet_model import SHAPE, SMALL, SPEC, H, K, T, fitted, plan, unfitted, windows
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
    play,
    untold,
)
from tests.support.synthetic import synthetic
from vqbet.comparison.policies import KINDS
from vqbet.comparison.policies.bet import BeT
from vqbet.contract import BundleError, TrainingError
from vqbet.demos.windows import Windows
from vqbet.models.spaces import Spaces
from vqbet.policies.actor import Actor

# --- what it learns --------------------------------------------------------------------------------------------------


def test_the_offsets_learn_what_the_centres_leave_over() -> None:
    """A batch learnt by heart: bins alone are 60 px off, with their offsets the actions are there."""
    policy, batch = fitted(replace(SHAPE, width=32), offset_weight=10.0), windows(count=8)
    metrics = learn(policy, batch, 300)
    assert metrics["accuracy"] == 1
    assert metrics["action_error"] < 5
    chunk, bins = plan(policy, batch)
    np.testing.assert_allclose(chunk, batch["action"][:, T - 1 :], atol=25)
    left = (
        policy.spaces.action.normalize(torch.from_numpy(batch["action"][:, T - 1 :])).flatten(1) - policy.centres[bins]
    )
    features = policy.decoder(policy.spaces.observation.normalize(torch.from_numpy(batch["observation"])))[:, -1]
    offsets = policy._predict(features)[1].detach()[torch.arange(8), bins]
    assert left.abs().mean() * 250 > 60
    torch.testing.assert_close(offsets, left, rtol=0, atol=0.1)


def test_two_modes_stay_two_and_are_not_averaged() -> None:
    """One observation, three chunks near 100 px and one near 400 px: the bins share 75:25, nothing is in between."""
    rng = np.random.default_rng(0)
    modes = np.tile([100.0, 100.0, 100.0, 400.0], 10)
    action = (modes[:, None, None] + rng.normal(scale=5, size=(40, T + H - 1, A))).astype(np.float32)
    policy = fitted(replace(SMALL, bins=2), action[:, T - 1 :], focal_gamma=0.0)
    learn(policy, alike(action, T), 150, lr=1e-2)
    chunk, bins = plan(policy, {"observation": np.ones((4000, T, D), np.float32)})
    near = np.abs(chunk[:, :, :, None] - [100.0, 400.0]).max(axis=(1, 2))  # (B, 2)
    assert (near.min(axis=1) < 10).all()
    assert np.mean(near.argmin(axis=1) == 0) == pytest.approx(0.75, abs=0.04)
    assert np.array_equal(bins == bins[near.argmin(axis=1) == 0][0], near.argmin(axis=1) == 0)  # the tag is the mode


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focus_flattens_what_is_drawn(gamma: float) -> None:
    """The minimum of the focal loss over p for shares 3:1 is not 0.75 but nearer to a half: a property of BeT."""
    p = np.linspace(0.001, 0.999, 9999)
    expected = p[np.argmin(-0.75 * (1 - p) ** gamma * np.log(p) - 0.25 * p**gamma * np.log(1 - p))]
    action = np.tile(np.array([100.0, 100.0, 100.0, 400.0], np.float32)[:, None, None], (4, T, A))
    policy = fitted(replace(SMALL, bins=2, chunk=1), action[:, :1], focal_gamma=gamma)
    learn(policy, alike(action, T), 150, lr=1e-2)
    chunk, _ = plan(policy, {"observation": np.ones((4000, T, D), np.float32)})
    assert np.mean(chunk[:, 0, 0] < 250) == pytest.approx(expected, abs=0.04)
    assert expected == pytest.approx(0.75 if gamma == 0 else 0.60, abs=0.01)


def test_it_goes_both_ways_around_the_obstacle() -> None:
    """Where an episode begins, all demonstrations of `synthetic` leave to the left or to the right; so does it."""
    demos = synthetic(episodes=40)
    slots = Windows(demos, window=1, chunk=H)
    torch.manual_seed(0)
    policy = BeT(Spaces.fit(demos), replace(SMALL, window=1, bins=16, width=32), offset_weight=100.0)
    batch = slots.gather(np.arange(0, len(slots), 8))
    policy.fit(batch["action"], torch.Generator().manual_seed(0))
    learn(policy, batch, 200, lr=5e-3)
    starts = slots.gather(np.repeat(demos.episode_starts, 5))
    shown, true = (
        chunk[:, -1] - starts["observation"][:, 0, :A] for chunk in (plan(policy, starts)[0], starts["action"])
    )
    sideways, needed = np.abs(shown[:, 1]), np.abs(true[:, 1]).min()
    assert np.mean(sideways > 0.5 * needed) > 0.8
    assert 0.25 < np.mean(shown[:, 1] > 0) < 0.75


def test_a_goal_decides_where_the_demonstrations_do_not() -> None:
    """C-BeT: the same windows, actions at 100 or 400 px as the goal has it; without the goal it draws either."""
    goal = np.where(np.arange(200) % 2 == 0, -1.0, 1.0).astype(np.float32)
    action = np.tile((250 + 150 * goal)[:, None, None], (1, T, A))
    batch = alike(action, T, np.tile(goal[:, None, None], (1, G, C)))
    shape = replace(SMALL, bins=2, chunk=1)
    told, untold = (
        fitted(replace(shape, goal_steps=steps), batch["action"][:, :1], offset_weight=10.0) for steps in (G, 0)
    )
    for policy in (told, untold):
        learn(policy, part(batch, slice(8)), 150)

    def agree(policy: BeT, sign: float) -> float:
        """The share of rows whose action is the one that the goal, or its opposite, asks for."""
        wanted = 250 + sign * (batch["action"][:, 0, 0] - 250)
        return float(np.mean(np.abs(plan(policy, batch | {"goal": sign * batch["goal"]})[0][:, 0, 0] - wanted) < 40))

    assert agree(told, 1.0) > 0.8
    assert agree(told, -1.0) > 0.8
    assert 0.4 < agree(untold, 1.0) < 0.6
    told.temperature = 1e-6  # what is left is the focal loss, which rests before the last few percent
    assert agree(told, 1.0) == agree(told, -1.0) == 1


# --- acting, and to a bundle and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("execute", ["first", "chunk", "average"])
@pytest.mark.parametrize("goal_steps", [0, G])
def test_arguments_and_components_rebuild_it_bitwise(execute: str, goal_steps: int) -> None:
    made = fitted(replace(SHAPE, dropout=0.3, goal_steps=goal_steps), temperature=0.7, acting_window=2).eval()
    actor = Actor(SPEC, made, execute=execute, goal=WANTED if goal_steps else ())
    again, goals = small.rebuilt("bet", actor, KINDS), GOALS if goal_steps else None
    assert np.array_equal(play(actor, observations(), goals=goals), play(again, observations(), goals=goals))
    assert set(actor.components()) == {"model", "normalizer"}
    assert np.array_equal(actor.components()["model"]["centres"], made.centres.numpy())


def test_seeds_decide_and_rows_do_not_see_one_another() -> None:
    actor = Actor(SPEC, fitted(replace(SHAPE, goal_steps=G)).eval(), execute="first", goal=WANTED)
    together = play(actor, observations(), SEEDS, GOALS)
    torch.manual_seed(99)
    assert np.array_equal(together, play(actor, observations(), SEEDS, GOALS))
    assert not np.allclose(together, play(actor, observations(), SEEDS + 50, GOALS))
    assert not np.allclose(together, play(actor, observations(), SEEDS, GOALS + 0.5))
    policy, batch = fitted(), windows()
    drawn = small.draws(policy, 16)
    observation = torch.from_numpy(batch["observation"])
    chunk, bins, _ = policy.eval().plan(observation, None, drawn)
    for row in range(16):
        alone, bin_alone, _ = policy.plan(observation[row, None], None, drawn[row, None])
        np.testing.assert_allclose(alone[0], chunk[row], rtol=1e-5, atol=1e-2)
        assert np.array_equal(bin_alone[0], bins[row])


def test_bins_are_drawn_from_the_softmax_at_the_temperature() -> None:
    observation = windows(count=1)["observation"]
    shares = []
    for temperature in (1.0, 0.5, 1e-6):
        policy = fitted(temperature=temperature).eval()
        logits = policy._predict(policy.decoder(torch.from_numpy(observation) / 3)[:, -1])[0][0].detach()
        drawn = plan(policy, {"observation": np.repeat(observation, 5000, axis=0)})[1]
        shares.append(np.bincount(drawn, minlength=K) / 5000)
        np.testing.assert_allclose(shares[-1], (logits / temperature).softmax(0).numpy(), atol=0.03)
    assert shares[0].max() < shares[1].max() < shares[2].max() == 1


def test_a_bins_chunk_is_its_centre_and_its_own_offset() -> None:
    policy, batch = fitted(), windows()
    chunk, bins = plan(policy, batch)
    with torch.no_grad():
        features = policy.decoder(torch.from_numpy(batch["observation"]) / 3)[:, -1].numpy()
    output = features @ policy.head.weight.detach().numpy().T + policy.head.bias.detach().numpy()
    offset = output[:, K:].reshape(16, K, H, A)[np.arange(16), bins]
    expected = (policy.centres.numpy().reshape(K, H, A)[bins] + offset) * 250 + 250
    np.testing.assert_allclose(chunk, expected, rtol=1e-4, atol=1e-2)
    assert len(set(bins)) > 1


def test_it_may_act_with_fewer_observations_than_it_trains_with() -> None:
    policy = fitted(acting_window=2).eval()
    assert (policy.window, policy.shape.window) == (2, T)
    assert (policy.draws, policy.tags, policy.channels, policy.goal_steps) == (1, 1, (D, A, 0), 0)
    assert play(Actor(SPEC, policy, execute="first"), observations()).shape == (10, 6, A)
    assert fitted().window == T


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: unfitted(temperature=0.0), "bet: temperature: expected 1e-06 or more, got 0"),
        (lambda: unfitted(acting_window=T + 1), "bet: acting_window: expected 1 to 4, the window, got 5"),
        (
            lambda: BeT(small.spaces(), replace(SHAPE, goal_steps=1)),
            "bet: goal_steps 1 and 0 goal channels must come together",
        ),
        (
            lambda: BeT(small.spaces(goal=True), SHAPE),
            "bet: goal_steps 0 and 3 goal channels must come together",
        ),
        (
            lambda: fitted(replace(SHAPE, goal_steps=G)).loss(windows() | {"goal": np.zeros((16, 1, C), np.float32)}),
            r"batch: goal: expected \(steps, channels\) \(2, 3\), got \(1, 3\)",
        ),
        (
            lambda: fitted(replace(SHAPE, goal_steps=G)).loss(untold(windows())),
            r"batch: goal: expected \(steps, channels\) \(2, 3\), got no goal",
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
        (lambda a, c: a.pop("acting"), "arguments are not those of this version: 'acting'"),
        (lambda a, c: a["shape"].update(bins=K + 1), r"model: tensor 'centres': expected"),
        (lambda a, c: c["model"].pop("centres"), "model: tensor 'centres' is missing"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(fault: Fault, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        small.build_with(fault, "bet", Actor(SPEC, fitted().eval(), execute="first"), KINDS)
