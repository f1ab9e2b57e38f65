"""The promotion ledger of one task: a chain of what became champion.

An entry is durable before the alias moves, so the ledger is the truth and the alias its copy. Every entry is checked
by itself and against the one before it, whenever the ledger is read.
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
    """One effect on the champion alias. A version of 0 and an empty digest stand for "no champion"."""

    seq: int  # 1, 2, 3, ...
    action: Action
    task: str
    version: int  # who became champion
    digest: str
    previous_version: int  # who was champion before
    previous_digest: str
    who: str
    why: str
    when: str  # UTC, ISO 8601; never before the entry before
    evidence: str  # id of the verdict's evidence; empty for a rollback and where it was forced
    approved: str = ""  # by whom, where the promotion needed it
    checked: str = ""  # how the evidence was checked when it was promoted
    prev: str = ""  # hash of entry seq - 1; empty for the first
    hash: str = ""  # sha256 of this entry's canonical JSON without this field
    key: str = ""  # id of the key that signed it; empty where none did
    signature: str = ""  # see `seals`

    def to_json(self) -> dict[str, Any]:
        """The link as it stands in the chain: without key and signature where nobody signed."""
        return {name: value for name, value in asdict(self).items() if value or name not in chain.OPTIONAL}


_OPTIONAL = chain.OPTIONAL | {"approved", "checked"}


@dataclass(frozen=True, slots=True)
class ExaminedEntry:
    """One line of a ledger. `entry`: None where it is malformed; `fault`: a sentence, empty for a good one."""

    number: int
    entry: LedgerEntry | None
    fault: str = ""


@dataclass(slots=True)
class _Story:
    """What came before an entry. `whole`: no entry so far was malformed; `last`: None at first and after such a one."""

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
    """Return all entries, oldest first; none where nothing was promoted.

    Raises RegistryError naming the first that is broken or malformed or, where there is a trust file, not trusted.
    """
    entries = []
    for one in examined(task):
        if one.fault or one.entry is None:
            raise RegistryError(one.fault)
        entries.append(one.entry)
    return entries


def examined(task: str) -> list[ExaminedEntry]:
    """Return every line of the ledger with its fault. Raises RegistryError where the journal does not answer."""
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
    """Chain `entry` to those that were read, durably, and return it with seq, prev, hash and signature.

    Raises RegistryError where it would be malformed, and as `chain.append`; nothing was written then.
    """
    story = _Story()
    for earlier in after:
        story.go_on(earlier)
    if fault := shape(entry.task, {**entry.to_json(), "hash": "0" * 64}) or story.fault(entry):
        raise RegistryError(f"{entry.task}: nothing was written to the ledger: {fault}")
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


def signers(task: str, entries: Sequence[LedgerEntry]) -> list[str]:
    """Return for each entry who signed it, by the trust file, or "unsigned"."""
    return chain.signers(task, [entry.to_json() for entry in entries])


def shape(task: str, link: chain.Link) -> str:
    """Return a sentence about the first field that no entry of `task` can have; empty where there is none."""
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
