"""BESO's preconditioning, noise levels and samplers, against closed forms and a Gaussian whose denoiser is known."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from tests.support.examples import more
from vqbet.comparison.policies.beso import ancestral, noise_levels, preconditioning, sample, training_sigma

SIGMA = 0.5  # of the data


# --- preconditioning and noise levels ---------------------------------------------------------------------------------


@more(100)
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


@more(100)
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
    noise = torch.randn(1, 50, 3, 2, dtype=torch.float64)
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
    noise, sigmas = torch.randn(3, 50, 3, 2, dtype=torch.float64), (1.0, 0.4, 0.1, 0.0)
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
