"""World and policy small enough to reason about, and records made without playing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vqbet.contract import Channel, EpisodeRecord, Spec
from vqbet.evaluation.plan import Plan, Slice, spec_sha256

POINT = Spec(
    task="point",
    observation=(Channel("x", "m", -1.0, 1.0), Channel("y", "m", -1.0, 1.0)),
    action=(Channel("dx", "m", -0.1, 0.1), Channel("dy", "m", -0.1, 0.1)),
    control_hz=10.0,
    action_kind="relative",
    frame="table",
)


class PointMass:
    """World of a point whose episode ends within 0.05 m of the origin. The seed determines the start."""

    spec = POINT
    goal: tuple[str, ...] = ()
    max_steps = 40

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        self.wanted = np.zeros((len(seeds), 2))
        self.position = np.array([np.random.default_rng(int(seed)).uniform(-1, 1, 2) for seed in seeds])
        self.first = self.position.copy()
        self.steps = np.zeros(len(seeds), np.int64)
        self.done = np.zeros(len(seeds), bool)
        return self.position.astype(np.float32)

    def step(self, action: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert not self.done[rows].any(), "an ended episode was stepped"
        self.position[rows] += action
        self.steps[rows] += 1
        distance = np.linalg.norm(self.position[rows] - self.wanted[rows], axis=1)
        ended = (distance < 0.05) | (self.steps[rows] >= self.max_steps)
        self.done[rows] = ended
        return self.position[rows].astype(np.float32), ended

    def goals(self) -> np.ndarray:
        return self.wanted[:, : len(self.goal)].astype(np.float32)

    def metrics(self) -> dict[str, np.ndarray]:
        distance = np.linalg.norm(self.position - self.wanted, axis=1)
        arrived = distance < 0.05
        return {
            "score": np.clip(1 - distance, 0, 1),
            "success": arrived,
            "mode": np.where(self.first[:, 0] < 0, "left", "right"),
            "distance_m": distance,
            "arrived_s": np.where(arrived, self.steps / 10, np.nan),
        }

    def render(self, row: int) -> np.ndarray:
        picture = np.full((24, 32, 3), 255, np.uint8)
        x, y = np.clip((self.position[row] + 1) / 2 * (31, 23), 0, (31, 23)).astype(int)
        picture[y, x] = (200, 0, 0)
        return picture


class Asking(PointMass):
    """World of a point with a goal position in each episode, determined by the seed."""

    goal = ("x", "y")

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        observation = super().reset(seeds)
        self.wanted = np.array([np.random.default_rng([int(seed), 1]).uniform(-1, 1, 2) for seed in seeds])
        return observation


class Seeker:
    """Policy that moves straight to its goal or to the origin, at most 0.1 m per step.

    asked: rows of each call of `act`. told: goals of the last `reset`.
    """

    def __init__(self, spec: Spec = POINT, goal: tuple[str, ...] = ()) -> None:
        self.spec, self.goal = spec, goal
        self.asked: list[list[int]] = []
        self.told: np.ndarray | None = None

    def reset(self, seeds: np.ndarray, goals: np.ndarray | None = None) -> None:
        self.asked, self.told = [], goals

    def act(self, observation: np.ndarray, rows: np.ndarray) -> np.ndarray:
        self.asked.append(rows.tolist())
        target = 0 if self.told is None else self.told[rows]
        return np.clip(target - observation, -0.1, 0.1).astype(np.float32)


@pytest.fixture
def env() -> PointMass:
    return PointMass()


@pytest.fixture
def asking() -> Asking:
    return Asking()


@pytest.fixture
def seeker() -> Seeker:
    return Seeker()


@pytest.fixture
def plan() -> Plan:
    return planned()


def planned() -> Plan:
    """Return a plan whose values each test may replace."""
    return Plan(
        task="point",
        world="point",
        spec=spec_sha256(POINT),
        candidate="c" * 64,
        champion="d" * 64,
        machine="this one",
        first_seed=1000,
        looks=(200,),
        reserved={"selection": (0, 1000)},
        slices=(Slice("undisturbed", 0.8), Slice("disturbed", 0.2, action_noise=0.1)),
        metric="score",
        question="better",
        stopping="fixed",
        margin=0.05,
        alpha=0.05,
        power=0.9,
        floor=0.5,
        min_modes=2,
        baselines=("noop",),
    )


Arm = Callable[..., list[EpisodeRecord]]


@pytest.fixture
def arm() -> Arm:
    return played


def played(plan: Plan, policy: str, scores: Sequence[float], **fields: Any) -> list[EpisodeRecord]:
    """Return records of one policy under a plan, one per score; modes alternate. fields: values that replace fields."""
    digest, planned = {"candidate": "c" * 64, "champion": "d" * 64}.get(policy, ""), plan.sha256
    return [
        replace(
            EpisodeRecord(
                world=plan.world,
                policy=policy,
                digest=digest,
                plan=planned,
                seed=plan.first_seed + index,
                steps=20,
                success=bool(score == 1),
                score=float(score),
                mode=("left", "right")[index % 2],
                slice=plan.slice_of(plan.first_seed + index).name,
                machine=plan.machine,
            ),
            **fields,
        )
        for index, score in enumerate(scores)
    ]
