"""Diffusion Policy: schedule, loss and sampler against their definitions and against the library's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_ddpm
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from tests.comparison.diffusion_model import BOTH, HIGH, LOW, H, T, model, sample, windows
from tests.support import small
from tests.support.small import A, D, draws
from vqbet.comparison.policies.diffusion import DiffusionPolicy
from vqbet.contract import TrainingError
from vqbet.policies.in_torch import normals


class Exact(torch.nn.Module):
    """The noise expected of chunks that are one of `modes` (M, H, A), by Bayes' rule, in place of a network."""

    step_width = 4

    def __init__(self, modes: torch.Tensor, shares: list[float], signal: torch.Tensor) -> None:
        super().__init__()
        self.modes, self.log_shares, self.signal = modes.double(), torch.tensor(shares).double().log(), signal.double()

    def seen(self, observation: torch.Tensor, goal: torch.Tensor | None) -> torch.Tensor:
        return observation

    def forward(self, noisy: torch.Tensor, step: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        left, noisy = self.signal[step][:, None, None, None], noisy.double()
        apart = (noisy[:, None] - left.sqrt() * self.modes) ** 2 / (2 * (1 - left))
        belief = (self.log_shares - apart.sum((2, 3))).softmax(1)
        chunk = torch.einsum("bm,mha->bha", belief, self.modes)
        left = left[:, 0]
        return ((noisy - left.sqrt() * chunk) / (1 - left).sqrt()).float()


def exactly(policy: DiffusionPolicy, modes: torch.Tensor, shares: list[float]) -> DiffusionPolicy:
    policy.network = Exact(modes, shares, policy.signal)
    policy._timed = lambda step: step
    return policy


# --- the schedule, the forward process and the loss ------------------------------------------------------------------


def test_the_schedule_is_the_squared_cosine() -> None:
    """Equation 17 of arXiv 2102.09672, in the form of section 3.2: betas clipped at 0.999."""

    def cosine(t: np.ndarray) -> np.ndarray:
        return np.cos((t / 100 + 0.008) / 1.008 * np.pi / 2) ** 2

    t = np.arange(100)
    betas = np.minimum(1 - cosine(t + 1) / cosine(t), 0.999)
    np.testing.assert_allclose(model("cnn").signal.numpy(), np.cumprod(1 - betas), rtol=2e-4)


def test_forward_noising_is_the_librarys() -> None:
    policy = model("cnn")
    chunk, noise = torch.rand(100, H, A) * 2 - 1, torch.randn(100, H, A)
    step = torch.arange(100)
    library = DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=100)
    noisy = policy.diffuse(chunk, noise, step)
    torch.testing.assert_close(noisy, library.add_noise(chunk, noise, step))
    torch.testing.assert_close(
        noisy[50], policy.signal[50] ** 0.5 * chunk[50] + (1 - policy.signal[50]) ** 0.5 * noise[50]
    )


@BOTH
@pytest.mark.parametrize("goal", [False, True])
@torch.no_grad()
def test_the_loss_is_the_error_of_the_noise_of_the_last_chunk(kind: str, goal: bool) -> None:
    policy, batch = model(kind, goal=goal), windows(5)
    batch["valid"][0, -2:] = False
    batch["valid"][1, :T] = [False, True]
    torch.manual_seed(7)
    loss, metrics = policy.loss(batch)
    torch.manual_seed(7)
    step = torch.randint(100, (5,))
    noise = torch.randn(5, H, A)
    chunk = (torch.from_numpy(batch["action"][:, T - 1 :]) - LOW) / (HIGH - LOW) * 2 - 1
    noisy = DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=100).add_noise(chunk, noise, step)
    seen = torch.from_numpy(batch["observation"]) / 3, torch.from_numpy(batch["goal"]) / 2 if goal else None
    error = policy.predict(noisy, step, *seen) - noise
    total = sum(float((error[b, h] ** 2).sum()) for b in range(5) for h in range(H) if batch["valid"][b, T - 1 + h])
    assert float(loss) == pytest.approx(total / (5 * H * A), rel=1e-4)
    guess = (noisy - (1 - policy.signal[step, None, None]).sqrt() * (error + noise)) / policy.signal[
        step, None, None
    ].sqrt()
    left = ((guess.clamp(-1, 1) - chunk) * 100).abs().mean(2)[torch.from_numpy(batch["valid"][:, T - 1 :])].mean()
    assert float(metrics["action_error"]) == pytest.approx(float(left), rel=1e-3)


def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randint", lambda high, size, device: torch.full(size, 37, device=device))
    monkeypatch.setattr(torch, "randn_like", lambda value: torch.full_like(value, 0.3))


@BOTH
@torch.no_grad()
def test_the_loss_of_a_batch_is_the_mean_of_its_halves(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch)
    policy, batch = model(kind), windows()
    batch["valid"][:3, 3:] = False
    torch.testing.assert_close(policy.loss(batch)[0], small.mean_of_halves(policy, batch))


@BOTH
def test_padding_and_earlier_positions_contribute_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch)
    policy, batch = model(kind), windows()
    batch["valid"][:, -2:] = False
    predicted = torch.zeros(16, H, A, requires_grad=True)
    policy.predict = lambda *inputs: predicted
    before = policy.loss(batch)[0]
    before.backward()
    assert (predicted.grad[:, -2:] == 0).all()
    assert (predicted.grad[:, :-2] != 0).all()
    batch["action"][:, : T - 1] = 9e9
    batch["action"][:, -2:] = 0
    assert torch.equal(policy.loss(batch)[0], before)
    batch["valid"][:] = False
    loss, metrics = policy.loss(batch)
    assert float(loss.detach()) == 0
    assert float(metrics["action_error"]) == 0


# --- the sampler -----------------------------------------------------------------------------------------------------


@torch.inference_mode()
def loop(policy: DiffusionPolicy, library: Any, step: Callable[..., torch.Tensor], count: int) -> torch.Tensor:
    """Denoise with the library's scheduler, calling the network anew at each step, from the noise the policy draws."""
    noise = normals(draws(policy, count)).view(count, -1, H, A)
    library.set_timesteps(len(policy.scheduler.timesteps))
    chunk = noise[:, 0]
    for index, time in enumerate(library.timesteps):
        predicted = policy.predict(chunk, time.expand(count), torch.zeros(count, T, D), None)
        chunk = step(predicted, time, chunk, noise[:, min(index + 1, noise.shape[1] - 1)])
    return policy.spaces.action.unnormalize(chunk)


@BOTH
@pytest.mark.parametrize("steps", [2, 10, 50])
def test_without_fresh_noise_it_is_the_librarys_ddim(kind: str, steps: int) -> None:
    policy = model(kind, inference_steps=steps, eta=0.0, execute_steps=H)
    library = DDIMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    expected = loop(
        policy, library, lambda e, t, x, _: library.step(e, t, x, use_clipped_model_output=True).prev_sample, 5
    )
    np.testing.assert_allclose(
        policy.plan(torch.zeros(5, T, D), None, draws(policy, 5))[0], expected, rtol=0, atol=0.02
    )


@BOTH
@pytest.mark.parametrize("steps", [10, 100])
def test_with_all_noise_it_is_the_librarys_ddpm(kind: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strided where it takes fewer steps than the schedule has; the library draws its noise itself, hence the patch."""
    policy = model(kind, inference_steps=steps, execute_steps=H)
    library = DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")

    def step(predicted: torch.Tensor, time: torch.Tensor, chunk: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *shape, **settings: fresh)
        return library.step(predicted, time, chunk).prev_sample

    expected = loop(policy, library, step, 5)
    np.testing.assert_allclose(
        policy.plan(torch.zeros(5, T, D), None, draws(policy, 5))[0], expected, rtol=0, atol=0.02
    )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [2, 10, 100])
def test_true_noise_taken_away_leaves_the_data(eta: float, steps: int) -> None:
    chunk = torch.rand(1, H, A, generator=torch.Generator().manual_seed(3)) * 2 - 1
    policy = exactly(model("cnn", inference_steps=steps, eta=eta, execute_steps=H), chunk, [1.0])
    np.testing.assert_allclose(sample(policy, 7), chunk.expand(7, -1, -1).numpy(), atol=1e-3)


@pytest.mark.parametrize(("steps", "eta", "within"), [(10, 1.0, 0.08), (50, 0.0, 0.03), (100, 1.0, 0.02)])
def test_modes_are_sampled_in_their_shares(steps: int, eta: float, within: float) -> None:
    """The fewer steps, the more the likeliest mode gains."""
    modes = torch.tensor([-0.8, 0.0, 0.6])[:, None, None].expand(3, H, A)
    policy = exactly(model("cnn", inference_steps=steps, eta=eta, execute_steps=H), modes, [0.2, 0.5, 0.3])
    chunks = sample(policy, 4000)
    apart = np.abs(chunks[:, None] - modes.numpy()).max((2, 3))
    assert np.mean(apart.min(1) < 0.02) > 0.99
    shares = np.bincount(apart.argmin(1), minlength=3) / 4000
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=within)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers.schedulers.scheduling_ddim", None)
    with pytest.raises(TrainingError, match=r"needs the package diffusers, .*pip install 'vqbet\[comparison\]'"):
        model("cnn")
