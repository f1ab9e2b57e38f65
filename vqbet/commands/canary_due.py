"""Canaries that a promotion makes due, and what is shown about them beside ledger entries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqbet import registry
from vqbet.commands import bounds
from vqbet.evaluation.canary_rules import CanaryRules
from vqbet.registry import LedgerEntry


def require(root: Path, task: str, digest: str) -> int:
    """Make a canary due for the ledger's next entry if the committed params ask for one; return that entry's number.

    digest: of the champion that the entry makes. The canary is due before the entry is written, so that a crash in
    between lets no champion go; where the entry is then made for another policy, or not at all, it has no effect.
    """
    number = len(registry.history(task)) + 1
    _require(root, task, digest, number)
    return number


def confirm(root: Path, entry: LedgerEntry, number: int) -> None:
    """Make the canary due for a new entry that other processes' entries have moved beyond `number` (0: none is due)."""
    if 0 < number < entry.seq:
        _require(root, entry.task, entry.digest, entry.seq)


def _require(root: Path, task: str, digest: str, number: int) -> None:
    asked = bounds.committed(root, task).canary
    if asked.episodes:
        registry.Canaries(task).require(number, digest, asked.into(CanaryRules).to_json())


def rows(task: str, entries: Sequence[LedgerEntry]) -> list[dict[str, str]]:
    """Return for each ledger entry a row about its canary, empty where none was due."""
    if not entries:  # of a registry that may never have been written, and is not made by looking
        return []
    known = registry.Canaries(task)
    found = [known.of(entry) for entry in entries]
    return [{} if canary is None else {"canary": canary.sentence()} for canary in found]


def by_entry(task: str, version: int) -> dict[str, str]:
    """Return a row for each canary of a version."""
    entries = [entry for entry in registry.history(task) if entry.version == version and entry.action != "rollback"]
    return {
        f"canary of entry {entry.seq}": row["canary"]
        for entry, row in zip(entries, rows(task, entries), strict=True)
        if row
    }
