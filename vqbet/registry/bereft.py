"""Check for a registry that has a champion whose ledger is missing."""

from __future__ import annotations

from vqbet.contract import RegistryError
from vqbet.registry import connection, journal, models
from vqbet.registry.promotion import HEAD


def refuse_without_ledger(task: str) -> None:
    """Raise RegistryError if the registry has a champion of `task` or a tag of its last promotion.

    Call this only when the task's ledger is empty. A registry that was never written passes.
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
