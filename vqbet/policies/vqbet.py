"""VQ-BeT as a planner: codes drawn from the prior at the newest observation, decoded and offset.

Section 3.4 of VQ-BeT (arXiv 2403.03181). Only the last position is computed, and only the offsets of the drawn codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vqbet.contract import LEAST_TEMPERATURE, BundleError
from vqbet.files import reading
from vqbet.models.encoders import GOAL, seen
from vqbet.models.prior import Prior, invert
from vqbet.models.tokenizer import Tokenizer
from vqbet.policies.in_torch import InTensors, decided, in_torch


@final
class VQBeT:
    """A `policies.actor.Planner`: temperature divides the logits before sampling; argmax takes the likeliest codes.

    watched: whether plans come with SIGNALS: the entropy of the codes (nats, at temperature 1, summed over the layers)
    and the mean absolute offset (normalised units). They change no action.

    Raises BundleError unless temperature is a finite number of LEAST_TEMPERATURE or more and argmax a bool.
    """

    def __init__(self, prior: Prior, *, temperature: float = 1.0, argmax: bool = False, watched: bool = False) -> None:
        self.prior = prior.eval()
        number = type(temperature) in (int, float)
        if not (number and LEAST_TEMPERATURE <= temperature < math.inf) or type(argmax) is not bool:
            raise BundleError(
                f"vqbet policy: sampling: expected a finite temperature of {LEAST_TEMPERATURE:g} or more, and argmax "
                f"true or false, got {reading.short(temperature)} and {reading.short(argmax)}"
            )
        self.temperature, self.argmax, self.watched = temperature, argmax, watched
        shape = prior.tokenizer.shape
        self.window, self.chunk, self.goal_steps = prior.shape.window, shape.chunk, prior.shape.goal_steps
        self.draws = self.tags = shape.layers
        goal = prior.goal.channels if prior.goal is not None else 0
        self.channels = (prior.normalizer.channels, prior.tokenizer.normalizer.channels, goal)
        self.cameras = prior.encoder.cameras if prior.encoder is not None else ()
        self.features = prior.encoder.features if prior.encoder is not None else 0
        self.goal_features = self.features if prior.pictured else 0

    def see(self, pictures: Mapping[str, UInt8[np.ndarray, "B height width 3"]]) -> Float[np.ndarray, "B F"]:
        """Return the features of the pictures of one step, by the names of their cameras."""
        return seen(self.prior.encoder, pictures)

    def observed(self, batch: Mapping[str, Any]) -> Float[np.ndarray, "B T D+F"]:
        """Return the observations of a batch of `Windows`, with the features of their pictures as in acting."""
        observation: np.ndarray = batch["observation"]
        return self._joined(observation, batch) if self.features else observation

    def asked(self, batch: Mapping[str, Any]) -> Float[np.ndarray, "B G C+F"] | None:
        """Return the goals of a batch of `GoalWindows` as `observed`; None for other windows."""
        goal: np.ndarray | None = batch.get("goal")
        return self._joined(goal, batch, GOAL) if goal is not None and self.goal_features else goal

    def _joined(
        self, values: Float[np.ndarray, "B T C"], batch: Mapping[str, Any], whose: str = ""
    ) -> Float[np.ndarray, "B T C+F"]:
        shown = {camera.name: batch[f"{whose}camera/{camera.name}"] for camera in self.cameras}
        features = seen(self.prior.encoder, {name: each.reshape(-1, *each.shape[2:]) for name, each in shown.items()})
        return np.concatenate([values, features.reshape(*values.shape[:2], -1)], axis=2)

    @in_torch
    def plan(
        self,
        observation: Float[Tensor, "B T D+F"],
        goal: Float[Tensor, "B G C"] | None,
        uniform: Float[Tensor, "B Q"],
    ) -> InTensors:
        """Return chunks (B, H, A) in physical units, their codes (B, Q), and SIGNALS (B, 2) if watched."""
        return self.drawn(observation, goal, uniform, decided)

    def drawn(
        self, observation: Tensor, goal: Tensor | None, uniform: Tensor, check: Callable[[Tensor, int], object]
    ) -> InTensors:
        """Return `plan` in tensors. check: receives logits (M, K) before codes are drawn from them, and B.

        Has no branch on values, so that it can be exported (`policies.to_onnx`).
        """
        features, entropy = self.prior.last(observation, goal), list[Tensor]()

        def choose(layers: int | slice, logits: Tensor) -> Tensor:
            check(logits, observation.shape[0])
            if self.argmax and not self.watched:
                return logits.argmax(1)
            probability = (logits / self.temperature).double().softmax(1)
            if self.watched:
                entropy.append(torch.special.entr(probability).view(observation.shape[0], -1).sum(1))
            if self.argmax:
                return logits.argmax(1)
            codes = invert(probability, uniform[:, layers].flatten())
            if torch.compiler.is_exporting():  # a graph cannot stop at logits that are no numbers: codes stay codes
                codes = codes.clamp_max(logits.shape[1] - 1)
            return codes

        codes = self.prior.draw(features, choose)
        decoded, offset = self.prior.parts(features, codes)
        chunk = decoded if offset is None else decoded + offset
        actions = self.prior.tokenizer.normalizer.unnormalize(chunk)
        if not self.watched:
            return actions, codes
        size = decoded.new_zeros(codes.shape[0]) if offset is None else offset.abs().mean((1, 2))
        return actions, codes, torch.stack([sum(entropy[1:], entropy[0]).float(), size], 1)

    def arguments(self) -> dict[str, Any]:
        return {
            "tokenizer": self.prior.tokenizer.arguments(),
            "prior": self.prior.arguments(),
            "sampling": {"temperature": self.temperature, "argmax": self.argmax},
        }

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the tensors of "tokenizer", "prior", "normalizer" (observation.*, action.*, goal.* if any), and of
        "encoder" if any."""
        tokenizer, prior = self.prior.tokenizer.components(), self.prior.components()
        statistics = {f"action.{name}": value for name, value in tokenizer["normalizer"].items()}
        return {
            "tokenizer": tokenizer["tokenizer"],
            **prior,
            "normalizer": statistics | prior["normalizer"],
        }

    @classmethod
    def from_components(cls, arguments: Mapping[str, Any], components: Mapping[str, Mapping[str, np.ndarray]]) -> VQBeT:
        """Return the exact policy of `arguments` and `components`. Raises BundleError naming any mismatch."""
        if missing := {"tokenizer", "prior", "normalizer"} - components.keys():
            raise BundleError(f"vqbet policy: components missing: {', '.join(sorted(missing))}")
        statistics = components["normalizer"]
        own = {name: value for name, value in statistics.items() if not name.startswith("action.")}
        action = {name.removeprefix("action."): value for name, value in statistics.items() if name not in own}
        try:
            tokenizer = Tokenizer.from_components(
                arguments["tokenizer"], {"tokenizer": components["tokenizer"], "normalizer": action}
            )
            prior = Prior.from_components(arguments["prior"], {**components, "normalizer": own}, tokenizer=tokenizer)
            return cls(prior, **arguments["sampling"])
        except (KeyError, TypeError) as error:
            raise BundleError(f"vqbet policy: arguments are not those of this version: {error}") from error
