"""Chains whose newest link a tag of the registered model names, so that a shortened or replaced chain is noticed."""

from __future__ import annotations

from vqbet.contract import RegistryError
from vqbet.registry import chain, journal, models
from vqbet.registry.chain import Link


def read(name: str, task: str, *, tag: str, what: str) -> list[Link]:
    """Return the links of a chain. what: of its links, in the message.

    Raises RegistryError if the chain is broken or lacks the link that the tag names.
    """
    links = chain.read(name)
    head = models.model_tags(task).get(tag, "")
    if head and head not in [link["hash"] for link in links]:
        raise RegistryError(
            f"{task}: the registry's last {what} {head[:12]} is not in {journal.opened().where}: links are missing, or "
            f"another machine's ledger is in use; bring that ledger here, or share one through {journal.VARIABLE}"
        )
    return links
