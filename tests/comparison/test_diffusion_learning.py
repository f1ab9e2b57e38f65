"""What both networks of Diffusion Policy learn: two behaviours without their mean, and the one the goal asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.comparison.diffusion_model import BOTH, T, sample, spaces
from tests.support.small import A, C, G, alike, learn
from vqbet.comparison.policies.diffusion import DiffusionPolicy
from vqbet.comparison.policies.diffusion_cnn import CNNShape
from vqbet.comparison.policies.diffusion_transformer import TransformerShape


def learner(kind: str, *, window: int, goal: bool = False, **settings: Any) -> DiffusionPolicy:
    """Small enough for a test: two actions, one level or layer."""
    torch.manual_seed(0)
    common = {"window": window, "horizon": 2, "execute_steps": 2, "width": 32, "goal_steps": G if goal else 0}
    size = CNNShape(**common, levels=1, kernel=3, step_width=32) if kind == "cnn" else None
    return DiffusionPolicy(spaces(goal), size or TransformerShape(**common, depth=1, heads=2, dropout=0.0), **settings)


@BOTH
def test_it_learns_two_modes_and_not_their_mean(kind: str) -> None:
    """One observation, two opposite chunks; the causal transformer's first action cannot see where the other goes."""
    mode = np.tile(np.array([[-0.7], [0.7]], np.float32), (32, 2))  # (64, H)
    policy = learner(kind, window=1, inference_steps=50)
    learn(policy, alike(np.repeat((mode * 100 + 60)[:, :, None], A, axis=2), 1), 200, lr=5e-3)
    chunks = sample(policy, 500)
    near = (np.abs(np.abs(chunks) - 0.7) < 0.3).all((1, 2)) & (np.ptp(np.sign(chunks), axis=(1, 2)) == 0)
    assert near.mean() > 0.85
    assert 0.4 < (chunks[:, 0, 0] > 0).mean() < 0.6


@BOTH
def test_it_learns_what_the_goal_decides(kind: str) -> None:
    goal = np.random.default_rng(0).uniform(-2, 2, (64, 1, C)).astype(np.float32).repeat(G, axis=1)
    action = np.full((64, T + 1, A), 60) + 70 * np.sign(goal[:, :1, :1])
    policy = learner(kind, window=T, goal=True)
    learn(policy, alike(action, T, goal), {"cnn": 150, "transformer": 250}[kind], lr=5e-3)
    told = np.zeros((200, G, C), np.float32)
    told[:100, :, 0], told[100:, :, 0] = 1.5, -1.5
    chunks = sample(policy, 200, told)
    assert (chunks[:100] > 0.35).mean() > 0.9
    assert (chunks[100:] < -0.35).mean() > 0.9
