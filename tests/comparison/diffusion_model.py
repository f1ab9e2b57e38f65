"""Small diffusion policies and what to feed them, for the tests of both networks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import small
from tests.support.small import D, G
from vqbet.comparison.policies.diffusion import DiffusionPolicy, Shape
from vqbet.comparison.policies.diffusion_cnn import CNNShape
from vqbet.comparison.policies.diffusion_transformer import TransformerShape

T, H = 2, 4
LOW, HIGH = -40.0, 160.0  # of the actions: 100 units are one normalised unit
KINDS = ["cnn", "transformer"]
BOTH = pytest.mark.parametrize("kind", KINDS)
SPEC = small.limited(-200.0, 300.0)
spaces = partial(small.spaces, low=LOW, high=HIGH)
windows = partial(small.windows, window=T, chunk=H, low=LOW, high=HIGH)


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


def sample(policy: DiffusionPolicy, count: int, goal: np.ndarray | None = None) -> np.ndarray:
    """Chunks (count, execute_steps, A) at one observation, in normalised units."""
    observation = np.ones((count, policy.window, D), np.float32)
    chunk = small.plan(policy, {"observation": observation} | ({} if goal is None else {"goal": goal}))
    return policy.spaces.action.normalize(torch.from_numpy(chunk)).numpy()
