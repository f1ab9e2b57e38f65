"""The champion alias moves here and nowhere else: after a verdict, with the ledger written first.

MLflow's alias has no compare-and-set, so the order is ours: read the champion, check that the verdict is about exactly
these two digests, add the next entry to the ledger (durable; of all who try only one can), move the alias, read ledger
and alias back. A crash in between leaves a ledger one entry ahead of the alias, which the next promotion, rollback or
`repair` completes. Processes of one machine wait for one another; of several machines that share a ledger, the slower
one is refused. The registry keeps the hash of the last entry, so another machine's ledger is noticed and refused.
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

SETTLING_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 0.0)  # between looks at an alias that another machine may be moving
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
    """Make `version` the champion of `task`; return the ledger entry, the present one where it is champion already.

    verdict: its keys "outcome", "candidate" and "champion" are read, the latter two digests ("" for no champion).
    evidence: the id of the verdict's evidence. approvals: how many people must have approved it; barred: whose approval
    does not count. checked: how the evidence was
    checked before. Raises RegistryError where the verdict is no PROMOTE, is about other digests, was used before, or
    lacks approvals.
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
    """Return whether there is something to promote: False where `version` is champion already.

    Raises as `promote`, of which this is all but the effect, so that nobody waits for a check that leads nowhere.
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
    """Make `version` the champion without a verdict. Needs a reason, and is written down as what it is."""
    if not why.strip():
        raise RegistryError(f"{task}: a forced promotion needs a reason; say why")
    with connection.locked(task):
        candidate = models.resolve(f"{task}/{version}")
        entries, champion = _settled(task)
        if champion is not None and champion.digest == candidate.digest:
            return entries[-1]
        return _enact(entries, "force", candidate, champion, who, why)


def rollback(task: str, why: str, who: str) -> LedgerEntry:
    """Make the champion before the present one champion again. Needs no verdict, only a reason."""
    if not why.strip():
        raise RegistryError(f"{task}: a rollback needs a reason; say why")
    with connection.locked(task):
        entries, champion = _settled(task)
        standing = ledger.reigns(entries)
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
    """The champion of `task` by the ledger's last entry; None where nothing was ever promoted.

    Raises RegistryError where the alias says otherwise: it was moved by something else than a promotion, or a promotion
    was cut off. A promotion that is under way on another machine is waited for.
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
    """The version that "name@alias" or "name/3" stands for; "name@champion" by the ledger, as `champion`.

    Raises RegistryError listing what there is instead.
    """
    name, _, alias = reference.partition("@")
    if alias == CHAMPION and (found := champion(name)) is not None:
        return found
    return models.resolve(reference)


def predecessor(task: str) -> int:
    """The version that a rollback would make champion; 0 where there is none."""
    standing = ledger.reigns(ledger.read(task))
    return standing[-2].version if len(standing) > 1 else 0


def repair(task: str) -> LedgerEntry | None:
    """Make the alias agree with the ledger again; gives the entry that was completed, None where nothing was amiss."""
    with connection.locked(task):
        entries, champion = _read(task)
        if not entries or (_agrees(entries[-1], champion) and _head(task) == entries[-1].hash):
            return None
        _move(task, entries[-1])
        return entries[-1]


def amiss(task: str) -> str:
    """What is wrong between ledger and alias; empty where they agree. Raises RegistryError as `repair`."""
    entries, champion = _read(task)
    if not entries or (_agrees(entries[-1], champion) and _head(task) == entries[-1].hash):
        return ""
    found = f"version {champion.version}" if champion else "none"
    return f"the champion is {found}, entry {entries[-1].seq} of the ledger says version {entries[-1].version}"


def history(task: str) -> list[LedgerEntry]:
    """Who was champion of `task` when, and why; oldest first. Raises RegistryError where the chain is broken."""
    return ledger.read(task)


def _admit(
    candidate: Version, present: str, verdict: Mapping[str, Any], evidence: str, entries: Sequence[LedgerEntry]
) -> None:
    """Raises RegistryError unless the verdict says PROMOTE about exactly these two digests and is still unused."""
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
    """Ledger and champion in agreement; completes what a crash left between the two. The caller holds the lock."""
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
    entries = ledger.read(task)  # last: it is never behind what was read before
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
    """proof: the fields of an entry that say what allowed it."""
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
    """The alias, then the head, then both and the ledger read back.

    Another machine may have gone on meanwhile; whoever is slower then sets what the ledger says now, not what it said.
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
