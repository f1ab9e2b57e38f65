"""Consistency check of ledger, registry, evidence and bundles, and repair of what a crash left unfinished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vqbet import registry, signing
from vqbet.commands import publication, release
from vqbet.commands.trials import recorded
from vqbet.contract import VqbetError
from vqbet.registry import LedgerEntry, chain
from vqbet.stages import kept, verdicts
from vqbet.stages.progress import Watch


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """Result of one check.

    what: the subject of the check. wrong: the fault, "" where there is none. mended: the repair made. note: a remark
    that is not a fault.
    """

    what: str
    wrong: str = ""
    mended: str = ""
    note: str = ""

    @property
    def open(self) -> bool:
        return bool(self.wrong and not self.mended)


def run(root: Path, task: str, watch: Watch, *, repair: bool) -> list[AuditFinding]:
    """Check everything behind the promotions of `task`; with `repair`, also finish what a crash left unfinished.

    Files of a champion that are missing or changed in the registry are restored if the artefacts or DVC's cache hold
    the bundle of that digest. Other changed content is only reported: restore a copy, or roll the champion back. Every
    malformed link is a finding of its own and hides no other. Raises RegistryError where the registry or the journal
    does not answer.
    """
    registry.check()
    found, entries = _chains(task)
    if not entries:
        found.append(_looked("ledger beside the registry", partial(_bereft, task)))
    found.append(_looked(f"{task}@champion", lambda: registry.amiss(task), _moved(task) if repair else None))
    checks: list[tuple[str, Callable[[], str], Callable[[], str] | None]] = []
    digests = {entry.version: entry.digest for entry in entries}
    for version, digest in sorted(digests.items()):
        mend = partial(kept.put_back, root, task, version, digest) if repair else None
        checks.append((f"{task}/{version}", partial(_bundle, task, version, digest), mend))
    films: list[AuditFinding] = []
    for entry in entries:
        if entry.action == "promote":
            checks.append((f"entry {entry.seq}, evidence", partial(_evidence, root, entry), None))
            if (tried := recorded.behind(root, entry)) is not None:
                checks.append((f"entry {entry.seq}, recordings", tried.fault, None))
                films.append(AuditFinding(f"entry {entry.seq}, films", note=tried.films()))
        if entry.approved:
            checks.append((f"entry {entry.seq}, approvals", partial(_approvals, entry), None))
    with watch.bar(f"{task}: audit") as advance:
        for number, looked in enumerate(checks, start=1):
            found.append(_looked(*looked))
            advance(number, len(checks), {})
    found += films + _canary(task)
    found += _published(root, task)
    found += [_run(run_id, repair=repair) for run_id in registry.abandoned(task)]
    return [*found, _looked_on("signatures", partial(_signatures, task, entries))]


def _chains(task: str) -> tuple[list[AuditFinding], list[LedgerEntry]]:
    """Return a finding for each faulty link of the task's chains, and the valid entries of the ledger."""
    examined = registry.examined_ledger(task)
    found = [AuditFinding(f"ledger, entry {one.number}", one.fault) for one in examined if one.fault] or [
        AuditFinding("ledger")
    ]
    links = enumerate(registry.examined_approvals(task), start=1)
    found += [AuditFinding(f"approvals, entry {number}", fault) for number, (_, fault) in links if fault]
    attempts = chain.examined(f"{task}.attempts")
    found += [AuditFinding(f"attempts, entry {one.number}", one.fault) for one in attempts if one.fault]
    canaries = chain.examined(f"{task}.canary")
    found += [AuditFinding(f"canaries, link {one.number}", one.fault) for one in canaries if one.fault]
    return found, [one.entry for one in examined if one.entry is not None]


def _bereft(task: str) -> str:
    """Return ""; raise RegistryError where the registry has a champion without a ledger entry."""
    registry.refuse_without_ledger(task)
    return ""


def _canary(task: str) -> list[AuditFinding]:
    """Return a finding on the canary of the champion: failed and not rolled back, or a note on how far it is."""
    try:
        _, held = registry.released(task)
        canary = registry.Canaries(task).of(held) if held else None
    except VqbetError:  # the checks of the chains say so
        return []
    if held is None or canary is None:
        return []
    said = f"entry {held.seq}: {canary.sentence()}"
    if canary.outcome:
        return [AuditFinding("canary", f"{said}; it is still champion: vqbet canary {task} rolls it back")]
    return [AuditFinding("canary", note=said)]


def _published(root: Path, task: str) -> list[AuditFinding]:
    """Return findings on whether the chains still contain every published end."""
    try:
        faults, count = publication.compared(root, task)
    except VqbetError as error:
        return [AuditFinding("published", str(error))]
    if faults:
        return [AuditFinding(f"published, {number}", fault) for number, fault in enumerate(faults, start=1)]
    nowhere = "nothing is published outside: entries that are removed or written anew with their hashes are not noticed"
    return [AuditFinding("published", note="" if count else nowhere)]


def _signatures(task: str, entries: Sequence[LedgerEntry]) -> str:
    """Return a sentence where the ledger may have an untrusted author, "" where every entry is signed."""
    unsigned = registry.signers(task, entries).count(registry.UNSIGNED)
    trust, hint = signing.current(), signing.note()
    if trust is None:
        said = "unsigned: no committed trust file says whose key to trust, see vqbet keys --help"
        return f"{said}; {hint}" if hint else said
    said = f"{unsigned} of {len(entries)} entries are unsigned, from before {trust.where} was adopted"
    return "; ".join(filter(None, [said if unsigned else "", hint]))


def _looked_on(what: str, look: Callable[[], str]) -> AuditFinding:
    """Return a finding with a note; its only fault is an error while the note is made."""
    try:
        return AuditFinding(what, note=look())
    except VqbetError as error:
        return AuditFinding(what, str(error))


def _looked(what: str, check: Callable[[], str], mend: Callable[[], str] | None = None) -> AuditFinding:
    wrong = _said(check)
    if not wrong or mend is None:
        return AuditFinding(what, wrong)
    try:
        return AuditFinding(what, wrong, mend())
    except VqbetError as error:
        refusal = str(error)
        return AuditFinding(what, wrong if refusal == wrong else f"{wrong}; cannot be repaired: {refusal}")


def _said(check: Callable[[], str]) -> str:
    try:
        return check()
    except VqbetError as error:  # becomes a finding, so that it does not hide the next one
        return str(error)


def _moved(task: str) -> Callable[[], str]:
    def mend() -> str:
        entry = registry.repair(task)
        return f"moved to version {entry.version}" if entry else "another process was faster"

    return mend


def _bundle(task: str, version: int, digest: str) -> str:
    """Check the registry's files of a former or present champion byte by byte; return the fault, or ""."""
    registered = release.unchanged(task, version)
    if registered.digest != digest:
        return f"the ledger says digest {digest[:12]}, the registry {registered.digest[:12]}: the version was replaced"
    return ""


def _evidence(root: Path, entry: LedgerEntry) -> str:
    """Check that a promotion's evidence exists, is unchanged and names its two policies; return the fault, or ""."""
    _, verdict = verdicts.found(root, entry.evidence)
    about = (verdict.outcome, verdict.candidate, verdict.champion)
    if about != ("PROMOTE", entry.digest, entry.previous_digest):
        return f"verdict {entry.evidence[:12]} says {verdict.outcome} about other policies than this entry"
    return ""


def _approvals(entry: LedgerEntry) -> str:
    names = set(entry.approved.split(", "))
    missing = sorted(names - registry.approved_then(entry.task, entry.evidence, entry.when))
    return f"there is no approval by {', '.join(missing)} that held then" if missing else ""


def _run(run_id: str, *, repair: bool) -> AuditFinding:
    wrong = "says RUNNING, and the process that wrote it is gone"
    if repair:
        registry.end(run_id)
    return AuditFinding(f"run {run_id[:12]}", wrong, "ended as KILLED" if repair else "")
