"""The promotion ledger of one task: a chain of what became champion.

An entry is durable before the alias moves, so the ledger is the truth and the alias its copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vqbet.contract import RegistryError
from vqbet.registry import chain


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One effect on the champion alias. A version of 0 and an empty digest stand for "no champion"."""

    seq: int  # 1, 2, 3, ...
    action: Literal["promote", "force", "rollback"]
    task: str
    version: int  # who became champion
    digest: str
    previous_version: int  # who was champion before
    previous_digest: str
    who: str
    why: str
    when: str  # UTC, ISO 8601
    evidence: str  # id of the verdict's evidence; empty for a rollback and where it was forced
    approved: str = ""  # by whom, where the promotion needed it
    checked: str = ""  # how the evidence was checked when it was promoted
    prev: str = ""  # hash of entry seq - 1; empty for the first
    hash: str = ""  # sha256 of this entry's canonical JSON without this field

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read(task: str) -> list[LedgerEntry]:
    """All entries in order, oldest first; none where nothing was promoted. Raises RegistryError naming a broken one."""
    try:
        return [LedgerEntry(**link) for link in chain.read(task)]
    except TypeError as error:
        raise RegistryError(f"{task}: not a ledger of this version: {error}; use the version that wrote it") from error


def append(entry: LedgerEntry, after: Sequence[LedgerEntry]) -> LedgerEntry:
    """Chain `entry` to those that were read, durably; gives it with seq, prev, hash. Raises as `chain.append`."""
    return LedgerEntry(**chain.append(entry.task, entry.to_json(), [earlier.to_json() for earlier in after]))


def reigns(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """The promotions that no rollback undid, oldest first; the last one made the present champion."""
    standing: list[LedgerEntry] = []
    for entry in entries:
        if entry.action == "rollback":
            standing.pop()
        else:
            standing.append(entry)
    return standing
