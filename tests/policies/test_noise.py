"""Noise in training: on what is observed and on what is asked for, each by itself, and never when a policy acts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support import small
from tests.support.small import SEEDS, A, C, D
from tests.support.untrained import build
from vqbet.models.normalizer import Normalizer
from vqbet.models.prior import Prior
from vqbet.models.spaces import Spaces

NOISES = pytest.mark.parametrize("name", ["observation_noise", "goal_noise"])


def noisy(name: str) -> Prior:
    """A prior with dropout switched off, so that noise alone is random in its training."""
    prior = build(goal=small.G).planner.prior
    prior.objective = replace(prior.objective, offset_target="true", **{name: 0.1})
    for module in prior.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return prior.train()


def seen(prior: Prior, observation: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return prior._trained_on(observation, {"goal": goal}).detach()


@NOISES
def test_the_prior_is_disturbed_in_training_only(name: str) -> None:
    prior, observation, goal = noisy(name), torch.randn(4, 3, D), torch.randn(4, small.G, C)
    assert not torch.equal(seen(prior, observation, goal), seen(prior, observation, goal))
    prior.objective = replace(prior.objective, **{name: 0.0})
    assert torch.equal(seen(prior, observation, goal), seen(prior, observation, goal))
    prior.objective = replace(prior.objective, **{name: 0.1})
    prior.eval()
    assert torch.equal(seen(prior, observation, goal), seen(prior, observation, goal))


@NOISES
def test_baselines_are_disturbed_in_training_only_and_only_where_something_moves(name: str) -> None:
    whole, still = small.spaces(), Normalizer.fit(np.array([[1.0, -2.0, 5.0], [1.0, 2.0, 5.0]], np.float32))
    spaces = Spaces(whole.observation, whole.action, still, **{name: 0.1})
    batch = small.windows(4000, window=1, chunk=1)
    expected = Spaces(whole.observation, whole.action, still).supervised(batch, 1, small.G)
    found = spaces.train().supervised(batch, 1, small.G)
    moved = [(after - before).flatten(0, 1) for before, after in zip(expected[:2], found[:2], strict=True)]
    disturbed, left = moved if name == "observation_noise" else moved[::-1]
    assert not left.any()
    if name == "goal_noise":
        assert not disturbed[:, [0, 2]].any(), "what stands still in the demonstrations stays"
        disturbed = disturbed[:, 1]
    assert disturbed.std().item() == pytest.approx(0.1, rel=0.05)
    again = spaces.eval().supervised(batch, 1, small.G)
    assert all(torch.equal(one, two) for one, two in zip(expected, again, strict=True))


@NOISES
def test_what_acts_has_no_noise(name: str) -> None:
    policy = build(goal=small.G)
    quiet = small.play(policy, small.observations(3), SEEDS, small.GOALS)
    prior = policy.planner.prior
    prior.objective = replace(prior.objective, **{name: 0.5})
    assert np.array_equal(quiet, small.play(policy, small.observations(3), SEEDS, small.GOALS))
    assert quiet.shape == (3, 6, A)
