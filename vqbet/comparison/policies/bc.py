"""Behaviour cloning with an MLP, which maps a window of observations to the mean of the chunks that followed.

The baselines MLP-BC and, with a goal, GCBC of VQ-BeT (arXiv 2403.03181). The paper released neither code nor
hyperparameters for them: depth, width, initialisation and inputs are our choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, final, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqbet.contract import Pictures, TrainingError
from vqbet.models.encoders import seen
from vqbet.models.spaces import Spaces, parts, rebuilt
from vqbet.policies.in_torch import in_torch

Loss = Literal["l2", "l1"]


@dataclass(frozen=True, slots=True)
class BehaviorCloningShape:
    """window T observations, chunk H actions, depth hidden layers of `hidden` units each; goal_steps G future
    observations as additional input (0: unconditional)."""

    window: int
    chunk: int
    depth: int
    hidden: int
    dropout: float
    goal_steps: int = 0


@final
class BehaviorCloning(nn.Module):
    """An `acting.Planner` with a single prediction E[chunk | window, goal], which may lie between two modes.
    Deterministic: it draws no random numbers, and its chunks have no tags.

    loss: "l2", whose minimum is the conditional mean, or "l1", whose minimum is the median of each number. Raises
    TrainingError if goal and goal_steps are inconsistent, or for another loss.
    """

    def __init__(self, spaces: Spaces, shape: BehaviorCloningShape, *, loss: Loss = "l2") -> None:
        super().__init__()
        spaces.expect_goal("bc", shape.goal_steps)
        if loss not in get_args(Loss):
            raise TrainingError(f"bc: loss: expected one of {', '.join(get_args(Loss))}, got {loss!r}")
        self.spaces, self.shape, self.kind_of_loss = spaces, shape, loss
        self.window, self.chunk, self.goal_steps = shape.window, shape.chunk, shape.goal_steps
        self.channels, self.draws, self.tags = spaces.channels, 0, 0
        self.cameras, self.features, self.goal_features = spaces.cameras, spaces.features, spaces.goal_features
        observed, acted, wanted = spaces.inputs
        inputs = shape.window * observed + shape.goal_steps * wanted
        self.network = _stack(inputs, shape.depth * [shape.hidden], shape.chunk * acted, dropout=shape.dropout)

    def see(self, pictures: Pictures) -> Float[np.ndarray, "B F"]:
        """Return the features of the pictures of one step."""
        return seen(self.spaces.encoder, pictures)

    def forward(
        self, observation: Float[Tensor, "B T D"], goal: Float[Tensor, "B G C"] | None
    ) -> Float[Tensor, "B H A"]:
        """Return the chunk after the window. All values are in normalised units."""
        parts = [observation] if goal is None else [observation, goal]
        flat = torch.cat([part.flatten(1) for part in parts], dim=1)  # (B, T D + G C)
        return self.network(flat).view(-1, self.chunk, self.channels[1])

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean error of the complete chunks at the windows' last position, and metrics.

        batch: "observation" (B, T, D), "action" (B, T+H-1, A), "valid" (B, T+H-1) and, with a goal, "goal" (B, G, C),
        in physical units. The sum is divided by B, so the loss of a batch is the mean of the losses of its halves.
        Draws dropout from torch's global generator. Raises TrainingError if goal_steps and the batch's goal differ.
        """
        observation, goal, target, weight = self.spaces.supervised(batch, self.chunk, self.goal_steps)
        error = self(observation, goal) - target[:, -1]  # (B, H, A)
        weight = weight[:, -1]
        size = error.square() if self.kind_of_loss == "l2" else error.abs()
        loss = weight @ size.mean(dim=(1, 2)) / len(weight)
        with torch.no_grad():
            physical = (error * self.spaces.action.half_range).abs().mean(dim=(1, 2))
            action_error = weight @ physical / weight.sum().clamp_min(1)
        return loss, {"action_error": action_error}

    @in_torch
    def plan(
        self,
        observation: Float[Tensor, "B T D"],
        goal: Float[Tensor, "B G C"] | None,
        uniform: Float[Tensor, "B 0"],
    ) -> tuple[Float[Tensor, "B H A"], Int[Tensor, "B 0"]]:
        """Return the chunk in physical units, and empty tags."""
        chunk = self.spaces.action.unnormalize(self(*self.spaces.seen(observation, goal)))
        return chunk, torch.zeros(len(chunk), 0, dtype=torch.int64, device=chunk.device)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `from_components` as JSON-compatible values."""
        return {"spaces": self.spaces.arguments(), "shape": asdict(self.shape), "loss": self.kind_of_loss}

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the tensors of "model" and "normalizer"."""
        return parts(self, self.spaces)

    @classmethod
    def from_components(
        cls, arguments: Mapping[str, Any], components: Mapping[str, Mapping[str, np.ndarray]]
    ) -> BehaviorCloning:
        """Rebuild from `arguments` and `components`, exactly. Raises BundleError naming an invalid part."""

        def make(spaces: Spaces) -> BehaviorCloning:
            return cls(spaces, BehaviorCloningShape(**arguments["shape"]), loss=arguments["loss"])

        return rebuilt("bc", make, arguments, components)


def _stack(inputs: int, hidden: list[int], outputs: int, *, dropout: float) -> nn.Sequential:
    """Linear, ReLU and dropout for each hidden layer, then a linear layer; orthogonal weights, zero biases.

    Weights before a ReLU are scaled by sqrt 2, which preserves the variance of activations (He et al. 2015).
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [_linear(inputs, width, gain=math.sqrt(2)), nn.ReLU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, _linear(inputs, outputs, gain=1.0))


def _linear(inputs: int, outputs: int, *, gain: float) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear
