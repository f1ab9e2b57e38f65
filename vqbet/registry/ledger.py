"""Promotion ledger of one task: a chain of the changes of its champion.

An entry is durable before the alias moves, so the ledger is authoritative and the alias is a copy. Whenever the ledger
is read, every entry is checked by itself and against the entries before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vqbet.contract import RegistryError
from vqbet.registry import chain, journal, rows

Action = Literal["promote", "force", "rollback"]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One change of the champion alias. Version 0 with an empty digest stands for "no champion"."""

    seq: int  # 1, 2, 3, ...
    action: Action
    task: str
    version: int  # the new champion
    digest: str
    previous_version: int  # the previous champion
    previous_digest: str
    who: str
    why: str
    when: str  # UTC, ISO 8601; not before the previous entry
    evidence: str  # id of the verdict's evidence; empty for a rollback or a forced promotion
    approved: str = ""  # names of the approvers, if the promotion needed approvals
    checked: str = ""  # how the evidence was checked at promotion
    prev: str = ""  # hash of entry seq - 1; empty for the first
    hash: str = ""  # sha256 of this entry's canonical JSON without this field
    key: str = ""  # id of the signing key; empty if unsigned
    signature: str = ""  # see `seals`

    def to_json(self) -> dict[str, Any]:
        """Return the link as stored in the chain: without key and signature if unsigned."""
        return {name: value for name, value in asdict(self).items() if value or name not in chain.OPTIONAL}


_OPTIONAL = chain.OPTIONAL | {"approved", "checked"}


@dataclass(frozen=True, slots=True)
class ExaminedEntry:
    """One line of a ledger. `entry`: None if the line is malformed; `fault`: a sentence, empty for a valid line."""

    number: int
    entry: LedgerEntry | None
    fault: str = ""


@dataclass(slots=True)
class _Story:
    """State of a ledger before an entry. `whole`: no entry was malformed; `last`: None if missing or malformed."""

    last: LedgerEntry | None = None
    whole: bool = True
    standing: list[LedgerEntry] = field(default_factory=list)
    spent: set[tuple[str, str]] = field(default_factory=set)

    def fault(self, entry: LedgerEntry) -> str:
        late = rows.backwards(entry.when, self.last.when) if self.last else ""
        return self._torn(entry) or self._baseless(entry) or self._spent(entry) or late

    def _torn(self, entry: LedgerEntry) -> str:
        if self.last is None and not self.whole:
            return ""
        before = (self.last.version, self.last.digest) if self.last else (0, "")
        given = (entry.previous_version, entry.previous_digest)
        wrong = f"expected the champion before, {_named(*before)}, got {_named(*given)}"
        return "" if given == before else f"fields 'previous_version', 'previous_digest': {wrong}"

    def _baseless(self, entry: LedgerEntry) -> str:
        if entry.action != "rollback" or not self.whole:
            return ""
        if len(self.standing) < 2:
            return "field 'action': a rollback, and there was no champion to go back to"
        back, given = (self.standing[-2].version, self.standing[-2].digest), (entry.version, entry.digest)
        wrong = f"a rollback goes to {_named(*back)}, this one to {_named(*given)}"
        return "" if given == back else f"fields 'version', 'digest': {wrong}"

    def _spent(self, entry: LedgerEntry) -> str:
        used = entry.action == "promote" and (entry.evidence, entry.digest) in self.spent
        return "field 'evidence': this verdict was used by an earlier entry" if used else ""

    def go_on(self, entry: LedgerEntry | None) -> None:
        self.last = entry
        if entry is None:
            self.whole = False
        elif entry.action == "rollback":
            del self.standing[-1:]
        else:
            self.standing.append(entry)
            self.spent.add((entry.evidence, entry.digest))


def read(task: str) -> list[LedgerEntry]:
    """Return all entries, oldest first; an empty list if nothing was promoted.

    Raises RegistryError naming the first entry that is broken, malformed or, if there is a trust file, not trusted.
    """
    entries = []
    for one in examined(task):
        if one.fault or one.entry is None:
            raise RegistryError(one.fault)
        entries.append(one.entry)
    return entries


def examined(task: str) -> list[ExaminedEntry]:
    """Return every line of the ledger with its fault. Raises RegistryError if the journal does not answer."""
    found, story, where = [], _Story(), journal.opened().where
    for one in chain.examined(task):
        entry, fault = None, one.fault
        if one.link is not None and not fault:
            fault = shape(task, one.link)
            entry = None if fault else LedgerEntry(**one.link)
            fault = fault or (story.fault(entry) if entry else "")
            fault = fault and f"{where}: {task}, entry {one.number}: {fault}; restore the ledger from a copy"
        story.go_on(None if fault else entry)
        found.append(ExaminedEntry(one.number, None if fault else entry, fault))
    return found


def append(entry: LedgerEntry, after: Sequence[LedgerEntry]) -> LedgerEntry:
    """Append `entry` durably after the entries `after` and return it with seq, prev, hash and signature.

    Raises RegistryError if the entry would be malformed, and like `chain.append`. Nothing is written then.
    """
    story = _Story()
    for earlier in after:
        story.go_on(earlier)
    if fault := shape(entry.task, {**entry.to_json(), "hash": "0" * 64}) or story.fault(entry):
        raise RegistryError(f"{entry.task}: nothing was written to the ledger: {fault}")
    return LedgerEntry(**chain.append(entry.task, entry.to_json(), [earlier.to_json() for earlier in after]))


def reigns(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Return the promotions that no rollback undid, oldest first; the last one made the present champion."""
    standing: list[LedgerEntry] = []
    for entry in entries:
        if entry.action == "rollback":
            standing.pop()
        else:
            standing.append(entry)
    return standing


def signers(task: str, entries: Sequence[LedgerEntry]) -> list[str]:
    """Return for each entry the name of its trusted signer, or "unsigned"."""
    return chain.signers(task, [entry.to_json() for entry in entries])


def shape(task: str, link: chain.Link) -> str:
    """Return a sentence about the first field that is invalid for an entry of `task`, or an empty string."""
    promoted = link.get("action") == "promote"
    shapes: dict[str, rows.Shape] = {
        "action": rows.one_of("promote", "force", "rollback"),
        "task": rows.exactly(task),
        "version": rows.VERSION,
        "digest": rows.DIGEST,
        "previous_version": rows.COUNT,
        "previous_digest": rows.DIGEST_OR_NONE,
        "who": rows.NAME,
        "why": rows.TEXT if promoted else rows.NAME,
        "when": rows.TIME,
        "evidence": rows.DIGEST if promoted else rows.exactly(""),
        "approved": rows.TEXT if promoted else rows.exactly(""),
        "checked": rows.TEXT if promoted else rows.exactly(""),
        **chain.SHAPES,
    }
    return rows.fault(link, shapes, optional=_OPTIONAL)


def _named(version: int, digest: str) -> str:
    return f"version {version}, digest {digest[:12]}" if version else "none"
