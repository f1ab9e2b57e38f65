"""What goes into a baseline and what comes out of it, in normalised units: observations, goals, chunks of actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqbet.contract import Demonstrations
from vqbet.normalizer import Normalizer, packed, unpack


@final
class Spaces(nn.Module):
    """The normalisers of a policy: D observation channels, A action channels, C goal channels (None: no goal).

    observation_noise: standard deviation of what is added to observations in training, in normalised units.
    """

    def __init__(
        self,
        observation: Normalizer,
        action: Normalizer,
        goal: Normalizer | None = None,
        *,
        observation_noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.observation, self.action, self.goal = observation, action, goal
        self.observation_noise = observation_noise

    @classmethod
    def fit(
        cls,
        demos: Demonstrations,
        goal: Sequence[str] = (),
        *,
        unseen: Sequence[str] = (),
        observation_noise: float = 0.0,
    ) -> Spaces:
        """The ranges of the demonstrations; `goal` names the observation channels that make a goal, and patterns of
        `unseen` those that the policy does not look at."""
        names = [channel.name for channel in demos.spec.observation]
        places = [names.index(name) for name in goal]
        seen, spec = demos.observation, demos.spec
        wanted = Normalizer.fit(seen[:, places], [spec.observation[place] for place in places]) if places else None
        looked_at = Normalizer.fit(seen, spec.observation, unseen=unseen)
        acted = Normalizer.fit(demos.action, spec.action)
        return cls(looked_at, acted, wanted, observation_noise=observation_noise)

    @property
    def channels(self) -> tuple[int, int, int]:
        """D, A and C, as `acting.Planner` has them."""
        return self.observation.channels, self.action.channels, self.goal.channels if self.goal is not None else 0

    def seen(
        self, observation: Float[Tensor, "B T D"], goal: Float[Tensor, "B G C"] | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B G C"] | None]:
        """Observation and goal, normalised; the goal is None where the policy takes none."""
        wanted = None if self.goal is None or goal is None else self.goal.normalize(goal)
        return self.observation.normalize(observation), wanted

    def supervised(
        self, batch: Mapping[str, Any], chunk: int
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B G C"] | None, Float[Tensor, "B T H A"], Float[Tensor, "B T"]]:
        """Observations, goals and each position's chunk, normalised, and a weight: 1 where it was recorded whole.

        batch, as `Windows` and `GoalWindows` gather it: "observation" (B, T, D), "action" (B, T+H-1, A), "valid"
        (B, T+H-1), and "goal" (B, G, C) where there is one.
        """
        goal = batch.get("goal")
        observation, goal = self.seen(
            torch.as_tensor(batch["observation"]), None if goal is None else torch.as_tensor(goal)
        )
        if self.training and self.observation_noise:
            moves = (self.observation.half_range > 0).to(observation.dtype)
            observation = observation + self.observation_noise * moves * torch.randn_like(observation)
        action = self.action.normalize(torch.as_tensor(batch["action"]))
        target = rearrange(action.unfold(1, chunk, 1), "b t a h -> b t h a")
        weight = torch.as_tensor(batch["valid"]).unfold(1, chunk, 1).all(-1).to(target.dtype)
        return observation, goal, target, weight

    def arguments(self) -> dict[str, Any]:
        """What `from_components` needs beside the tensors; JSON-clean."""
        return {"channels": list(self.channels)}

    def components(self) -> dict[str, np.ndarray]:
        """The tensors of the component "normalizer"."""
        return packed(observation=self.observation, action=self.action, goal=self.goal)

    @classmethod
    def from_components(cls, arguments: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> Spaces:
        """The inverse of `arguments` and `components`. Raises BundleError where tensors do not fit."""
        observation, action, goal = arguments["channels"]
        spaces = cls(Normalizer(observation), Normalizer(action), Normalizer(goal) if goal else None)
        unpack(values, observation=spaces.observation, action=spaces.action, goal=spaces.goal)
        return spaces
