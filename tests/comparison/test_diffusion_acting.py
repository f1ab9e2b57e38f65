"""Diffusion Policy in use: the training loop, acting, refusals, bundles and back, with both networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.comparison.diffusion_model import BOTH, SPEC, H, T, model, shape, spaces, windows
from tests.support import small
from tests.support.small import FAULTS, GOALS, SEEDS, WANTED, A, D, Fault, draws, observations, play
from tests.support.synthetic import synthetic
from vqbet.comparison.policies import KINDS
from vqbet.comparison.policies.diffusion import DiffusionPolicy
from vqbet.contract import BundleError, TrainingError
from vqbet.demos.windows import Windows
from vqbet.models.spaces import Spaces
from vqbet.policies.actor import Actor
from vqbet.training.recipe import seed_everything


@BOTH
def test_it_trains_in_the_loop(kind: str, tmp_path: Path) -> None:
    demos = synthetic(4, D=D, A=A)
    seed_everything(0)
    policy = DiffusionPolicy(Spaces.fit(demos), shape(kind))
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    source = Windows(demos, window=policy.window, chunk=policy.horizon)
    trained = small.three_steps(policy, source, tmp_path)
    assert trained.steps == 3
    assert set(trained.history[-1]) == {"step", "lr", "loss", "action_error", "gradient_norm"}
    assert not policy.training
    after = policy.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert all(not torch.equal(before[name], after[name]) for name, _ in policy.network.named_parameters("network"))


# --- acting, and to a bundle and back --------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("goal", [False, True])
def test_arguments_and_components_rebuild_it_bitwise(kind: str, eta: float, goal: bool) -> None:
    made = model(kind, eta=eta, goal=goal, inference_steps=5)
    policy = Actor(SPEC, made, execute="chunk", goal=WANTED if goal else ())
    again, goals = small.rebuilt(f"diffusion_{kind}", policy, KINDS), GOALS if goal else None
    actions = play(policy, observations(), SEEDS, goals)
    torch.manual_seed(99)
    assert np.array_equal(actions, play(again, observations(), SEEDS, goals))
    assert set(policy.components()) == {"model", "normalizer"}
    assert not np.allclose(actions, play(policy, observations(), SEEDS + 1, goals))
    if goal:
        assert not np.allclose(actions, play(policy, observations(), SEEDS, -GOALS))


@BOTH
def test_rows_do_not_see_one_another_and_acting_leaves_torchs_generator_alone(kind: str) -> None:
    policy = Actor(SPEC, model(kind), execute="chunk")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    together = play(policy, observations())
    assert torch.equal(torch.get_rng_state(), state)
    alone = play(policy, observations()[:, :1], SEEDS[:1])
    np.testing.assert_allclose(alone[:, 0], together[:, 0], atol=0.05)


def test_it_plays_execute_steps_actions_of_its_horizon_and_plans_again() -> None:
    policy = model("transformer", execute_steps=3)
    assert (policy.horizon, policy.chunk) == (H, 3)
    calls: list[int] = []
    plan = policy.plan
    policy.plan = lambda *inputs: calls.append(len(inputs[0])) or plan(*inputs)
    play(Actor(SPEC, policy, execute="chunk"), observations(7))
    assert calls == [6, 6, 6]  # at steps 0, 3 and 6
    whole = model("transformer", execute_steps=H)
    observation = torch.zeros(2, T, D)
    np.testing.assert_allclose(
        policy.plan(observation, None, draws(policy, 2))[0],
        whole.plan(observation, None, draws(whole, 2))[0][:, :3],
        rtol=1e-6,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: DiffusionPolicy(spaces(), shape("cnn", goal_steps=2)), "goal_steps 2 and 0 goal channels must come"),
        (lambda: DiffusionPolicy(spaces(goal=True), shape("cnn")), "goal_steps 0 and 3 goal channels must come"),
        (lambda: model("cnn", execute_steps=5), "execute_steps: expected 1 to 4, the horizon, got 5"),
        (lambda: model("cnn", execute_steps=0), "execute_steps: expected 1 to 4, the horizon, got 0"),
        (lambda: model("cnn", inference_steps=30), r"expected 2 or more, a divisor of diffusion_steps \(100\), got 30"),
        (lambda: model("cnn", inference_steps=1), r"expected 2 or more, a divisor of diffusion_steps \(100\), got 1"),
        (lambda: model("cnn", eta=1.5), r"eta: expected 0 \(DDIM\) to 1 \(DDPM\), got 1.5"),
        (lambda: model("cnn", horizon=8).loss(windows()), "expected windows of chunk 8, its horizon, got 4"),
        (lambda: model("transformer", horizon=3).loss(windows()), "expected windows of chunk 3, its horizon, got 4"),
    ],
)
def test_what_does_not_belong_together_is_refused(wrong: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        wrong()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        *FAULTS,
        (lambda a, c: a.update(network="rnn"), "arguments are not those of this version: 'rnn'"),
        (lambda a, c: a["shape"].update(width=16), "model: tensor '.*': expected"),
        (lambda a, c: c["model"].pop("network.head.bias"), r"model: tensor 'network\.head\.bias' is missing"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(fault: Fault, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        small.build_with(fault, "diffusion_cnn", Actor(SPEC, model("cnn"), execute="chunk"), KINDS)
