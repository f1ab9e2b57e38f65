"""Promotion and rollback: the only code that moves the champion alias, and only after writing the ledger.

MLflow's alias has no compare-and-set, so promotion follows a fixed order: read the champion, check that the verdict is
about exactly these two digests, append the next entry to the ledger (durable; only one of concurrent writers succeeds),
move the alias, read ledger and alias back. A crash in between leaves the ledger one entry ahead of the alias; the next
promotion, rollback or `repair` completes the move. Processes on one machine wait for each other. If several machines
share a ledger, the slower one is refused. The registry keeps the hash of the last entry, so that the ledger of another
machine is detected and refused.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from vqbet.contract import RegistryError
from vqbet.registry import connection, journal, ledger, models, rows
from vqbet.registry.approvals import approved
from vqbet.registry.ledger import LedgerEntry
from vqbet.registry.models import CHAMPION, Version

SETTLING_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 0.0)  # pauses between reads of an alias that another machine may be moving
HEAD = "ledger_head"  # tag of the registered model: hash of the last entry whose effect is complete


def promote(
    task: str,
    version: int,
    *,
    verdict: Mapping[str, Any],
    evidence: str,
    who: str,
    why: str,
    approvals: int = 0,
    barred: Collection[str] = (),
    checked: str = "",
) -> LedgerEntry:
    """Make `version` the champion of `task`; return the ledger entry (the last one if `version` already is champion).

    verdict: its keys "outcome", "candidate" and "champion" are read; the latter two are digests ("" for no champion).
    evidence: id of the verdict's evidence. approvals: number of people who must have approved the verdict. barred:
    people whose approval does not count. checked: how the evidence was checked before. Raises RegistryError if the
    verdict is not PROMOTE, is about other digests, was used before, or lacks approvals.
    """
    with connection.locked(task):
        candidate = models.resolve(f"{task}/{version}")
        entries, champion = _settled(task)
        if champion is not None and champion.digest == candidate.digest:
            return entries[-1]
        present = champion.digest if champion else ""
        _admit(candidate, present, verdict, evidence, entries)
        consent = approved(task, evidence, needed=approvals, barred=barred) if approvals else []
        names = ", ".join(sorted(one.who for one in consent))
        return _enact(
            entries, "promote", candidate, champion, who, why, evidence=evidence, approved=names, checked=checked
        )


def admit(
    task: str,
    version: int,
    *,
    verdict: Mapping[str, Any],
    evidence: str,
    approvals: int = 0,
    barred: Collection[str] = (),
) -> bool:
    """Return False if `version` already is champion, otherwise True.

    Makes all checks of `promote` without its effect and raises like it, so that a promotion that would be refused fails
    before the evidence is checked at length.
    """
    with connection.locked(task):
        candidate = models.resolve(f"{task}/{version}")
        entries, champion = _settled(task)
    if champion is not None and champion.digest == candidate.digest:
        return False
    _admit(candidate, champion.digest if champion else "", verdict, evidence, entries)
    if approvals:
        approved(task, evidence, needed=approvals, barred=barred)
    return True


def force(task: str, version: int, *, who: str, why: str) -> LedgerEntry:
    """Make `version` the champion without a verdict. Needs a reason and is recorded in the ledger as forced."""
    if not why.strip():
        raise RegistryError(f"{task}: a forced promotion needs a reason; say why")
    with connection.locked(task):
        candidate = models.resolve(f"{task}/{version}")
        entries, champion = _settled(task)
        if champion is not None and champion.digest == candidate.digest:
            return entries[-1]
        return _enact(entries, "force", candidate, champion, who, why)


def rollback(task: str, why: str, who: str, *, of: str = "") -> LedgerEntry:
    """Make the previous champion the champion again. Needs a reason but no verdict.

    of: hash of the entry to be undone; where another one is in force by now, RegistryError is raised. Empty: any.
    """
    if not why.strip():
        raise RegistryError(f"{task}: a rollback needs a reason; say why")
    with connection.locked(task):
        entries, champion = _settled(task)
        standing = ledger.reigns(entries)
        if of and (not standing or standing[-1].hash != of):
            raise RegistryError(f"{task}: entry {of[:12]} is not in force any more, so it was not rolled back")
        if champion is None or len(standing) < 2:
            now = f"version {champion.version}" if champion else "none"
            raise RegistryError(f"{task}: no champion to go back to; the champion is {now} and none was before it")
        before = standing[-2]
        target = models.resolve(f"{task}/{before.version}")
        if target.digest != before.digest:
            raise RegistryError(
                f"{task}/{before.version}: the ledger says digest {_short(before.digest)}, the registry "
                f"{_short(target.digest)}; this version was replaced and may not become champion"
            )
        return _enact(entries, "rollback", target, champion, who, why)


def champion(task: str) -> Version | None:
    """Return the champion of `task` by the ledger's last entry; None if nothing was ever promoted.

    Raises RegistryError if the alias disagrees: it was not moved by a promotion, or a promotion was interrupted. Waits
    for a promotion that another machine is making.
    """
    for pause_s in SETTLING_S:
        entries, found = _read(task)
        if not entries or _agrees(entries[-1], found):
            return found
        time.sleep(pause_s)
    now = f"version {found.version}" if found else "none"
    raise RegistryError(
        f"{task}@{CHAMPION} is {now}, entry {entries[-1].seq} of {_place()} says version {entries[-1].version}: the "
        f"alias was moved by something else than a promotion, or one was cut off; look at it, and put it back: "
        f"vqbet audit {task} --repair"
    )


def resolve(reference: str) -> Version:
    """Return the version for "name@alias" or "name/3"; "name@champion" is checked against the ledger, see `champion`.

    Raises RegistryError listing the existing versions.
    """
    name, _, alias = reference.partition("@")
    if alias == CHAMPION and (found := champion(name)) is not None:
        return found
    return models.resolve(reference)


def predecessor(task: str) -> int:
    """Return the version that a rollback would make champion; 0 if there is none."""
    standing = ledger.reigns(ledger.read(task))
    return standing[-2].version if len(standing) > 1 else 0


def repair(task: str) -> LedgerEntry | None:
    """Set the alias as the ledger says; return the entry that was completed, None if alias and ledger agreed."""
    with connection.locked(task):
        entries, champion = _read(task)
        if not entries or (_agrees(entries[-1], champion) and _head(task) == entries[-1].hash):
            return None
        _move(task, entries[-1])
        return entries[-1]


def amiss(task: str) -> str:
    """Return a sentence if ledger and alias disagree, otherwise an empty string. Raises RegistryError like `repair`."""
    entries, champion = _read(task)
    if not entries or (_agrees(entries[-1], champion) and _head(task) == entries[-1].hash):
        return ""
    found = f"version {champion.version}" if champion else "none"
    return f"the champion is {found}, entry {entries[-1].seq} of the ledger says version {entries[-1].version}"


def history(task: str) -> list[LedgerEntry]:
    """Return the ledger entries of `task`, oldest first. Raises RegistryError if the chain is broken."""
    return ledger.read(task)


def _admit(
    candidate: Version, present: str, verdict: Mapping[str, Any], evidence: str, entries: Sequence[LedgerEntry]
) -> None:
    """Raise RegistryError unless the verdict is PROMOTE, is about exactly these two digests, and is unused."""
    name = f"{candidate.name}/{candidate.version}"
    if verdict.get("outcome") != "PROMOTE":
        raise RegistryError(f"{name}: the verdict is {verdict.get('outcome')!r}, only PROMOTE moves the champion")
    for role, digest in (("candidate", candidate.digest), ("champion", present)):
        if verdict.get(role) != digest or (role == "candidate" and not digest):
            raise RegistryError(
                f"{name}: the verdict is about {role} {_short(verdict.get(role))}, the {role} in the registry is "
                f"{_short(digest)}; run the gate for these two"
            )
    for entry in entries:
        if entry.action == "promote" and entry.evidence == evidence and entry.digest == candidate.digest:
            raise RegistryError(
                f"{name}: this verdict was used by entry {entry.seq} of {entry.when} and undone by a rollback since; "
                "a new promotion needs a new verdict"
            )


def _settled(task: str) -> tuple[list[LedgerEntry], Version | None]:
    """Return ledger and champion, completing a move that a crash interrupted. The caller holds the lock."""
    entries, champion = _read(task)
    if not entries:
        return entries, champion
    last = entries[-1]
    head = _head(task)
    if _agrees(last, champion) and head == last.hash:
        return entries, champion
    completed = next((entry for entry in entries if entry.hash == head), None)
    behind = _agrees(completed, champion) if completed else champion is None
    if _agrees(last, champion) or behind:
        _move(task, last)
        return entries, models.champion(task)
    found = f"version {champion.version}" if champion else "none"
    raise RegistryError(
        f"{task}: the champion is {found}, entry {last.seq} of {_place()} says version {last.version}: the alias "
        "was moved by something else; repair puts it back"
    )


def _read(task: str) -> tuple[list[LedgerEntry], Version | None]:
    champion, head = models.champion(task), _head(task)
    entries = ledger.read(task)  # last, so that the ledger is never behind alias and tag
    if head and head not in [entry.hash for entry in entries]:
        raise RegistryError(
            f"{task}: the registry's last promotion {head[:12]} is not in {_place()}: entries are missing, or "
            f"another machine's ledger is in use; bring that ledger here, or share one through {journal.VARIABLE}"
        )
    if champion is not None and not entries:
        raise RegistryError(
            f"{task}: version {champion.version} is champion without a ledger entry; bring {_place()} back, or "
            "remove the alias"
        )
    return entries, champion


def _agrees(entry: LedgerEntry, champion: Version | None) -> bool:
    return champion is not None and (champion.version, champion.digest) == (entry.version, entry.digest)


def _head(task: str) -> str:
    return models.model_tags(task).get(HEAD, "")


def _enact(
    entries: Sequence[LedgerEntry],
    action: Literal["promote", "force", "rollback"],
    target: Version,
    champion: Version | None,
    who: str,
    why: str,
    **proof: str,
) -> LedgerEntry:
    """Write the ledger entry and move the alias. proof: entry fields that justify the change."""
    entry = ledger.append(
        LedgerEntry(
            seq=0,
            action=action,
            task=target.name,
            version=target.version,
            digest=target.digest,
            previous_version=champion.version if champion else 0,
            previous_digest=champion.digest if champion else "",
            who=who,
            why=why,
            when=rows.now(entries[-1].when if entries else ""),
            evidence=proof.pop("evidence", ""),
            **proof,
        ),
        entries,
    )
    _move(target.name, entry)
    return entry


def _move(task: str, entry: LedgerEntry) -> None:
    """Set the alias, then the head, then read both and the ledger back.

    If another machine wrote a newer entry meanwhile, the alias is set to that entry instead.
    """
    client = connection.client()
    last = entry
    while True:
        with connection.refused(f"move {task}@{CHAMPION}"):
            client.set_registered_model_alias(task, CHAMPION, str(last.version))
            client.set_registered_model_tag(task, HEAD, last.hash)
        champion, newest = models.champion(task), ledger.read(task)[-1]
        if newest.hash == last.hash:
            break
        last = newest
    if not _agrees(last, champion):
        raise RegistryError(
            f"{task}: the alias was set to version {last.version} and reads back otherwise: something else writes it, "
            "or the version was replaced; find out who, then repair"
        )


def _place() -> str:
    return journal.opened().where


def _short(digest: object) -> str:
    return str(digest or "none")[:12]
