"""BlockPush, with sides fixed or drawn: push two blocks into two targets. A script generates the demonstrations."""

from __future__ import annotations

from vqbet.tasks.blockpush import mirror
from vqbet.tasks.blockpush.spec import GOAL, SPECS, Sides
from vqbet.tasks.task import Code, Score, Task

_TRACKS = {
    "effector": ("effector_x", "effector_y"),
    "block 0": ("block0_x", "block0_y"),
    "block 1": ("block1_x", "block1_y"),
}


def _task(sides: Sides) -> Task:
    layout = {"sides": sides}
    return Task(
        spec=SPECS[sides],
        oracle=Code("vqbet.tasks.blockpush.oracle:demonstrations", layout),
        world=Code("vqbet.tasks.blockpush.world:BlockPush", layout),
        goal_world=Code("vqbet.tasks.blockpush.world:asking", layout),
        goal=GOAL,
        mirror=mirror.image if sides == "drawn" else None,  # with fixed sides, demonstrations show one side only
        validation=Code("vqbet.tasks.blockpush.validation:knowledge"),
        tracks=_TRACKS,
        score=Score("blocks pushed", top=2),
    )


FIXED, DRAWN = _task("fixed"), _task("drawn")
