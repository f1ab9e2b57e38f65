"""Small diffusion policies and what to feed them, for the tests of both networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vqbet.contract import Channel, Spec
from vqbet.normalizer import Normalizer
from vqbet.policies.acting import uniforms
from vqbet.policies.diffusion import DiffusionPolicy, Shape
from vqbet.policies.diffusion_cnn import CNNShape
from vqbet.policies.diffusion_transformer import TransformerShape
from vqbet.policies.spaces import Spaces

T, H, D, A, G, C = 2, 4, 5, 2, 2, 3
LOW, HIGH = -40.0, 160.0  # of the actions: 100 units are one normalised unit
KINDS = ["cnn", "transformer"]
BOTH = pytest.mark.parametrize("kind", KINDS)
SPEC = Spec(
    task="fake",
    observation=tuple(Channel(f"o{index}", "m", -3.0, 3.0) for index in range(D)),
    action=tuple(Channel(f"a{index}", "mm", -200.0, 300.0) for index in range(A)),
    control_hz=10.0,
    action_kind="absolute",
    frame="table",
)


def spaces(goal: bool = False) -> Spaces:
    def between(low: float, high: float, channels: int) -> Normalizer:
        return Normalizer.fit(np.array([[low] * channels, [high] * channels], np.float32))

    return Spaces(between(-3, 3, D), between(LOW, HIGH, A), between(-3, 3, C) if goal else None)


def shape(kind: str, *, horizon: int = H, execute_steps: int = 3, goal_steps: int = 0, window: int = T) -> Shape:
    common = {"window": window, "horizon": horizon, "execute_steps": execute_steps, "goal_steps": goal_steps}
    if kind == "cnn":
        return CNNShape(**common, width=8, levels=2, kernel=3, groups=4, step_width=16)
    return TransformerShape(**common, depth=2, heads=2, width=32, dropout=0.0)


def model(
    kind: str, *, goal: bool = False, inference_steps: int = 10, eta: float = 1.0, **changes: Any
) -> DiffusionPolicy:
    torch.manual_seed(0)
    changes = {"goal_steps": G if goal else 0} | changes
    return DiffusionPolicy(spaces(goal), shape(kind, **changes), inference_steps=inference_steps, eta=eta).eval()


def windows(count: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "observation": rng.normal(size=(count, T, D)).astype(np.float32),
        "action": rng.uniform(LOW, HIGH, (count, T + H - 1, A)).astype(np.float32),
        "valid": np.ones((count, T + H - 1), bool),
    }


def draws(policy: DiffusionPolicy, count: int) -> torch.Tensor:
    return torch.from_numpy(uniforms(np.arange(count), np.zeros(count, np.int64), policy.draws))


@torch.inference_mode()
def sample(policy: DiffusionPolicy, count: int, goal: torch.Tensor | None = None) -> np.ndarray:
    """Chunks (count, execute_steps, A) at one observation, in normalised units."""
    observation = torch.zeros(count, policy.window, D)
    chunk, tags = policy.plan(observation, goal, draws(policy, count))
    assert tags.shape == (count, 0)
    assert tags.dtype == torch.int64
    return policy.spaces.action.normalize(chunk).numpy()
