"""BESO: its preconditioning, noise levels, samplers and guidance against closed forms, what it learns, round trips."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from vqbet.contract import BundleError, Channel, Spec, TrainingError
from vqbet.demos.goals import GoalWindows
from vqbet.demos.windows import Windows
from vqbet.normalizer import Normalizer
from vqbet.policies import beso as module
from vqbet.policies import build
from vqbet.policies.acting import Actor
from vqbet.policies.beso import Beso, BesoShape, ancestral, noise_levels, preconditioning, sample, training_sigma
from vqbet.policies.spaces import Spaces
from vqbet.recipe import Recipe, seed_everything
from vqbet.testing import synthetic
from vqbet.train import train

T, D, A, G, C = 3, 5, 2, 2, 2
SIGMA = 0.5  # of the data
SHAPE = BesoShape(window=T, depth=2, heads=2, width=16, dropout=0.0)
GUIDED = {"guidance": 1.7, "goal_dropout": 0.1}
SPEC = Spec(
    task="fake",
    observation=tuple(Channel(f"o{index}", "m", -3.0, 3.0) for index in range(D)),
    action=tuple(Channel(f"a{index}", "px", 0.0, 500.0) for index in range(A)),
    control_hz=10.0,
    action_kind="absolute",
    frame="table",
)
WANTED = ("o0", "o3")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small matrices: more threads are slower
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def between(low: float, high: float, channels: int) -> Normalizer:
    return Normalizer.fit(np.array([[low] * channels, [high] * channels], np.float32))


def model(shape: BesoShape = SHAPE, seed: int = 0, *, loud: bool = True, **settings: Any) -> Beso:
    """An untrained model; `loud`: with weights so large that everything it is told shows in what it says."""
    torch.manual_seed(seed)
    goal = between(-2.0, 2.0, C) if shape.goal_steps else None
    policy = Beso(Spaces(between(-3.0, 3.0, D), between(0.0, 500.0, A), goal), shape, **settings)
    with torch.no_grad():
        for parameter in policy.network.parameters() if loud else ():
            parameter.mul_(10.0 if parameter.ndim == 2 else 1.0)
    return policy.eval()


def conditional(**settings: Any) -> Beso:
    return model(replace(SHAPE, goal_steps=G), **settings)


def windows(count: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "observation": rng.normal(size=(count, T, D)).astype(np.float32),
        "action": rng.uniform(0, 500, (count, T, A)).astype(np.float32),
        "valid": np.ones((count, T), bool),
        "goal": rng.normal(size=(count, G, C)).astype(np.float32),
    }


def inputs(policy: Beso, count: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Noised actions, noise levels, and normalised observations and goals."""
    torch.manual_seed(seed)
    goal = torch.randn(count, G, C) if policy.goal_steps else None
    return torch.randn(count, T, A), torch.rand(count) + 0.01, torch.randn(count, T, D), goal


def plan(policy: Beso, batch: dict[str, np.ndarray], uniform: Tensor | None = None) -> np.ndarray:
    goal = torch.from_numpy(batch["goal"]) if policy.goal_steps else None
    observation = torch.from_numpy(batch["observation"])
    if uniform is None:
        uniform = torch.rand(len(observation), policy.draws, dtype=torch.float64, generator=torch.Generator())
    with torch.inference_mode():
        chunk, tags = policy.eval().plan(observation, goal, uniform)
    assert chunk.shape == (len(observation), 1, policy.channels[1])
    assert tags.shape == (len(observation), 0)
    assert tags.dtype == torch.int64
    return chunk.numpy()


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


# --- preconditioning and noise levels ---------------------------------------------------------------------------------


@given(st.floats(1e-3, 100.0))
def test_preconditioning_is_what_makes_inputs_and_targets_unit_and_amplifies_errors_least(sigma: float) -> None:
    """Karras et al., appendix B.6: unit variance of the input and of F's target, and of all c_skip that with the
    smallest c_out."""
    skip, out, scale, level = (float(value) for value in preconditioning(torch.tensor([sigma], dtype=torch.float64)))
    assert scale**2 * (SIGMA**2 + sigma**2) == pytest.approx(1)
    assert out**2 == pytest.approx((1 - skip) ** 2 * SIGMA**2 + skip**2 * sigma**2)
    for other in (skip - 0.01, skip + 0.01):
        assert (1 - other) ** 2 * SIGMA**2 + other**2 * sigma**2 > out**2
    assert level == pytest.approx(math.log(sigma) / 4)


@pytest.mark.parametrize("sigma", [0.005, 0.3, 1.0, 50.0])
def test_inputs_and_targets_of_the_network_have_unit_variance(sigma: float) -> None:
    rng = np.random.default_rng(0)
    data = rng.choice([-SIGMA, SIGMA], 100_000)
    noised = data + sigma * rng.normal(size=data.shape)
    skip, out, scale, _ = (float(value) for value in preconditioning(torch.tensor([sigma], dtype=torch.float64)))
    assert np.std(scale * noised) == pytest.approx(1, abs=0.02)
    assert np.std((data - skip * noised) / out) == pytest.approx(1, abs=0.02)


def test_without_noise_nothing_is_changed() -> None:
    policy = conditional()
    noised, _, observation, goal = inputs(policy)
    for sigma in (1e-2, 1e-4, 1e-6):
        change = policy.denoise(noised, torch.full((4,), sigma), observation, goal) - noised
        assert change.abs().max() < 30 * sigma + 1e-6
    assert policy.denoise(noised, torch.full((4,), 1.0), observation, goal).sub(noised).abs().max() > 0.1


def test_noise_levels_of_training_are_log_logistic_within_their_bounds() -> None:
    low, high = 0.005, 1.0
    drawn = training_sigma(torch.rand(50_000), sigma_min=low, sigma_max=high).double().numpy()
    whole = stats.fisk(c=2.0, scale=SIGMA)  # the log-logistic of shape 1 / 0.5

    def cut(value: np.ndarray) -> np.ndarray:
        return (whole.cdf(value) - whole.cdf(low)) / (whole.cdf(high) - whole.cdf(low))

    assert stats.kstest(drawn, cut).pvalue > 1e-3
    ends = training_sigma(torch.tensor([0.0, 1.0]), sigma_min=low, sigma_max=high)
    torch.testing.assert_close(ends, torch.tensor([low, high]))
    assert low <= drawn.min()
    assert drawn.max() <= high


def test_without_bounds_half_of_the_noise_levels_are_below_that_of_the_data() -> None:
    quantiles = training_sigma(torch.tensor([0.25, 0.5, 0.75]), sigma_min=1e-9, sigma_max=1e3)
    expected = [SIGMA * math.exp(0.5 * math.log(odds)) for odds in (1 / 3, 1, 3)]
    torch.testing.assert_close(quantiles, torch.tensor(expected), rtol=1e-3, atol=0)


def test_schedules_go_from_the_largest_to_the_smallest_level_and_to_none() -> None:
    middle = ((1.0 + 0.005 ** (1 / 5)) / 2) ** 5
    kitchen = noise_levels("karras", 3, sigma_min=0.005, sigma_max=1.0, rho=5.0)
    assert kitchen == pytest.approx((1.0, middle, 0.005, 0.0))
    even = noise_levels("exponential", 3, sigma_min=0.01, sigma_max=1.0, rho=5.0)
    assert even == pytest.approx((1.0, 0.1, 0.01, 0.0))
    steep = noise_levels("karras", 9, sigma_min=0.01, sigma_max=1.0, rho=1e4)
    assert steep == pytest.approx(noise_levels("exponential", 9, sigma_min=0.01, sigma_max=1.0, rho=5.0), rel=1e-2)
    assert noise_levels("karras", 1, sigma_min=0.01, sigma_max=2.0, rho=5.0) == pytest.approx((2.0, 0.0))


# --- samplers ---------------------------------------------------------------------------------------------------------


@given(st.floats(1e-3, 100.0), st.floats(0.0, 0.999))
def test_an_ancestral_step_is_ddpms_posterior(now: float, share: float) -> None:
    """What is put back together has the variance of the next level, and mean and variance are those of x at `then`
    given x at `now` and the data: products of the Gaussians N(data, then^2) and N(x | then, now^2 - then^2)."""
    then = share * now
    down, up = ancestral(now, then)
    assert down**2 + up**2 == pytest.approx(then**2)
    if then > 1e-3 * now:
        precision = 1 / then**2 + 1 / (now**2 - then**2)
        assert up**2 == pytest.approx(1 / precision)
        assert down / now == pytest.approx(
            1 / (now**2 - then**2) / precision
        )  # the weight of x, the rest is the data's


def mixture(noised: Tensor, sigma: float) -> Tensor:
    """D of data that is +0.6 or -0.6, each with probability 1/2."""
    return 0.6 * torch.tanh(0.6 * noised / sigma**2)


def test_ddim_and_eulers_method_are_one_step_here() -> None:
    noise = torch.randn(1, 50, T, A, dtype=torch.float64)
    sigmas = noise_levels("karras", 6, sigma_min=0.05, sigma_max=1.0, rho=5.0)
    euler = ddim = sigmas[0] * noise[0]
    for now, then in pairwise(sigmas):
        euler = euler + (then - now) * (euler - mixture(euler, now)) / now
        if then:
            ratio = math.log(now) - math.log(then)
            ddim = then / now * ddim - math.expm1(-ratio) * mixture(ddim, now)
        else:
            ddim = mixture(ddim, now)
    torch.testing.assert_close(sample(mixture, noise, sigmas), euler)
    torch.testing.assert_close(sample(mixture, noise, sigmas), ddim)


def test_the_ancestral_sampler_adds_its_noise_after_each_step_but_the_last() -> None:
    noise, sigmas = torch.randn(3, 50, T, A, dtype=torch.float64), (1.0, 0.4, 0.1, 0.0)
    x = noise[0]
    for step, (now, then) in enumerate([(1.0, 0.4), (0.4, 0.1)], 1):
        up = then * math.sqrt(1 - then**2 / now**2)
        down = math.sqrt(then**2 - up**2)
        x = x + (down - now) * (x - mixture(x, now)) / now + up * noise[step]
    torch.testing.assert_close(sample(mixture, noise, sigmas), mixture(x, 0.1))


MEAN, SPREAD = 0.3, 0.2


def gaussian(noised: Tensor, sigma: float) -> Tensor:
    """D of data from N(MEAN, SPREAD^2)."""
    return (SPREAD**2 * noised + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


@pytest.mark.parametrize("schedule", ["karras", "exponential"])
def test_the_error_of_a_step_is_of_first_order(schedule: Any) -> None:
    """For a Gaussian, x - MEAN shrinks as sqrt(SPREAD^2 + sigma^2) on the way down: twice the steps, half the error."""
    noise, errors = torch.randn(1, 200, 1, 1, dtype=torch.float64), []
    for steps in (40, 80, 160):
        sigmas = noise_levels(schedule, steps + 1, sigma_min=0.02, sigma_max=1.0, rho=5.0)[:-1]
        shrunk = math.sqrt((SPREAD**2 + 0.02**2) / (SPREAD**2 + 1))
        exact = MEAN + (noise[0] - MEAN) * shrunk
        errors.append(float((sample(gaussian, noise, sigmas) - exact).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.15)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("noisy", [False, True])
def test_many_steps_sample_the_distribution(noisy: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(100 if noisy else 1, 20_000, 1, 1, dtype=torch.float64, generator=generator)
    drawn = sample(gaussian, noise, noise_levels("karras", 100, sigma_min=0.005, sigma_max=20.0, rho=7.0))
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(drawn.std()) == pytest.approx(SPREAD, abs=0.01)
    assert stats.kstest((drawn.flatten().numpy() - drawn.mean().item()) / drawn.std().item(), "norm").pvalue > 1e-3


# --- network, guidance, masked goals ----------------------------------------------------------------------------------


def test_an_action_sees_its_own_and_earlier_steps_the_goal_and_the_noise_level() -> None:
    policy = conditional()
    noised, sigma, observation, goal = inputs(policy)

    def changed(place: Tensor, *index: int) -> list[bool]:
        before = policy.denoise(noised, sigma, observation, goal)
        place[:, *index] += 0.3
        after = policy.denoise(noised, sigma, observation, goal)
        place[:, *index] -= 0.3
        return [not torch.allclose(before[:, t], after[:, t], atol=1e-5) for t in range(T)]

    for t in range(T):
        assert changed(observation, t, 0) == [step >= t for step in range(T)]
        assert changed(noised, t, 0) == [step >= t for step in range(T)]
    assert changed(goal, 0, 1) == [True] * T
    levels = [policy.network(noised, torch.full((4,), level), observation, goal) for level in (-1.0, 0.0)]
    assert not torch.allclose(*levels, atol=1e-5)


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
    assert sigma.shape == (32,)  # one level a window, as there is one token for it
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
    halves = [policy.loss({name: value[part] for name, value in batch.items()})[0] for part in (slice(8), slice(8, 16))]
    torch.testing.assert_close(policy.loss(batch)[0], torch.stack(halves).mean())


def test_metrics_are_scalars_without_a_graph_and_every_parameter_learns() -> None:
    policy = conditional(**GUIDED).train()
    loss, metrics = policy.loss(windows(200))
    assert loss.ndim == 0
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())
    loss.backward()
    assert all(parameter.grad is not None for parameter in policy.parameters())


# --- what it learns ---------------------------------------------------------------------------------------------------


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
    batch = {"observation": np.ones((400, 1, 1), np.float32), "goal": np.full((400, 1, 1), wanted, np.float32)}
    return (plan(again, batch)[:, 0, 0] - 250) / 200


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


# --- acting -----------------------------------------------------------------------------------------------------------


def observations(steps: int = 6, episodes: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(steps, episodes, D)).astype(np.float32)


def play(actor: Actor, stream: np.ndarray, seeds: np.ndarray, goals: np.ndarray | None = None) -> np.ndarray:
    actor.reset(seeds, goals)
    return np.stack([actor.act(step, np.arange(len(seeds))) for step in stream])


SEEDS, GOALS = np.arange(100, 105), np.random.default_rng(1).normal(size=(5, C)).astype(np.float32)
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
    again = build("beso", SPEC, json.loads(json.dumps(actor.arguments(), allow_nan=False)), actor.components())
    assert np.array_equal(play(actor, observations(), SEEDS, goals), play(again, observations(), SEEDS, goals))
    assert again.arguments() == actor.arguments()
    assert set(again.components()) == {"model", "normalizer"}
    assert not again.planner.training


@SETTINGS
def test_seeds_decide_and_nothing_else_is_random(settings: dict[str, Any], wanted: tuple[str, ...]) -> None:
    actor, goals = actor_of(settings, wanted), GOALS if wanted else None
    first = play(actor, observations(), SEEDS, goals)
    torch.manual_seed(9)
    assert np.array_equal(first, play(actor, observations(), SEEDS, goals))
    assert not np.allclose(first, play(actor, observations(), SEEDS + 50, goals), atol=1.0)
    for row in range(5):
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


# --- training and refusals --------------------------------------------------------------------------------------------


def test_it_trains_in_the_loop(tmp_path: Path) -> None:
    seed_everything(0)
    demos = synthetic(4, D=D, A=A)
    goal = tuple(channel.name for channel in demos.spec.observation[:C])
    source = GoalWindows(Windows(demos, window=T, chunk=1), demos, channels=goal, steps=G)
    policy = Beso(Spaces.fit(demos, goal), replace(SHAPE, goal_steps=G, dropout=0.1), **GUIDED)
    before = {name: value.copy() for name, value in policy.components()["model"].items()}
    recipe = Recipe(steps=3, batch=8, lr=1e-3, warmup=1, min_lr=0.1, weight_decay=0.01, clip=1.0, ema=0.9, seed=0)
    done = train(
        policy, source.gather, len(source), recipe, folder=tmp_path, fingerprint="f", track=lambda step, metrics: None
    )
    assert done.steps == 3
    assert {"loss", "action_error"} <= done.history[-1].keys()
    assert all(not np.array_equal(value, before[name]) for name, value in policy.components()["model"].items())
    actor = Actor(demos.spec, policy, execute="first", goal=goal)
    actor.reset(np.arange(2), demos.observation[-2:, :C])
    assert np.isfinite(actor.act(demos.observation[:2], np.arange(2))).all()


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


@pytest.mark.parametrize("goal", [None, between(-1.0, 1.0, C)])
def test_goals_and_goal_steps_come_together(goal: Normalizer | None) -> None:
    shape = replace(SHAPE, goal_steps=0 if goal else G)
    with pytest.raises(TrainingError, match=r"goal_steps \d and goal channels must come together"):
        Beso(Spaces(Normalizer(D), Normalizer(A), goal), shape)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda a, c: c.pop("model"), "components missing: model"),
        (lambda a, c: c["model"].pop("network.position"), r"model: tensor 'network\.position' is missing"),
        (lambda a, c: c["model"].update(wing=np.zeros(1)), "model: unknown tensor 'wing'"),
        (lambda a, c: a["shape"].update(depth=3), r"model: tensor 'network\.blocks\.2.* is missing"),
        (lambda a, c: a["shape"].update(wings=2), "arguments are not those of this version: .*wings"),
        (lambda a, c: a.pop("sampling"), "arguments are not those of this version: 'sampling'"),
        (lambda a, c: c["normalizer"].pop("action.low"), r"normalizer \(action\): tensor 'low' is missing"),
        (lambda a, c: a["sampling"].update(goal_dropout=0.1, guidance=2.0), r"model: tensor 'network\.no_goal'"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused_by_name(fault: Any, sentence: str) -> None:
    policy = conditional()
    arguments, components = policy.arguments(), policy.components()
    fault(arguments, components)
    with pytest.raises(BundleError, match=sentence):
        Beso.from_components(arguments, components)


def test_its_arguments_say_what_it_is() -> None:
    policy = conditional(**GUIDED)
    assert policy.arguments()["shape"] == asdict(policy.shape)
    assert policy.arguments()["sampling"]["guidance"] == 1.7
    assert (policy.window, policy.chunk, policy.channels, policy.goal_steps, policy.tags) == (T, 1, (D, A, C), G, 0)
