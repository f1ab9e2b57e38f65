"""Every baseline behind the encoder of VQ-BeT: it trains through it, acts by pictures, and survives a bundle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from tests.comparison import diffusion_model
from tests.support import seeing, small
from tests.support.seeing import CAMERAS, SPEC
from tests.support.small import SEEDS, A, D
from vqbet.comparison.policies import KINDS
from vqbet.comparison.policies.bc import BehaviorCloning, BehaviorCloningShape
from vqbet.comparison.policies.beso import Beso, BesoShape
from vqbet.comparison.policies.bet import BeT, BeTShape
from vqbet.comparison.policies.diffusion import DiffusionPolicy
from vqbet.models.encoders import Encoder, EncoderShape
from vqbet.models.spaces import Spaces
from vqbet.policies.actor import Actor

T, H = 2, 3
ROWS = np.arange(6)


def bet(spaces: Spaces) -> BeT:
    shape = BeTShape(window=T, depth=1, heads=2, width=16, dropout=0.0, bins=4, chunk=H)
    made = BeT(spaces, shape)
    made.fit(np.random.default_rng(0).normal(size=(50, H, A)).astype(np.float32), torch.Generator().manual_seed(0))
    return made


MADE: dict[str, Callable[[Spaces], nn.Module]] = {
    "bc": lambda spaces: BehaviorCloning(spaces, BehaviorCloningShape(T, H, depth=1, hidden=16, dropout=0.0)),
    "bet": bet,
    "beso": lambda spaces: Beso(spaces, BesoShape(window=T, depth=1, heads=2, width=16, dropout=0.0)),
    "diffusion_cnn": lambda spaces: DiffusionPolicy(spaces, diffusion_model.shape("cnn", horizon=4, window=T)),
    "diffusion_transformer": lambda spaces: DiffusionPolicy(
        spaces, diffusion_model.shape("transformer", horizon=4, window=T)
    ),
}


def made(kind: str) -> nn.Module:
    torch.manual_seed(0)
    encoder = Encoder(CAMERAS, EncoderShape(features=6, crop=0.9, shift=2, keypoints=8))
    return MADE[kind](Spaces(small.between(-3.0, 3.0, D), small.between(-0.8, 0.8, A), encoder=encoder))


@pytest.mark.parametrize("kind", MADE)
def test_the_loss_reaches_the_encoder(kind: str) -> None:
    policy = made(kind).train()
    chunk = getattr(policy, "horizon", policy.chunk)
    batch = small.windows(4, window=T, chunk=chunk, low=-0.8, high=0.8)
    batch |= {f"camera/{name}": each for name, each in seeing.pictures(4, T).items()}
    policy.loss(batch)[0].backward()
    gradients = [eye.trunk[0].weight.grad for eye in policy.spaces.encoder.eyes]
    # the last layer of the transformer is zero before the first step
    assert kind == "diffusion_transformer" or all(float(gradient.abs().sum()) > 0 for gradient in gradients)


@pytest.mark.parametrize("kind", MADE)
def test_it_acts_by_its_pictures_and_survives_a_bundle(kind: str) -> None:
    policy = made(kind)
    with torch.no_grad():  # what begins at zero would see nothing yet
        for value in policy.parameters():
            value += 0.02 * torch.randn_like(value)
    acted = Actor(SPEC, policy.eval(), execute="first")
    again = small.rebuilt(kind, acted, KINDS)
    assert set(acted.components()) == {"model", "normalizer", "encoder"}
    scene, shown = small.observations(1)[0], seeing.pictures(6)
    found = []
    for actor, pictures in ((acted, shown), (again, shown), (again, seeing.pictures(6, seed=1))):
        actor.reset(SEEDS)
        found.append(actor.act(scene, ROWS, pictures))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])
