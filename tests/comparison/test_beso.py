"""BESO: its network, guidance and loss against second derivations, acting, round trips, refusals."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support import small
from tests.support.small import FAULTS, GOALS, SEEDS, WANTED, A, C, D, Fault, G, observations, plan, play
from vqbet.comparison.policies import KINDS
from vqbet.comparison.policies import beso as module
from vqbet.comparison.policies.beso import Beso, BesoShape
from vqbet.contract import BundleError, TrainingError
from vqbet.policies.actor import Actor

T = 3
SIGMA = 0.5  # of the data
SHAPE = BesoShape(window=T, depth=2, heads=2, width=16, dropout=0.0)
GUIDED = {"guidance": 1.7, "goal_dropout": 0.1}
SPEC = small.limited(0.0, 500.0)
windows = partial(small.windows, window=T, chunk=1)


def model(shape: BesoShape = SHAPE, seed: int = 0, **settings: Any) -> Beso:
    """An untrained model, with weights so large that everything it is told shows in what it says."""
    torch.manual_seed(seed)
    policy = Beso(small.spaces(goal=shape.goal_steps > 0), shape, **settings)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.mul_(10.0 if parameter.ndim == 2 else 1.0)
    return policy.eval()


def conditional(**settings: Any) -> Beso:
    return model(replace(SHAPE, goal_steps=G), **settings)


def inputs(policy: Beso, count: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Noised actions, noise levels, and normalised observations and goals."""
    torch.manual_seed(seed)
    goal = torch.randn(count, G, C) if policy.goal_steps else None
    return torch.randn(count, T, A), torch.rand(count) + 0.01, torch.randn(count, T, D), goal


# --- network, guidance, masked goals ----------------------------------------------------------------------------------


def test_an_action_sees_its_own_and_earlier_steps_the_goal_and_the_noise_level() -> None:
    policy = conditional()
    noised, sigma, observation, goal = inputs(policy)

    def changed(place: Tensor, *index: int) -> list[bool]:
        before = policy.network(noised, sigma.log(), observation, goal)
        place[:, *index] += 0.3
        after = policy.network(noised, sigma.log(), observation, goal)
        place[:, *index] -= 0.3
        return [not torch.allclose(before[:, t], after[:, t], atol=1e-5) for t in range(T)]

    for t in range(T):
        assert changed(observation, t, 0) == [step >= t for step in range(T)]
        assert changed(noised, t, 0) == [step >= t for step in range(T)]
    assert changed(goal, 0, 1) == [True] * T
    levels = [policy.network(noised, torch.full((4,), level), observation, goal) for level in (-1.0, 0.0)]
    assert not torch.allclose(*levels, atol=1e-5)
    orders = [policy.network(noised, sigma, observation, wanted) for wanted in (goal, goal.flip(1))]
    assert not torch.allclose(*orders, atol=1e-5)


def test_without_noise_nothing_is_changed() -> None:
    policy = conditional()
    noised, _, observation, goal = inputs(policy)
    for sigma in (1e-2, 1e-4, 1e-6):
        change = policy.denoise(noised, torch.full((4,), sigma), observation, goal) - noised
        assert change.abs().max() < 30 * sigma + 1e-6
    assert policy.denoise(noised, torch.full((4,), 1.0), observation, goal).sub(noised).abs().max() > 0.1


class Counted:
    """Counts the evaluations of a policy's network, and the rows of each."""

    def __init__(self, policy: Beso) -> None:
        self.rows: list[int] = []
        policy.network.register_forward_hook(lambda network, arguments, result: self.rows.append(len(result)))


@pytest.mark.parametrize("steps", [1, 3])
def test_guidance_of_one_is_the_conditional_model_bit_for_bit(steps: int) -> None:
    policy = conditional(guidance=1.0, goal_dropout=0.1, steps=steps)
    seen = inputs(policy)
    assert torch.equal(policy.guided(*seen), policy.denoise(*seen))
    calls = Counted(policy)
    plan(policy, windows(8))
    assert calls.rows == [8] * steps


def test_guidance_goes_from_the_unconditional_model_through_the_conditional_one() -> None:
    for guidance in (0.0, 0.5, 2.0):
        policy = conditional(guidance=guidance, goal_dropout=0.1)
        noised, sigma, observation, goal = inputs(policy)
        told = policy.denoise(noised, sigma, observation, goal)
        untold = policy.denoise(noised, sigma, observation, goal, torch.ones(4, dtype=torch.bool))
        assert not torch.allclose(told, untold, atol=1e-2)
        expected = untold + guidance * (told - untold)
        torch.testing.assert_close(policy.guided(noised, sigma, observation, goal), expected, atol=1e-4, rtol=1e-4)
        calls = Counted(policy)
        plan(policy, windows(8))
        assert calls.rows == [16] * 3


def test_a_goal_that_is_not_told_plays_no_part() -> None:
    policy = conditional(**GUIDED)
    noised, sigma, observation, goal = inputs(policy)
    masked = torch.tensor([True, False, True, False])
    one = policy.denoise(noised, sigma, observation, goal, masked)
    two = policy.denoise(noised, sigma, observation, goal + 1.0, masked)
    assert torch.equal(one[masked], two[masked])
    assert not torch.isclose(one[~masked], two[~masked], atol=1e-4).all(dim=(1, 2)).any()


def test_training_does_not_tell_the_stated_share_of_goals() -> None:
    masks: list[Tensor | None] = []

    def remember(network: Any, arguments: tuple[Any, ...]) -> None:
        masks.append(arguments[4])

    policy = conditional(goal_dropout=0.3).train()
    policy.network.register_forward_pre_hook(remember)
    policy.loss(windows(4000))
    assert float(masks[0].float().mean()) == pytest.approx(0.3, abs=0.03)
    policy.eval().loss(windows())
    assert masks[1] is None
    plain = conditional().train()
    plain.network.register_forward_pre_hook(remember)
    plain.loss(windows())
    assert masks[2] is None
    assert not any("no_goal" in name for name in plain.components()["model"])


# --- the loss ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_loss_is_the_weighted_error_of_the_denoised_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Karras et al., equation 2 with their weight (sigma^2 + data^2) / (sigma data)^2, from what the denoiser saw."""
    policy, batch = conditional(goal_dropout=0.5).train(), windows(32)
    batch["valid"][:5, :2] = False
    seen: list[tuple[Tensor, Tensor]] = []
    whole = policy.denoise

    def remember(noised: Tensor, sigma: Tensor, *rest: Any) -> Tensor:
        seen.append((sigma, whole(noised, sigma, *rest)))
        return seen[-1][1]

    monkeypatch.setattr(policy, "denoise", remember)
    loss, metrics = policy.loss(batch)
    [(sigma, denoised)] = seen
    assert len(sigma.unique()) == 32  # one level a window, as there is one token for it
    error = denoised.double().numpy() - (batch["action"] - 250.0) / 250.0
    weight = ((sigma**2 + SIGMA**2) / (sigma * SIGMA) ** 2).double().numpy()[:, None, None] * batch["valid"][:, :, None]
    assert float(loss) == pytest.approx((weight * error**2).mean(), rel=1e-4)
    assert float(metrics["action_error"]) == pytest.approx(250 * np.abs(error[batch["valid"]]).mean(), rel=1e-4)


@pytest.mark.parametrize("sigmas", [(0.005, 0.006), (0.3, 0.31), (5.0, 5.1)])
@torch.no_grad()
def test_every_noise_level_weighs_the_same(sigmas: tuple[float, float]) -> None:
    """A network that says nothing has, on data of the expected spread, an error of 1 whatever the noise."""
    policy = model(sigma_min=sigmas[0], sigma_max=sigmas[1])
    for parameter in policy.network.head.parameters():
        parameter.zero_()
    batch = windows(4000)
    batch["action"] = (250 + 125 * np.random.default_rng(0).normal(size=batch["action"].shape)).astype(np.float32)
    assert float(policy.loss(batch)[0]) == pytest.approx(1, abs=0.03)


@torch.no_grad()
def test_padded_positions_contribute_nothing() -> None:
    """Neither as targets nor as what other positions see, though their noised actions are before those."""
    policy, batch, losses = model(), windows(), []
    batch["valid"][:, :2] = False
    for value in (0.0, 9e9):
        batch["action"][:, :2] = value
        torch.manual_seed(3)
        losses.append(policy.loss(batch)[0])
    assert torch.equal(*losses)
    assert losses[0] > 0
    batch["action"][:, 2] += 100.0
    torch.manual_seed(3)
    assert policy.loss(batch)[0] != losses[0]


@torch.no_grad()
def test_a_batch_with_nothing_valid_has_loss_zero() -> None:
    batch = windows()
    batch["valid"][:] = False
    loss, metrics = model().loss(batch)
    assert float(loss) == 0
    assert float(metrics["action_error"]) == 0


@torch.no_grad()
def test_the_loss_of_a_batch_is_the_mean_of_its_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the same noise in every row."""
    monkeypatch.setattr(module.torch, "rand", lambda rows, device: torch.full((rows,), 0.4, device=device))
    monkeypatch.setattr(module.torch, "randn_like", lambda value: torch.full_like(value, 0.7))
    policy, batch = conditional(), windows()
    batch["valid"][:3, :2] = False
    torch.testing.assert_close(policy.loss(batch)[0], small.mean_of_halves(policy, batch))


def test_metrics_are_scalars_without_a_graph_and_every_parameter_learns() -> None:
    policy = conditional(**GUIDED).train()
    loss, metrics = policy.loss(windows(200))
    assert loss.ndim == 0
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in policy.parameters())
    assert policy.network.position.grad.any(dim=1).all()


# --- acting -----------------------------------------------------------------------------------------------------------


SETTINGS = pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, ()),
        ({"sampler": "euler_ancestral", "schedule": "karras"}, ()),
        ({"steps": 5}, WANTED),
        ({**GUIDED, "sampler": "euler_ancestral"}, WANTED),
    ],
)


def actor_of(settings: dict[str, Any], wanted: tuple[str, ...]) -> Actor:
    policy = conditional(**settings) if wanted else model(**settings)
    return Actor(SPEC, policy, execute="first", goal=wanted)


@SETTINGS
def test_the_way_to_a_bundle_and_back_is_bitwise(settings: dict[str, Any], wanted: tuple[str, ...]) -> None:
    actor, goals = actor_of(settings, wanted), GOALS if wanted else None
    again = small.rebuilt("beso", actor, KINDS)
    assert np.array_equal(play(actor, observations(), SEEDS, goals), play(again, observations(), SEEDS, goals))
    assert set(again.components()) == {"model", "normalizer"}
    assert not again.planner.training


@SETTINGS
def test_seeds_decide_and_nothing_else_is_random(settings: dict[str, Any], wanted: tuple[str, ...]) -> None:
    actor, goals = actor_of(settings, wanted), GOALS if wanted else None
    first = play(actor, observations(), SEEDS, goals)
    torch.manual_seed(9)
    assert np.array_equal(first, play(actor, observations(), SEEDS, goals))
    assert not np.allclose(first, play(actor, observations(), SEEDS + 50, goals), atol=1.0)
    for row in range(len(SEEDS)):
        alone = play(actor, observations()[:, row : row + 1], SEEDS[row : row + 1], goals[[row]] if wanted else None)
        np.testing.assert_allclose(alone[:, 0], first[:, row], atol=0.1)  # px
    if wanted:
        assert not np.allclose(first, play(actor, observations(), SEEDS, goals + 1), atol=1.0)


@pytest.mark.parametrize("sampler", ["ddim", "euler_ancestral"])
def test_every_random_number_is_used(sampler: Any) -> None:
    policy, batch = model(sampler=sampler), windows(1)
    assert policy.draws == T * A * (3 if sampler == "euler_ancestral" else 1)
    uniform = torch.full((1, policy.draws), 0.5, dtype=torch.float64)
    before = plan(policy, batch, uniform)
    for index in range(policy.draws):
        other = uniform.clone()
        other[0, index] = 0.9
        assert not np.array_equal(plan(policy, batch, other), before)


def test_it_takes_no_dropout_along_into_acting() -> None:
    policy = model(replace(SHAPE, dropout=0.5))
    assert np.array_equal(plan(policy, windows()), plan(policy, windows()))


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "settings", "sentence"),
    [
        ({"goal_steps": G}, {"guidance": 2.0}, "guidance 2.0 needs the score without a goal, which goal_dropout 0"),
        ({}, {"guidance": 2.0}, r"guidance 2\.0 and goal_dropout 0\.0 need a goal, there is none"),
        ({}, {"goal_dropout": 0.1}, r"guidance 1\.0 and goal_dropout 0\.1 need a goal, there is none"),
        ({"goal_steps": G}, {"goal_dropout": 1.0}, r"expected goal_dropout in \[0, 1\) .* got 1\.0"),
        ({"goal_steps": G}, {"guidance": float("nan"), "goal_dropout": 0.1}, "guidance of 0 or more, got 0.1 and nan"),
        ({"chunk": 4}, {}, "chunk: expected 1, .* got 4"),
        ({}, {"sampler": "heun"}, "sampler: expected one of ddim, euler, euler_ancestral, got 'heun'"),
        ({}, {"schedule": "linear"}, "schedule: expected one of karras, exponential, got 'linear'"),
        ({}, {"steps": 0}, "expected steps of at least 1, .* got steps 0"),
        ({}, {"sigma_min": 1.0}, "0 < sigma_min < sigma_max .* sigma_min 1.0, sigma_max 1.0"),
        ({}, {"rho": 0.0}, "rho > 0.* rho 0.0"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        model(replace(SHAPE, **changes), **settings)


@pytest.mark.parametrize("goal", [False, True])
def test_goals_and_goal_steps_come_together(goal: bool) -> None:
    shape = replace(SHAPE, goal_steps=0 if goal else G)
    with pytest.raises(TrainingError, match=r"goal_steps \d and \d goal channels must come together"):
        Beso(small.spaces(goal), shape)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        *FAULTS,
        (lambda a, c: c["model"].pop("network.position"), r"model: tensor 'network\.position' is missing"),
        (lambda a, c: a["shape"].update(depth=3), r"model: tensor 'network\.blocks\.2.* is missing"),
        (lambda a, c: a.pop("sampling"), "arguments are not those of this version: 'sampling'"),
        (lambda a, c: a["sampling"].update(goal_dropout=0.1, guidance=2.0), r"model: tensor 'network\.no_goal'"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(fault: Fault, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        small.build_with(fault, "beso", actor_of({}, WANTED), KINDS)


def test_its_arguments_say_what_it_is() -> None:
    policy = conditional(**GUIDED)
    assert policy.arguments()["shape"] == asdict(policy.shape)
    assert policy.arguments()["sampling"]["guidance"] == 1.7
    assert (policy.window, policy.chunk, policy.channels, policy.goal_steps, policy.tags) == (T, 1, (D, A, C), G, 0)
