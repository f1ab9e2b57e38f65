"""Knowledge for validating BlockPush demonstrations: where blocks end, and how commands move the effector's target."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from vqbet.demos.validation.knowledge import Goal, Knowledge, Known
from vqbet.tasks.blockpush.spec import SUCCESS_M

IN_TARGET_M = SUCCESS_M + 0.035  # plus the distance of the last step's motion, which is not observed
PLACES = ("block0", "block1", "target0", "target1")


def knowledge() -> Knowledge:
    """Return the goal, and the reference of commands, which are added to the observed target."""
    return Knowledge(
        goal=Goal(tuple(f"{name}_{axis}" for name in PLACES for axis in "xy"), done),
        references=tuple(Known(f"effector_target_d{axis}", f"effector_target_{axis}", 0, 1.0, 1.0) for axis in "xy"),
    )


def done(seen: Float[np.ndarray, "N 8"]) -> Bool[np.ndarray, "N 2"]:
    """Return whether each block is in its target, for the better of the two pairings."""
    blocks, targets = seen.reshape(-1, 2, 2, 2).transpose(1, 2, 0, 3)  # each (2, N, xy)
    inside = np.linalg.norm(blocks[:, None] - targets, axis=-1) <= IN_TARGET_M  # (block, target, N)
    straight = np.stack([inside[0, 0], inside[1, 1]], axis=1)
    crossed = np.stack([inside[0, 1], inside[1, 0]], axis=1)
    return np.where((straight.sum(axis=1) >= crossed.sum(axis=1))[:, None], straight, crossed)
