"""Behavior Transformer: a GPT over observations that predicts at each position a bin of actions and an offset.

BeT (arXiv 2206.11251) and, with goal tokens before the observations, C-BeT (arXiv 2210.10047). The bins are k-means
centres of the demonstrated actions; an action is its bin's centre plus an offset, in normalised units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqbet.contract import LEAST_TEMPERATURE, Pictures, TrainingError
from vqbet.models.encoders import seen
from vqbet.models.nets import Decoder, DecoderShape
from vqbet.models.prior import pick
from vqbet.models.quantizers import BINS_ITERATIONS, kmeans, nearest
from vqbet.models.spaces import Spaces, parts, rebuilt
from vqbet.policies.in_torch import decided, in_torch


@dataclass(frozen=True, slots=True, kw_only=True)
class BeTShape(DecoderShape):
    """Shape of the decoder, with future observations as goals; bins K; chunk H actions (1 in the paper)."""

    bins: int
    chunk: int = 1


@final
class BeT(nn.Module):
    """An `acting.Planner` that draws a bin and adds the predicted offset of that bin. The tag of a chunk is its bin.

    Call `fit` before training. The defaults of the loss are the authors' for BlockPush: their offset weight 1e5 is for
    actions in metres, 0.03 of which are 1 here, so about 100. Their Kitchen and Diffusion Policy's BeT have 1000, with
    which bins are learnt late: short trainings need less. temperature: divisor of the logits. acting_window: number of
    observations used for acting, None: T (the authors train with 10 in Kitchen, 5 in BlockPush, and act with 3). Raises
    TrainingError if goal and goal_steps are inconsistent, or temperature or acting_window is out of bounds.
    """

    centres: Float[Tensor, "K HA"]
    fitted: Int[Tensor, ""]

    def __init__(
        self,
        spaces: Spaces,
        shape: BeTShape,
        *,
        focal_gamma: float = 2.0,
        offset_weight: float = 100.0,
        temperature: float = 1.0,
        acting_window: int | None = None,
    ) -> None:
        super().__init__()
        _check(spaces, shape, temperature, acting_window)
        self.spaces, self.shape = spaces, shape
        self.focal_gamma, self.offset_weight, self.temperature = focal_gamma, offset_weight, temperature
        self.window = shape.window if acting_window is None else acting_window
        self.chunk, self.goal_steps = shape.chunk, shape.goal_steps
        self.channels, self.draws, self.tags = spaces.channels, 1, 1
        self.cameras, self.features, self.goal_features = spaces.cameras, spaces.features, spaces.goal_features
        observed, acted, wanted = spaces.inputs
        self.decoder = Decoder(observed, shape, goal_inputs=wanted)
        size = shape.chunk * acted
        self.head = nn.Linear(shape.width, shape.bins * (1 + size))
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("centres", torch.zeros(shape.bins, size))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.int64))  # number of chunks `fit` used; 0: not fitted
        self._known_fitted = False

    def see(self, pictures: Pictures) -> Float[np.ndarray, "B F"]:
        """Return the features of the pictures of one step."""
        return seen(self.spaces.encoder, pictures)

    @torch.no_grad()
    def fit(self, chunks: Float[np.ndarray, "N H A"], generator: torch.Generator) -> None:
        """Fit the bins by k-means on chunks in physical units, once, before the first training step.

        Raises TrainingError if the chunks have another shape, are not finite, or fewer of them are distinct than bins.
        """
        finite, steps, channels = np.isfinite(chunks).all(), self.chunk, self.channels[1]
        if chunks.shape[1:] != (steps, channels) or not finite:
            raise TrainingError(
                f"bet: chunks: expected finite numbers of shape (N, {steps}, {channels}), "
                f"got shape {chunks.shape}{'' if finite else ', not all of them finite; validate the demonstrations'}"
            )
        points = self.spaces.action.normalize(torch.as_tensor(chunks).to(self.centres)).flatten(1).cpu()
        distinct = len(points.unique(dim=0))
        if distinct < self.shape.bins:
            raise TrainingError(
                f"bet: {self.shape.bins} bins were asked of {len(chunks)} chunks, of which {distinct} are distinct; "
                f"ask for at most {distinct} bins or give more demonstrations"
            )
        self.centres.copy_(kmeans(points, self.shape.bins, generator, BINS_ITERATIONS)[0])
        self.fitted.fill_(len(chunks))

    def bins(self, chunk: Float[Tensor, "M H A"]) -> Int[Tensor, " M"]:
        """Return the bins with the nearest centres, for chunks in normalised units."""
        return nearest(self.centres[None], chunk.flatten(1))[0][:, 0]

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and metrics: focal loss of the true bin plus squared error of its offset, on complete chunks.

        The focal loss is (1 - p)^gamma * -log p; the squared error (BeT's MT-Loss) trains only the true bin's offset
        and is a mean over the H A numbers of a chunk. batch: "observation" (B, T, D), "action" (B, T+H-1, A), "valid"
        (B, T+H-1) and, with a goal, "goal" (B, G, C), in physical units. Sums are divided by B T, so the loss of a
        batch is the mean of the losses of its halves. Draws dropout from torch's global generator. Raises TrainingError
        before `fit`, or if goal_steps and the batch's goal differ.
        """
        self._ready()
        observation, goal, target, weight = self.spaces.supervised(batch, self.chunk, self.goal_steps)
        logits, offsets = self._predict(self.decoder(observation, goal).flatten(0, 1))
        target, weight = target.flatten(0, 1), weight.flatten()  # (M, H, A), (M,)
        true = self.bins(target)
        error = self._chunk(offsets, true) - target
        log_p = logits.log_softmax(1).gather(1, true[:, None])[:, 0]
        focal = weight @ (-((1 - log_p.exp()) ** self.focal_gamma) * log_p) / len(weight)
        offset = weight @ error.square().mean(dim=(1, 2)) / len(weight)
        with torch.no_grad():
            count = weight.sum().clamp_min(1)
            right = weight @ (logits.argmax(1) == true).to(weight.dtype) / count
            physical = (error * self.spaces.action.half_range).abs().mean(dim=(1, 2))
            metrics = {"focal_loss": focal, "offset_loss": offset, "accuracy": right}
            metrics["action_error"] = weight @ physical / count
        return focal + self.offset_weight * offset, {name: value.detach() for name, value in metrics.items()}

    @in_torch
    def plan(
        self,
        observation: Float[Tensor, "B T D"],
        goal: Float[Tensor, "B G C"] | None,
        uniform: Float[Tensor, "B 1"],
    ) -> tuple[Float[Tensor, "B H A"], Int[Tensor, "B 1"]]:
        """Draw a bin per row; return its chunk in physical units, and the bin. Raises TrainingError before `fit`."""
        self._ready()
        logits, offsets = self._predict(self.decoder.last(*self.spaces.seen(observation, goal)))
        drawn = pick(decided(logits, len(observation)) / self.temperature, uniform[:, 0])
        return self.spaces.action.unnormalize(self._chunk(offsets, drawn)), drawn[:, None]

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `from_components` as JSON-compatible values."""
        acting = {"temperature": self.temperature, "acting_window": self.window}
        return {"spaces": self.spaces.arguments(), "shape": asdict(self.shape), "acting": acting}

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the tensors of "model", including the bins, and of "normalizer"."""
        return parts(self, self.spaces)

    @classmethod
    def from_components(cls, arguments: Mapping[str, Any], components: Mapping[str, Mapping[str, np.ndarray]]) -> BeT:
        """Rebuild from `arguments` and `components`, exactly. Raises BundleError naming an invalid part."""

        def make(spaces: Spaces) -> BeT:
            return cls(spaces, BeTShape(**arguments["shape"]), **arguments["acting"])

        return rebuilt("bet", make, arguments, components)

    def _predict(self, features: Float[Tensor, "M W"]) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M K HA"]]:
        """Return the logits of the bins, and an offset for each bin."""
        bins, size = self.centres.shape
        logits, offsets = self.head(features).split([bins, bins * size], dim=1)
        return logits, offsets.reshape(-1, bins, size)

    def _chunk(self, offsets: Float[Tensor, "M K HA"], bins: Int[Tensor, " M"]) -> Float[Tensor, "M H A"]:
        """Return the centres of the given bins plus their offsets, in normalised units."""
        rows = bins[:, None, None].expand(-1, 1, offsets.shape[2])
        chunk = self.centres.index_select(0, bins) + offsets.gather(1, rows)[:, 0]
        return chunk.view(-1, self.chunk, self.channels[1])

    def _ready(self) -> None:
        """Raise TrainingError before `fit`. Caches a nonzero `fitted`, since reading it synchronises with the GPU."""
        if not self._known_fitted and int(self.fitted) == 0:
            raise TrainingError("bet: expected fitted bins, got a model without any; call fit(chunks) first")
        self._known_fitted = True


def _check(spaces: Spaces, shape: BeTShape, temperature: float, acting_window: int | None) -> None:
    """Raise TrainingError for invalid or inconsistent arguments of the constructor."""
    spaces.expect_goal("bet", shape.goal_steps)
    if not LEAST_TEMPERATURE <= temperature < math.inf:
        raise TrainingError(
            f"bet: temperature: expected {LEAST_TEMPERATURE:g} or more, got {temperature:g}; the least takes the "
            "likeliest bin"
        )
    if acting_window is not None and not 1 <= acting_window <= shape.window:
        raise TrainingError(f"bet: acting_window: expected 1 to {shape.window}, the window, got {acting_window}")
