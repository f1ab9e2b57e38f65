"""Inputs and outputs of a baseline in normalised units: observations, pictures, goals, chunks of actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqbet.contract import GOAL_PICTURES, BundleError, Camera, Demonstrations, TrainingError, goal_channels
from vqbet.models.encoders import GOAL, Encoder
from vqbet.models.nets import restore, tensors
from vqbet.models.normalizer import Normalizer, packed, unpack

Model = TypeVar("Model", bound=nn.Module)
APART = ("spaces",)  # submodules that are not in the component "model"


@final
class Spaces(nn.Module):
    """The normalisers of a policy: D observation channels, A action channels, C goal channels (None: no goal).

    encoder: turns pictures into F features, which stand behind the D channels; None for a policy without cameras.
    pictured: whether goals include pictures, whose features stand behind the C channels.
    observation_noise, goal_noise: standard deviation of the Gaussian noise on observations and goals in training, in
    normalised units.
    """

    def __init__(
        self,
        observation: Normalizer,
        action: Normalizer,
        goal: Normalizer | None = None,
        *,
        observation_noise: float = 0.0,
        goal_noise: float = 0.0,
        encoder: Encoder | None = None,
        pictured: bool = False,
    ) -> None:
        super().__init__()
        self.pictured = pictured
        self.observation, self.action, self.goal, self.encoder = observation, action, goal, encoder
        self.observation_noise, self.goal_noise = observation_noise, goal_noise

    @classmethod
    def fit(
        cls,
        demos: Demonstrations,
        goal: Sequence[str] = (),
        *,
        unseen: Sequence[str] = (),
        observation_noise: float = 0.0,
        goal_noise: float = 0.0,
        encoder: Encoder | None = None,
    ) -> Spaces:
        """Fit to the ranges of the demonstrations.

        goal: names of the observation channels of a goal, and GOAL_PICTURES. unseen: patterns of channels that the
        policy ignores. encoder: of their cameras.
        """
        names = [channel.name for channel in demos.spec.observation]
        places = [names.index(name) for name in goal_channels(tuple(goal))]
        seen, spec = demos.observation, demos.spec
        wanted = Normalizer.fit(seen[:, places], [spec.observation[place] for place in places]) if places else None
        if goal and wanted is None:
            wanted = Normalizer(0)  # of pictures alone
        looked_at = Normalizer.fit(seen, spec.observation, unseen=unseen)
        acted = Normalizer.fit(demos.action, spec.action)
        return cls(
            looked_at,
            acted,
            wanted,
            observation_noise=observation_noise,
            goal_noise=goal_noise,
            encoder=encoder,
            pictured=GOAL_PICTURES in goal,
        )

    @property
    def channels(self) -> tuple[int, int, int]:
        """D, A and C, as in `policies.actor.Planner`."""
        return self.observation.channels, self.action.channels, self.goal.channels if self.goal is not None else 0

    @property
    def inputs(self) -> tuple[int, int, int]:
        """The numbers of an observation with its features, D + F, then A and those of a goal, C or C + F."""
        seen, acted, wanted = self.channels
        return seen + self.features, acted, wanted + self.goal_features

    @property
    def cameras(self) -> tuple[Camera, ...]:
        return () if self.encoder is None else self.encoder.cameras

    @property
    def features(self) -> int:
        """F; 0 without cameras."""
        return 0 if self.encoder is None else self.encoder.features

    @property
    def goal_features(self) -> int:
        """The features of a goal's pictures; 0 where goals have none."""
        return self.features if self.pictured else 0

    def seen(
        self, observation: Float[Tensor, "B T D+F"], goal: Float[Tensor, "B G C+F"] | None
    ) -> tuple[Float[Tensor, "B T D+F"], Float[Tensor, "B G C+F"] | None]:
        """Return observation and goal, normalised; the goal is None where the policy takes none."""
        wanted = None
        if self.goal is not None and goal is not None:
            channels = self.goal.channels
            wanted = self.goal.normalize(goal[..., :channels])
            if self.pictured:
                wanted = torch.cat([wanted, goal[..., channels:]], -1)
        if self.encoder is None:
            return self.observation.normalize(observation), wanted
        known = self.observation.channels
        normalised = self.observation.normalize(observation[..., :known])
        return torch.cat([normalised, observation[..., known:]], -1), wanted

    def expect_goal(self, policy: str, goal_steps: int) -> None:
        """Raise TrainingError unless there are goal channels exactly where `goal_steps` is above 0."""
        if (self.goal is None) != (goal_steps == 0):
            raise TrainingError(
                f"{policy}: goal_steps {goal_steps} and {self.channels[2]} goal channels must come together: "
                "give both, or neither"
            )

    def supervised(
        self, batch: Mapping[str, Any], chunk: int, goal_steps: int
    ) -> tuple[Float[Tensor, "B T D+F"], Float[Tensor, "B G C"] | None, Float[Tensor, "B T H A"], Float[Tensor, "B T"]]:
        """Return normalised observations, goals, each position's chunk, and its weight: 1 where complete, else 0.

        batch, as gathered by `Windows` and `GoalWindows`: "observation" (B, T, D), "action" (B, T+H-1, A), "valid"
        (B, T+H-1), "goal" (B, G, C), and the pictures of `Encoder.of` if there are cameras. Without goal_steps a goal
        in the batch is ignored, so that the same windows serve both. Raises TrainingError where the batch lacks the
        goal that the policy takes.
        """
        goal = batch.get("goal")
        expected, got = (goal_steps, self.channels[2]), tuple(np.shape(() if goal is None else goal)[1:])
        if goal_steps and got != expected:
            raise TrainingError(
                f"batch: goal: expected (steps, channels) {expected}, got {got or 'no goal'}; gather GoalWindows"
            )
        observation = self.observation.normalize(torch.as_tensor(batch["observation"]))
        goal = None if goal is None or self.goal is None else self.goal.normalize(torch.as_tensor(goal))
        if self.training and self.observation_noise:
            observation = _disturbed(observation, self.observation, self.observation_noise)
        if self.training and self.goal_noise and goal is not None and self.goal is not None:
            goal = _disturbed(goal, self.goal, self.goal_noise)
        if self.encoder is not None:
            observation = torch.cat([observation, self.encoder.of(batch, observation.device)], -1)
        if self.encoder is not None and self.pictured and goal is not None:
            goal = torch.cat([goal, self.encoder.of(batch, goal.device, GOAL)], -1)
        action = self.action.normalize(torch.as_tensor(batch["action"]))
        target = rearrange(action.unfold(1, chunk, 1), "b t a h -> b t h a")
        weight = torch.as_tensor(batch["valid"]).unfold(1, chunk, 1).all(-1).to(target.dtype)
        return observation, goal, target, weight

    def arguments(self) -> dict[str, Any]:
        """Return the `arguments` of `from_components`; JSON-clean."""
        eyes = {} if self.encoder is None else {"encoder": self.encoder.arguments()}
        return {"channels": list(self.channels), **eyes, **({"pictured": True} if self.pictured else {})}

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the tensors of the component "normalizer", and of "encoder" if any."""
        eyes = {} if self.encoder is None else {"encoder": self.encoder.components()}
        return {"normalizer": packed(observation=self.observation, action=self.action, goal=self.goal), **eyes}

    @classmethod
    def from_components(cls, arguments: Mapping[str, Any], values: Mapping[str, Mapping[str, np.ndarray]]) -> Spaces:
        """Return the spaces of these `arguments` and `components`. Raises BundleError where tensors do not fit."""
        observation, action, goal = arguments["channels"]
        eyes = Encoder.from_components(arguments["encoder"], values["encoder"]) if "encoder" in arguments else None
        pictured = arguments.get("pictured", False)
        wanted = Normalizer(goal) if goal or pictured else None
        spaces = cls(Normalizer(observation), Normalizer(action), wanted, encoder=eyes, pictured=pictured)
        unpack(values["normalizer"], observation=spaces.observation, action=spaces.action, goal=spaces.goal)
        return spaces


def _disturbed(values: Float[Tensor, "... D"], normalizer: Normalizer, noise: float) -> Float[Tensor, "... D"]:
    """Return normalised values with Gaussian noise on the channels that vary in the demonstrations."""
    return values + noise * (normalizer.half_range > 0).to(values.dtype) * torch.randn_like(values)


def parts(policy: nn.Module, spaces: Spaces) -> dict[str, dict[str, np.ndarray]]:
    """Return the tensors of a policy with `spaces`, by component: "model", "normalizer", and "encoder" if any."""
    return {"model": tensors(policy, without=APART), **spaces.components()}


def rebuilt(
    name: str,
    make: Callable[[Spaces], Model],
    arguments: Mapping[str, Any],
    components: Mapping[str, Mapping[str, np.ndarray]],
) -> Model:
    """Return the policy that `make` builds, with the tensors of `parts`. Raises BundleError naming any mismatch."""
    if missing := {"model", "normalizer"} - components.keys():
        raise BundleError(f"{name} policy: components missing: {', '.join(sorted(missing))}")
    try:
        policy = make(Spaces.from_components(arguments["spaces"], components))
    except (KeyError, TypeError, ValueError, TrainingError) as error:
        raise BundleError(f"{name} policy: arguments are not those of this version: {error}") from error
    restore(policy, components["model"], component="model", without=APART)
    return policy.eval()
