"""Simulated worlds behind `contract.Env`, one file each, and the scripted oracles of those that have one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vqbet.contract import Demonstrations, Env


def _blockpush() -> Env:
    from vqbet.sims.blockpush import BlockPush

    return BlockPush()


def _pusht() -> Env:
    from vqbet.sims.pusht import PushT

    return PushT()


WORLDS: Mapping[str, Callable[[], Env]] = {"blockpush": _blockpush, "pusht": _pusht}


def _blockpush_oracle(episodes: int, seed: int, progress: Callable[[int, int], None] | None = None) -> Demonstrations:
    from vqbet.sims.blockpush_oracle import demonstrations

    return demonstrations(episodes, seed, progress)


Oracle = Callable[[int, int, Callable[[int, int], None] | None], Demonstrations]
ORACLES: Mapping[str, Oracle] = {"blockpush": _blockpush_oracle}
