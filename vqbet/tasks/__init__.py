"""Simulated worlds behind `contract.Env`, one file each, and the scripted oracles of those that have one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vqbet.contract import Demonstrations, Env


def _blockpush() -> Env:
    from vqbet.tasks.blockpush.world import BlockPush

    return BlockPush()


def _blockpush_drawn() -> Env:
    from vqbet.tasks.blockpush.world import BlockPush

    return BlockPush(sides="drawn")


def _kitchen() -> Env:
    from vqbet.tasks.kitchen.world import Kitchen

    return Kitchen()


def _pusht() -> Env:
    from vqbet.tasks.pusht.world import PushT

    return PushT()


WORLDS: Mapping[str, Callable[[], Env]] = {
    "blockpush": _blockpush,
    "blockpush_drawn": _blockpush_drawn,
    "kitchen": _kitchen,
    "pusht": _pusht,
}


def _blockpush_asked(demos: Demonstrations) -> Env:
    from vqbet.tasks.blockpush.world import BlockPush

    return BlockPush(asked=True)


def _blockpush_drawn_asked(demos: Demonstrations) -> Env:
    from vqbet.tasks.blockpush.world import BlockPush

    return BlockPush(sides="drawn", asked=True)


def _kitchen_asked(demos: Demonstrations) -> Env:
    from vqbet.tasks.kitchen.world import DEMONSTRATED, Kitchen, goal_configurations

    return Kitchen(tasks=DEMONSTRATED, goals=goal_configurations(demos))


def _pusht_asked(demos: Demonstrations) -> Env:
    from vqbet.tasks.pusht.world import PushT, demonstrated_poses

    return PushT(goal_poses=demonstrated_poses(demos))


# Worlds that ask for something in every episode; what, may come from demonstrations.
GOAL_WORLDS: Mapping[str, Callable[[Demonstrations], Env]] = {
    "blockpush": _blockpush_asked,
    "blockpush_drawn": _blockpush_drawn_asked,
    "kitchen": _kitchen_asked,
    "pusht": _pusht_asked,
}


def _blockpush_oracle(episodes: int, seed: int, progress: Callable[[int, int], None] | None = None) -> Demonstrations:
    from vqbet.tasks.blockpush.oracle import demonstrations

    return demonstrations(episodes, seed, progress)


def _blockpush_drawn_oracle(
    episodes: int, seed: int, progress: Callable[[int, int], None] | None = None
) -> Demonstrations:
    from vqbet.tasks.blockpush.oracle import demonstrations

    return demonstrations(episodes, seed, progress, sides="drawn")


Oracle = Callable[[int, int, Callable[[int, int], None] | None], Demonstrations]
ORACLES: Mapping[str, Oracle] = {"blockpush": _blockpush_oracle, "blockpush_drawn": _blockpush_drawn_oracle}

# The module that decides what an oracle demonstrates: with all it imports, the version of its demonstrations.
ORACLE_MODULES: Mapping[str, str] = {
    "blockpush": "vqbet.tasks.blockpush.oracle",
    "blockpush_drawn": "vqbet.tasks.blockpush.oracle",
}
