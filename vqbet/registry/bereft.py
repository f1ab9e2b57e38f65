"""A registry that has a champion beside a place that has no ledger of it."""

from __future__ import annotations

from vqbet.contract import RegistryError
from vqbet.registry import connection, journal, models
from vqbet.registry.promotion import HEAD


def refuse_without_ledger(task: str) -> None:
    """Raise RegistryError where the registry knows a champion of `task`, now or by its last promotion.

    To be called where the task's ledger is empty. A registry that was never written has nothing to say.
    """
    if connection.empty():
        return
    champion, head = models.champion(task), models.model_tags(task).get(HEAD, "")
    if champion is None and not head:
        return
    known = f"version {champion.version} as champion" if champion else f"a promotion {head[:12]}"
    raise RegistryError(
        f"{task}: {journal.opened().where} has no entry, but the registry has {known}: the ledger was lost, or is "
        f"another machine's; bring it here, or share one through {journal.VARIABLE}"
    )
