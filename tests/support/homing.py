"""A policy that brings the point of tests/support/point.py to the origin, ready to be served; numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.point import POINT
from tests.support.serving import served
from vqbet.policies.actor import Actor, Planned

H = 4


class Homing:
    """A planner that brings the point to the origin, with chunks that are right if they are executed in time.

    speed: most way of a step in m. PointMass has 40 steps for up to 1 m, so that with less than 0.025 some fail.
    """

    window, chunk, channels, goal_steps, draws, tags = 2, H, (2, 2, 0), 0, 1, 1

    def __init__(self, speed: float = 0.08) -> None:
        self.speed = speed

    def plan(self, observation: np.ndarray, goal: Any, uniform: np.ndarray) -> Planned:
        position, rows = observation[:, -1].astype(np.float64), []
        for _ in range(H):
            rows.append(np.clip(-position, -self.speed, self.speed))
            position = position + rows[-1]
        chunk = np.stack(rows, axis=1).astype(np.float32)
        return Planned(chunk, np.zeros((len(chunk), 1), np.int64), np.zeros((len(chunk), 0)))

    def arguments(self) -> dict[str, Any]:
        return {}

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        return {}


POLICY = served(Actor(POINT, Homing(), execute="first"))
