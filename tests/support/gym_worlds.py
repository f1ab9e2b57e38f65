"""A Gymnasium environment of a stranger: a point that is pushed to a place, or a faulty one. Importing registers it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

NEAR = 0.3


class Point(gymnasium.Env[Any, Any]):
    """A point in a plane. fault: what is wrong with this one; seed: of one that is "unseeded" by its reset."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as Gymnasium has it

    def __init__(
        self, fault: str = "", render_mode: str = "rgb_array", picture: int = 12, seed: int | None = None
    ) -> None:
        self.fault, self.render_mode, self.picture = fault, render_mode, picture
        self.own = np.random.default_rng(seed)
        self.action_space = spaces.Discrete(3) if fault == "discrete" else spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "agent": spaces.Dict({"place": spaces.Box(-9, 9, (2,)), "speed": spaces.Box(-9, 9, (1,))}),
                "pixels": spaces.Box(0, 255, (picture, picture, 3), np.uint8),
            }
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        source = self.own if self.fault == "unseeded" else self.np_random
        self.place, self.speed = np.ones(2) if self.fault == "monotonous" else source.uniform(-2, 2, 2), 0.0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        noise = np.random.default_rng().normal() if self.fault == "noisy" else 0.0
        assert self.action_space.contains(np.asarray(action, np.float32)), "a world may rely on its own limits"
        self.place = self.place + 0.2 * np.asarray(action) + noise
        self.speed = float(np.linalg.norm(action))
        far = float(np.linalg.norm(self.place))
        info = {} if self.fault == "silent" else {"near": far < NEAR, "closeness": max(0.0, 1 - far / 4)}
        return self._seen(), -far, far < 0.05, False, info

    def render(self) -> Any:
        if self.fault == "blind":
            raise RuntimeError("no display")
        return self._picture()

    def _picture(self) -> np.ndarray:
        return np.full((self.picture, self.picture, 3), int(128 + 25 * np.clip(self.place[0], -4, 4)), np.uint8)

    def _seen(self) -> Any:
        place = np.full(2, np.nan) if self.fault == "nan" else self.place
        return {
            "agent": {"place": np.float32(place), "speed": np.float32([self.speed])},
            "pixels": self._picture(),
        }


gymnasium.register("Stranger/Point-v0", entry_point=Point)
