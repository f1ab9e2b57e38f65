"""A whole task in one file, as an installed package would bring it: a point walks to one of two places."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vqbet.contract import COLUMNS, Channel, Demonstrations, Spec
from vqbet.tasks import Score, Task

PLACES_M = np.array([[-0.4, 0.8], [0.4, 0.8]])
NEAR_M, STEP_M = 0.1, 0.05

SPEC = Spec(
    task="toy",
    observation=tuple(Channel(f"point_{axis}", "m", -3.0, 3.0) for axis in "xy"),
    action=tuple(Channel(f"point_d{axis}", "m", -0.2, 0.2) for axis in "xy"),
    control_hz=10.0,
    action_kind="relative",
    frame="plane",
)


class Plane:
    """The world: commands move the point; an episode ends near a place."""

    spec = SPEC
    goal: tuple[str, ...] = ()
    max_steps = 60

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        first = [np.random.default_rng(int(seed)).uniform([-0.2, -0.9], [0.2, -0.7]) for seed in seeds]
        self.position, self.steps = np.array(first).reshape(-1, 2), np.zeros(len(seeds), np.int64)
        return self.position.astype(np.float32)

    def step(self, action: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.position[rows] += np.clip(action, -0.2, 0.2)
        self.position[rows] = np.clip(self.position[rows], -3, 3)
        self.steps[rows] += 1
        ended = (self.steps[rows] >= self.max_steps) | (self._away()[rows].min(axis=1) < NEAR_M)
        return self.position[rows].astype(np.float32), ended

    def goals(self) -> np.ndarray:
        return np.zeros((len(self.position), 0), np.float32)

    def metrics(self) -> dict[str, np.ndarray]:
        away = self._away()
        arrived = away.min(axis=1) < NEAR_M
        mode = np.where(arrived, np.array(["left", "right"])[away.argmin(axis=1)], "")
        return {"score": np.clip(1 - away.min(axis=1), 0, 1), "success": arrived, "mode": mode}

    def render(self, row: int) -> np.ndarray:
        picture = np.full((32, 32, 3), 255, np.uint8)
        x, y = np.clip((self.position[row] + 1) * 16, 0, 31).astype(int)
        picture[31 - y, x] = 0
        return picture

    def _away(self) -> np.ndarray:
        return np.linalg.norm(self.position[:, None] - PLACES_M, axis=2)


def demonstrations(episodes: int, seed: int, progress: Callable[[int, int], None] | None = None) -> Demonstrations:
    """Walk straight, with some noise, to the left place in every other episode and to the right one in the others."""
    world, rng, rows = Plane(), np.random.default_rng(seed), np.arange(episodes)
    seeds = 2**32 + seed * 2**24 + rows
    observation, steps = world.reset(seeds), []
    while len(rows):
        way = PLACES_M[rows % 2] - observation
        way *= STEP_M / np.linalg.norm(way, axis=1, keepdims=True)
        action = (way + rng.normal(0, 0.01, way.shape)).astype(np.float32)
        steps.append((rows, observation, action))
        observation, ended = world.step(action, rows)
        observation, rows = observation[~ended], rows[~ended]
    owner, observed, acted = (np.concatenate(column) for column in zip(*steps, strict=True))
    order, lengths = np.argsort(owner, kind="stable"), np.bincount(owner)
    own = {"seed": seeds, "success": world.metrics()["success"]}
    return Demonstrations(
        spec=SPEC,
        observation=observed[order],
        action=acted[order],
        time_s=np.concatenate([np.arange(length) for length in lengths]) / SPEC.control_hz,
        episode_ends=np.cumsum(lengths),
        columns={name: own.get(name, np.full(episodes, "toy")) for name in COLUMNS},
    )


TASK = Task(
    spec=SPEC,
    oracle=demonstrations,
    world=Plane,
    tracks={"point": ("point_x", "point_y")},
    score=Score("way gone, of 10", top=10),
)
