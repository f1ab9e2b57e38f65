"""Completion rule of Franka Kitchen, for the four tasks that people demonstrated."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

# FrankaKitchen-v1's goals, in the order in which people did them: target positions of each task by their index in the
# model. A task is done where the distance from all of them is below NEAR.
GOALS: Mapping[str, Mapping[int, float]] = {
    "microwave": {22: -0.75},
    "kettle": {23: -0.23, 24: 0.75, 25: 1.62, 26: 0.99, 27: 0.0, 28: 0.0, 29: -0.06},
    "light switch": {17: -0.69, 18: -0.05},
    "slide cabinet": {19: 0.37},
}
NEAR = 0.3
DEMONSTRATED = tuple(GOALS)
STATE = np.r_[0:9, 18:39, 9:18, 39:59]  # indices that bring an observed row (arm, then objects) into the model's order


def done(state: Float[np.ndarray, "N 59"]) -> Bool[np.ndarray, "N 4"]:
    """Return whether each task of GOALS is done in each state."""
    distances = [
        np.linalg.norm(state[:, list(positions)] - list(positions.values()), axis=1) for positions in GOALS.values()
    ]
    return np.stack(distances, axis=1) < NEAR
