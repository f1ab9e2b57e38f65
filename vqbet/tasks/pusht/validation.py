"""Knowledge for validating Push-T demonstrations: where the T ends, and how the finger follows its target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from vqbet.demos.validation.knowledge import Goal, Knowledge, Known
from vqbet.tasks.pusht.geometry import GOAL_KEYPOINTS_PX
from vqbet.tasks.pusht.spec import GOAL

AT_GOAL_PX = 36.0  # of every keypoint: the importer's 15 px, plus its 10 degrees at 120 px from the pose's origin


def knowledge() -> Knowledge:
    """Return the goal, and what `moved` returns."""
    return replace(moved(), goal=Goal(GOAL, done))


def moved() -> Knowledge:
    """Return the reference of actions: a PD controller moves the finger to its target."""
    return Knowledge(references=tuple(Known(f"agent_{axis}", f"agent_{axis}", 1, 0.8, 0.94) for axis in "xy"))


def done(seen: Float[np.ndarray, "N 18"]) -> Bool[np.ndarray, "N 1"]:
    """Return whether every keypoint is near its position at the goal."""
    away = np.linalg.norm((seen - np.array(GOAL_KEYPOINTS_PX)).reshape(len(seen), -1, 2), axis=2)
    return away.max(axis=1, keepdims=True) <= AT_GOAL_PX
