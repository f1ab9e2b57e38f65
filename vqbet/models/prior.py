"""The prior: a GPT over observations that predicts codes and an offset of the chunk that follows each observation.

Sections 3.3 and 3.4 of VQ-BeT (arXiv 2403.03181). A chunk is decode(codes) + offset(codes), in normalised units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vqbet.contract import TrainingError
from vqbet.models.encoders import GOAL, Encoder
from vqbet.models.nets import MLP, Decoder, DecoderShape, GoalAs, restore, tensors
from vqbet.models.normalizer import Normalizer, packed, unpack
from vqbet.models.tokenizer import Tokenizer

TABLE = 4096  # up to this many combinations of codes, all are decoded in advance
APART = ("tokenizer", "normalizer", "goal", "encoder")  # submodules that are not in the component "prior"
Choose = Callable[[int | slice, Tensor], Tensor]  # (the layers of a row of codes, logits (N, K)) -> codes (N,)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorShape(DecoderShape):
    """Dimensions of the decoder, whose goals are future observations, and of the two heads.

    head_hidden: width of each head's two hidden layers; 0: one linear layer, as in BeT. sequential: predict each
    layer's code from the codes of the previous layers, instead of independently. offset: add an offset head. goal_as:
    input of the goals, see `Decoder`.
    """

    head_hidden: int
    sequential: bool
    offset: bool = True
    goal_as: GoalAs = "tokens"


@dataclass(frozen=True, slots=True)
class Objective:
    """Weights and options of the training loss; the defaults are the paper's PushT values for actions in [-1, 1].

    offset_target: the codes whose offset is trained, "sampled" from the prediction (the authors' code) or the "true"
    codes of the chunk (BeT). observation_noise, goal_noise: standard deviation of the Gaussian noise on observations
    and goals in training, in normalised units. supervise: the positions of a window whose chunks are predicted, "all"
    as in the paper, or only the "last", the one used for acting; the heads then cost 1 / T.
    """

    focal_gamma: float = 2.0
    primary_weight: float = 5.0
    secondary_weight: float = 0.5
    offset_weight: float = 100.0
    offset_target: Literal["sampled", "true"] = "sampled"
    observation_noise: float = 0.0
    goal_noise: float = 0.0
    supervise: Literal["all", "last"] = "all"


class CodeHead(nn.Module):
    """Features -> logits of each layer's code: one MLP for all layers, or one per layer in sequential mode."""

    def __init__(self, shape: PriorShape, *, layers: int, codes: int) -> None:
        super().__init__()
        self.layers, self.codes, self.sequential = layers, codes, shape.sequential
        sizes = [(layer * codes, codes) for layer in range(layers)] if self.sequential else [(0, layers * codes)]
        self.heads = nn.ModuleList(_head(shape, outputs, given=given) for given, outputs in sizes)

    def forward(self, features: Float[Tensor, "M W"], codes: Int[Tensor, "M Q"]) -> Float[Tensor, "M Q K"]:
        """Return the logits of every layer, in sequential mode given the true `codes` of the previous layers."""
        if not self.sequential:
            return rearrange(self.heads[0](features), "m (q k) -> m q k", k=self.codes)
        return torch.stack([self._logits(features, codes, layer) for layer in range(self.layers)], dim=1)

    def draw(self, features: Float[Tensor, "M W"], choose: Choose) -> Int[Tensor, "M Q"]:
        """Return the codes that `choose` draws from the logits: all layers at once, or in turn in sequential mode."""
        if not self.sequential:
            logits = self.heads[0](features).view(-1, self.codes)
            return choose(slice(self.layers), logits).view(-1, self.layers)
        codes = torch.empty(features.shape[0], 0, dtype=torch.int64, device=features.device)
        for layer in range(self.layers):
            chosen = choose(layer, self._logits(features, codes, layer))
            codes = torch.cat([codes, chosen[:, None]], dim=1)
        return codes

    def _logits(self, features: Tensor, codes: Tensor, layer: int) -> Tensor:
        given = F.one_hot(codes[:, :layer], self.codes).flatten(1).to(features.dtype)
        return self.heads[layer](torch.cat([features, given], dim=1))


class OffsetHead(nn.Module):
    """Features and codes -> an offset of the chunk: one vector per layer's code, summed over layers.

    In the last layer a row costs Q K H A hidden multiply-adds, of which the chosen codes need 1 / K. Up to `FEW` rows
    fetch only their codes' weights, Q H A hidden numbers each; for more rows, one product with all weights is faster.
    An exported graph, which is for robots, has no branch and fetches always.
    """

    FEW = 4
    first: Int[Tensor, " Q"]

    def __init__(self, shape: PriorShape, *, layers: int, codes: int, size: int) -> None:
        super().__init__()
        self.layers, self.codes, self.size = layers, codes, size
        self.head = _head(shape, layers * codes * size)
        self.register_buffer("first", codes * torch.arange(layers), persistent=False)

    def forward(self, features: Float[Tensor, "M W"], codes: Int[Tensor, "M Q"]) -> Float[Tensor, "M HA"]:
        if not torch.is_grad_enabled() and (torch.compiler.is_exporting() or len(features) <= self.FEW):
            return self._chosen(features, codes)
        table = self.head(features).view(-1, self.layers, self.codes, self.size)
        rows = codes[:, :, None, None].expand(-1, -1, 1, self.size)
        return table.gather(2, rows).sum(dim=(1, 2))

    def _chosen(self, features: Float[Tensor, "M W"], codes: Int[Tensor, "M Q"]) -> Float[Tensor, "M HA"]:
        places, rows = (codes + self.first).flatten(), (codes.shape[0], self.layers * self.size, -1)
        weight, bias = (
            part.view(self.layers * self.codes, -1).index_select(0, places).view(rows)  # (M, Q HA, hidden or 1)
            for part in self.head.products[-1]
        )
        each = torch.baddbmm(bias, weight, self.head.hidden(features)[:, :, None])
        return each.view(-1, self.layers, self.size).sum(1)


@final
class Prior(nn.Module):
    """Observations in physical units -> features -> codes and offsets. Freezes the tokenizer.

    `decoded` holds the chunk of every combination of codes; None where there are more than TABLE. `goal` normalises the
    C goal channels; None for an unconditional prior. `encoder` turns pictures into F features, which stand behind the D
    channels of an observation; None for a prior without cameras, where F is 0. pictured: whether goals include
    pictures, whose features stand behind the C channels, which may then be none. Raises TrainingError where the
    tokenizer was never trained, or goal and goal_steps do not agree.
    """

    decoded: Float[Tensor, "K ... H A"] | None
    places: Int[Tensor, " Q"]

    def __init__(
        self,
        tokenizer: Tokenizer,
        normalizer: Normalizer,
        shape: PriorShape,
        objective: Objective | None = None,
        *,
        goal: Normalizer | None = None,
        encoder: Encoder | None = None,
        pictured: bool = False,
    ) -> None:
        super().__init__()
        if (goal is None) != (shape.goal_steps == 0):
            raise TrainingError(f"prior: goal_steps {shape.goal_steps} and goal channels must come together")
        if int(tokenizer.trained_steps) == 0:
            raise TrainingError("prior: expected a trained tokenizer, got one with 0 trained steps; train it first")
        self.shape, self.objective = shape, objective or Objective()
        self.tokenizer = tokenizer.requires_grad_(False).eval()
        self.register_buffer("decoded", _table(tokenizer), persistent=False)
        powers = tokenizer.shape.codes ** torch.arange(tokenizer.shape.layers).flip(0)
        self.register_buffer("places", powers, persistent=False)  # of the table's layers, counted in chunks
        self.normalizer, self.goal, self.encoder = normalizer, goal, encoder
        self.pictured = pictured
        goal_inputs = (goal.channels if goal is not None else 0) + (encoder.features if encoder and pictured else 0)
        inputs = normalizer.channels + (encoder.features if encoder is not None else 0)
        self.decoder = Decoder(inputs, shape, goal_inputs=goal_inputs, goal_as=shape.goal_as)
        layers, codes = tokenizer.shape.layers, tokenizer.shape.codes
        size = tokenizer.shape.chunk * tokenizer.normalizer.channels
        self.code_head = CodeHead(shape, layers=layers, codes=codes)
        self.offset_head = OffsetHead(shape, layers=layers, codes=codes, size=size) if shape.offset else None

    def train(self, mode: bool = True) -> Prior:
        super().train(mode)
        self.tokenizer.eval()
        return self

    def features(
        self, observation: Float[Tensor, "B T D+F"], goal: Float[Tensor, "B G C+F"] | None = None
    ) -> Float[Tensor, "B T W"]:
        return self.decoder(self._normalized(observation), self._wanted(goal))

    def last(
        self, observation: Float[Tensor, "B T D+F"], goal: Float[Tensor, "B G C+F"] | None = None
    ) -> Float[Tensor, "B W"]:
        """Return the features of the newest observation."""
        return self.decoder.last(self._normalized(observation), self._wanted(goal))

    def draw(self, features: Float[Tensor, "M W"], choose: Choose) -> Int[Tensor, "M Q"]:
        return self.code_head.draw(features, choose)

    def decode(self, codes: Int[Tensor, "M Q"]) -> Float[Tensor, "M H A"]:
        """Return the actions of the given codes without their offset, in normalised units."""
        if self.decoded is None:
            return self.tokenizer.decode(codes)
        return self.decoded.flatten(0, -3).index_select(0, (codes * self.places).sum(1))

    def chunk(self, features: Float[Tensor, "M W"], codes: Int[Tensor, "M Q"]) -> Float[Tensor, "M H A"]:
        """Return the actions of the given codes, in normalised units."""
        decoded, offset = self.parts(features, codes)
        return decoded if offset is None else decoded + offset

    def parts(
        self, features: Float[Tensor, "M W"], codes: Int[Tensor, "M Q"]
    ) -> tuple[Float[Tensor, "M H A"], Float[Tensor, "M H A"] | None]:
        """Return the two summands of `chunk`: decoded codes, and their offset; None where there is no offset head."""
        decoded = self.decode(codes)
        return decoded, None if self.offset_head is None else self.offset_head(features, codes).view_as(decoded)

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return focal loss of the codes plus L1 loss of the chunk, at every position with a complete chunk; metrics.

        batch, as gathered by `Windows`: "observation" (B, T, D) and "action" (B, T+H-1, A) in physical units, "valid"
        (B, T+H-1), "goal" (B, G, C) if conditional, and the pictures of `Encoder.of` if it has cameras. Sums are
        divided by the number of supervised positions, so the loss of a batch is the mean of the losses of its halves.
        Draws from torch's global generator: dropout, sampled codes, noise, crops. No shape depends on the values in the
        batch.
        """
        length, goal = self.tokenizer.shape.chunk, self.objective
        observation = torch.as_tensor(batch["observation"])
        weight = torch.as_tensor(batch["valid"]).unfold(1, length, 1).all(-1)  # (B, T)
        action = self.tokenizer.normalizer.normalize(torch.as_tensor(batch["action"]))
        target = rearrange(action.unfold(1, length, 1), "b t a h -> b t h a")
        features = self._trained_on(observation, batch)  # (B, T, W), or (B, 1, W) of the last position
        asked = features.shape[1]
        features, target = features.flatten(0, 1), target[:, -asked:].flatten(0, 1)  # (M, W), (M, H, A)
        weight = weight[:, -asked:].flatten().to(features.dtype)
        count = weight.sum().clamp_min(1)

        with torch.autocast(target.device.type, enabled=False):  # a rounded input can have another code
            codes = self.tokenizer.encode(target)
        logits = self.code_head(features, codes).float()
        focal = weight @ _focal(logits, codes, goal.focal_gamma) / len(weight)  # (Q,)
        error = self.chunk(features, self._offset_codes(features, logits, codes)) - target
        size = error.abs().mean(dim=(1, 2))
        offset = weight @ size / len(weight)
        loss = goal.primary_weight * focal[0] + goal.secondary_weight * focal[1:].sum()
        if self.offset_head is not None:
            loss = loss + goal.offset_weight * offset

        with torch.no_grad():
            right = weight @ (logits.argmax(2) == codes).to(weight.dtype) / count
            physical = weight @ (error * self.tokenizer.normalizer.half_range).abs().mean(dim=(1, 2)) / count
            metrics = {"primary_loss": focal[0], "secondary_loss": focal[1:].sum(), "offset_loss": offset}
            metrics |= {f"accuracy_{layer}": share for layer, share in enumerate(right)} | {"action_error": physical}
        return loss, {name: value.detach() for name, value in metrics.items()}

    def arguments(self) -> dict[str, Any]:
        """Return the `arguments` of `from_components`; JSON-clean."""
        channels = {"channels": self.normalizer.channels}
        if self.goal is not None:
            channels["goal_channels"] = self.goal.channels
        seeing = {} if self.encoder is None else {"encoder": self.encoder.arguments()}
        return {**asdict(self.shape), **channels, **seeing, **({"pictured": True} if self.pictured else {})}

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the tensors of "prior", of "normalizer" (observation.* and goal.*), and of "encoder" if any."""
        statistics = packed(observation=self.normalizer, goal=self.goal)
        seeing = {} if self.encoder is None else {"encoder": self.encoder.components()}
        return {"prior": tensors(self, without=APART), "normalizer": statistics, **seeing}

    @classmethod
    def from_components(
        cls,
        arguments: Mapping[str, Any],
        components: Mapping[str, Mapping[str, np.ndarray]],
        *,
        tokenizer: Tokenizer,
    ) -> Prior:
        """Return the exact prior of `arguments` and `components`. Raises BundleError where tensors do not fit."""
        shape = {
            name: value
            for name, value in arguments.items()
            if not name.endswith("channels") and name not in ("encoder", "pictured")
        }
        goal = Normalizer(arguments["goal_channels"]) if "goal_channels" in arguments else None
        seeing = "encoder" in arguments
        encoder = Encoder.from_components(arguments["encoder"], components["encoder"]) if seeing else None
        prior = cls(
            tokenizer,
            Normalizer(arguments["channels"]),
            PriorShape(**shape),
            goal=goal,
            encoder=encoder,
            pictured=arguments.get("pictured", False),
        )
        restore(prior, components["prior"], component="prior", without=APART)
        unpack(components["normalizer"], observation=prior.normalizer, goal=goal)
        return prior.eval()

    def _wanted(self, goal: Float[Tensor, "B G C+F"] | None) -> Float[Tensor, "B G C+F"] | None:
        if self.goal is None or goal is None:
            return None
        if not self.pictured:
            return self.goal.normalize(goal)
        channels = self.goal.channels
        return torch.cat([self.goal.normalize(goal[..., :channels]), goal[..., channels:]], -1)

    def _normalized(self, observation: Float[Tensor, "B T D+F"]) -> Float[Tensor, "B T D+F"]:
        if self.encoder is None:
            return self.normalizer.normalize(observation)
        channels = self.normalizer.channels
        return torch.cat([self.normalizer.normalize(observation[..., :channels]), observation[..., channels:]], -1)

    def _trained_on(self, observation: Float[Tensor, "B T D"], batch: Mapping[str, Any]) -> Float[Tensor, "B _ W"]:
        """Return the features of the supervised positions; in training mode with noise on observations and goals."""
        goal = None if batch.get("goal") is None else torch.as_tensor(batch["goal"])
        if self.training and self.objective.observation_noise:
            noise = self.objective.observation_noise * self.normalizer.half_range
            observation = observation + noise * torch.randn_like(observation)
        if self.training and self.objective.goal_noise and self.goal is not None and goal is not None:
            goal = goal + self.objective.goal_noise * self.goal.half_range * torch.randn_like(goal)
        if self.encoder is not None:
            observation = torch.cat([observation, self.encoder.of(batch, observation.device)], -1)
        if self.encoder is not None and self.pictured and goal is not None:
            goal = torch.cat([goal, self.encoder.of(batch, goal.device, GOAL)], -1)
        if self.objective.supervise == "last":
            return self.last(observation, goal)[:, None]
        return self.features(observation, goal)

    @torch.no_grad()
    def _offset_codes(self, features: Tensor, logits: Tensor, codes: Int[Tensor, "M Q"]) -> Int[Tensor, "M Q"]:
        if self.objective.offset_target == "true":
            return codes

        def choose(_layers: int | slice, scores: Tensor) -> Tensor:
            return pick(scores, torch.rand(len(scores), device=scores.device))

        if self.shape.sequential:
            return self.draw(features, choose)
        return torch.stack([choose(layer, logits[:, layer]) for layer in range(logits.shape[1])], dim=1)


def pick(logits: Float[Tensor, "M K"], uniform: Float[Tensor, " M"]) -> Int[Tensor, " M"]:
    """Return a draw from softmax(logits) per row, by inverting the cumulative distribution at `uniform` in [0, 1).

    Probabilities are integers in units of 2^-48: sums of integers are exact, in whatever order a GPU adds.
    """
    return invert(logits.double().softmax(1), uniform)


def invert(probability: Float[Tensor, "M K"], uniform: Float[Tensor, " M"]) -> Int[Tensor, " M"]:
    """Return `pick` of probabilities in float64."""
    cumulative = (probability * 2.0**48).long().cumsum(1)
    threshold = (uniform[:, None].double() * cumulative[:, -1:]).long()
    return (cumulative <= threshold).sum(1)  # searchsorted is the same integer, and no operator of ONNX


def _focal(logits: Float[Tensor, "M Q K"], codes: Int[Tensor, "M Q"], gamma: float) -> Float[Tensor, "M Q"]:
    """Focal loss (1 - p)^gamma * -log p of the true code (Lin et al. 2017, equation 4)."""
    log_p = logits.log_softmax(2).gather(2, codes[:, :, None])[:, :, 0]
    return -((1 - log_p.exp()) ** gamma) * log_p


def _table(tokenizer: Tokenizer) -> Float[Tensor, "K ... H A"] | None:
    """Return the chunk of codes (k, ..., l) at [k, ..., l]; None where there are more than TABLE combinations."""
    codes, layers = tokenizer.shape.codes, tokenizer.shape.layers
    if codes**layers > TABLE:
        return None
    each = torch.arange(codes, device=tokenizer.trained_steps.device)
    chunks = tokenizer.decode(torch.cartesian_prod(*[each] * layers).view(-1, layers))
    return chunks.unflatten(0, [codes] * layers)


def _head(shape: PriorShape, outputs: int, *, given: int = 0) -> MLP:
    """Return a head over features concatenated with `given` other numbers."""
    head = MLP(shape.width + given, shape.head_hidden, outputs)
    with torch.no_grad():
        for parameter in head[-1].parameters():
            parameter.mul_(0.02)
    return head
