"""Simulated worlds behind `contract.Env`, one file each, and the scripted oracles of those that have one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vqbet.contract import Env


def _pusht() -> Env:
    from vqbet.sims.pusht import PushT

    return PushT()


WORLDS: Mapping[str, Callable[[], Env]] = {"pusht": _pusht}
