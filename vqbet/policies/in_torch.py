"""Planners computed with torch: numpy in and out, checks of logits, and normal numbers from uniform ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vqbet.policies.actor import Planned, Undecided

P = TypeVar("P")
InTensors = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]  # without signals, or with


def in_torch(
    plan: Callable[[P, Tensor, Tensor | None, Tensor], InTensors],
) -> Callable[[P, np.ndarray, np.ndarray | None, np.ndarray], Planned]:
    """Return `plan`, a method over tensors, as a method of `policies.actor.Planner`: over arrays, without gradients."""

    @wraps(plan)
    def planned(planner: P, observation: np.ndarray, goal: np.ndarray | None, uniform: np.ndarray) -> Planned:
        with torch.inference_mode():
            wanted = None if goal is None else torch.as_tensor(goal)
            chunk, tags, *signals = plan(planner, torch.as_tensor(observation), wanted, torch.as_tensor(uniform))
            certain = signals[0].numpy() if signals else np.zeros((len(tags), 0), np.float32)
            return Planned(chunk.numpy(), tags.numpy(), certain)

    return planned


def decided(logits: Float[Tensor, "M K"], rows: int) -> Float[Tensor, "M K"]:
    """Return the logits, M / rows of them per row of a plan. Raises Undecided where one is not finite.

    Checking one sum takes microseconds. The sum can be infinite although all logits are finite; then each is checked.
    """
    if not math.isfinite(logits.sum().item()) and not (finite := logits.isfinite().all(1)).all():
        raise Undecided(int(finite.logical_not().nonzero()[0]) * rows // len(logits))
    return logits


def normals(uniform: Float[Tensor, "B count"]) -> Float[Tensor, "B count"]:
    """Return standard normal float32 numbers from uniform float64 ones in [0, 1), by inverting the distribution."""
    return torch.special.ndtri(uniform.clamp_min(2.0**-54)).float()
