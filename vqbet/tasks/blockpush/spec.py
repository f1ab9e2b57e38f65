"""Channels, rate and lengths of BlockPush; the two layouts differ only in the name of the task."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from vqbet.contract import Channel, Spec

CONTROL_HZ = 10.0
MAX_MOVE_M = 0.03  # longest change of the effector's target per control step
TABLE_M = 0.33  # half the side of the table; nothing leaves it
SUCCESS_M = 0.05  # a block is in a target when their centres are this close


def _channels() -> tuple[Channel, ...]:
    def pose(name: str) -> tuple[Channel, ...]:
        return (
            Channel(f"{name}_x", "m", -TABLE_M, TABLE_M),
            Channel(f"{name}_y", "m", -TABLE_M, TABLE_M),
            Channel(f"{name}_yaw", "rad", -3.1416, 3.1416),
        )

    effector = tuple(Channel(f"effector_{axis}", "m", -TABLE_M, TABLE_M) for axis in "xy")
    goal = tuple(Channel(f"effector_target_{axis}", "m", -TABLE_M, TABLE_M) for axis in "xy")
    return pose("block0") + pose("block1") + effector + goal + pose("target0") + pose("target1")


SPEC = Spec(
    task="blockpush",
    observation=_channels(),
    action=tuple(Channel(f"effector_target_d{axis}", "m", -MAX_MOVE_M, MAX_MOVE_M) for axis in "xy"),
    control_hz=CONTROL_HZ,
    action_kind="relative",
    frame="table",
)

Sides = Literal["fixed", "drawn"]
SPECS: dict[Sides, Spec] = {"fixed": SPEC, "drawn": replace(SPEC, task="blockpush_drawn")}
GOAL = ("block0_x", "block0_y", "block1_x", "block1_y")
