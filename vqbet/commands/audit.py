"""Do ledger, registry, evidence and bundles tell the same story? And what a crash left half done, is finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vqbet import registry, signing
from vqbet.commands import publication, release
from vqbet.contract import VqbetError
from vqbet.registry import LedgerEntry, chain
from vqbet.stages import kept, verdicts
from vqbet.stages.progress import Watch


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One thing that was looked at. `wrong`: empty where it is as it should be; `mended`: what was done about it.

    note: what is to be known about it although it is not wrong.
    """

    what: str
    wrong: str = ""
    mended: str = ""
    note: str = ""

    @property
    def open(self) -> bool:
        return bool(self.wrong and not self.mended)


def run(root: Path, task: str, watch: Watch, *, repair: bool) -> list[AuditFinding]:
    """Look at everything that a promotion of `task` rests on; with `repair`, also finish what was left half done.

    Files of a champion that the registry has lost or holds changed are put back where the artefacts or DVC's cache have
    the bundle of that digest. Other content that was changed is only found: restore a copy, or roll the champion back.
    Every malformed link is a finding of its own, and hides no other. Raises RegistryError where the registry or the
    journal does not answer.
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
    for entry in entries:
        if entry.action == "promote":
            checks.append((f"entry {entry.seq}, evidence", partial(_evidence, root, entry), None))
        if entry.approved:
            checks.append((f"entry {entry.seq}, approvals", partial(_approvals, entry), None))
    with watch.bar(f"{task}: audit") as advance:
        for number, looked in enumerate(checks, start=1):
            found.append(_looked(*looked))
            advance(number, len(checks), {})
    found += _published(root, task)
    found += [_run(run_id, repair=repair) for run_id in registry.abandoned(task)]
    return [*found, _looked_on("signatures", partial(_signatures, task, entries))]


def _chains(task: str) -> tuple[list[AuditFinding], list[LedgerEntry]]:
    """What is wrong with the links of the task's chains, one finding each, and the entries of the ledger that hold."""
    examined = registry.examined_ledger(task)
    found = [AuditFinding(f"ledger, entry {one.number}", one.fault) for one in examined if one.fault] or [
        AuditFinding("ledger")
    ]
    links = enumerate(registry.examined_approvals(task), start=1)
    found += [AuditFinding(f"approvals, entry {number}", fault) for number, (_, fault) in links if fault]
    attempts = chain.examined(f"{task}.attempts")
    found += [AuditFinding(f"attempts, entry {one.number}", one.fault) for one in attempts if one.fault]
    return found, [one.entry for one in examined if one.entry is not None]


def _bereft(task: str) -> str:
    """Return nothing; raise RegistryError where the registry knows a champion that no ledger explains."""
    registry.refuse_without_ledger(task)
    return ""


def _published(root: Path, task: str) -> list[AuditFinding]:
    """Whether what was published outside still stands in the chains."""
    try:
        faults, count = publication.compared(root, task)
    except VqbetError as error:
        return [AuditFinding("published", str(error))]
    if faults:
        return [AuditFinding(f"published, {number}", fault) for number, fault in enumerate(faults, start=1)]
    nowhere = "nothing is published outside: entries that are removed or written anew with their hashes are not noticed"
    return [AuditFinding("published", note="" if count else nowhere)]


def _signatures(task: str, entries: Sequence[LedgerEntry]) -> str:
    """A sentence where somebody could have written the ledger who was not to be trusted; empty where nobody could."""
    unsigned = registry.signers(task, entries).count(registry.UNSIGNED)
    trust, hint = signing.current(), signing.note()
    if trust is None:
        said = "unsigned: no committed trust file says whose key to trust, see vqbet keys --help"
        return f"{said}; {hint}" if hint else said
    said = f"{unsigned} of {len(entries)} entries are unsigned, from before {trust.where} was adopted"
    return "; ".join(filter(None, [said if unsigned else "", hint]))


def _looked_on(what: str, look: Callable[[], str]) -> AuditFinding:
    """A finding that is a note, and wrong only where it cannot be had."""
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
    except VqbetError as error:  # is what is looked for: one finding must not hide the next
        return str(error)


def _moved(task: str) -> Callable[[], str]:
    def mend() -> str:
        entry = registry.repair(task)
        return f"moved to version {entry.version}" if entry else "another process was faster"

    return mend


def _bundle(task: str, version: int, digest: str) -> str:
    """The registry's files of a version that was champion once, byte by byte."""
    registered = release.unchanged(task, version)
    if registered.digest != digest:
        return f"the ledger says digest {digest[:12]}, the registry {registered.digest[:12]}: the version was replaced"
    return ""


def _evidence(root: Path, entry: LedgerEntry) -> str:
    """What a promotion was allowed by: there, unchanged, and about these two policies."""
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
