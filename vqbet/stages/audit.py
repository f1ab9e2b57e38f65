"""Do ledger, registry, evidence and bundles tell the same story? And what a crash left half done, is finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vqbet import registry
from vqbet.contract import VqbetError
from vqbet.registry import LedgerEntry
from vqbet.stages import evidence, release
from vqbet.stages.watch import Watch


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `wrong`: empty where it is as it should be; `mended`: what was done about it."""

    what: str
    wrong: str = ""
    mended: str = ""

    @property
    def open(self) -> bool:
        return bool(self.wrong and not self.mended)


def run(root: Path, task: str, watch: Watch, *, repair: bool) -> list[Finding]:
    """Look at everything that a promotion of `task` rests on; with `repair`, also finish what was left half done.

    Content that was changed cannot be repaired, only found: it is restored from a copy, or the champion rolled back.
    Raises RegistryError where the registry does not answer.
    """
    registry.check()
    entries: list[LedgerEntry] = []

    def ledger() -> str:
        entries.extend(registry.history(task))
        return ""

    found = [_looked("ledger", ledger)]
    if found[0].open:
        return found
    found.append(_looked(f"{task}@champion", lambda: registry.amiss(task), _moved(task) if repair else None))
    checks: list[tuple[str, Callable[[], str]]] = []
    digests = {entry.version: entry.digest for entry in entries}
    for version, digest in sorted(digests.items()):
        checks.append((f"{task}/{version}", partial(_bundle, task, version, digest)))
    for entry in entries:
        if entry.action == "promote":
            checks.append((f"entry {entry.seq}, evidence", partial(_evidence, root, entry)))
        if entry.approved:
            checks.append((f"entry {entry.seq}, approvals", partial(_approvals, entry)))
    with watch.bar(f"{task}: audit") as advance:
        for number, (what, check) in enumerate(checks, start=1):
            found.append(_looked(what, check))
            advance(number, len(checks), {})
    return found + [_run(run_id, repair=repair) for run_id in registry.abandoned(task)]


def _looked(what: str, check: Callable[[], str], mend: Callable[[], str] | None = None) -> Finding:
    try:
        wrong = check()
        return Finding(what, wrong, mend() if wrong and mend else "")
    except VqbetError as error:  # is what is looked for: one finding must not hide the next
        return Finding(what, str(error))


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
    _, verdict = evidence.found(root, entry.evidence)
    about = (verdict.outcome, verdict.candidate, verdict.champion)
    if about != ("PROMOTE", entry.digest, entry.previous_digest):
        return f"verdict {entry.evidence[:12]} says {verdict.outcome} about other policies than this entry"
    return ""


def _approvals(entry: LedgerEntry) -> str:
    names = set(entry.approved.split(", "))
    missing = sorted(names - registry.approved_then(entry.task, entry.evidence, entry.when))
    return f"there is no approval by {', '.join(missing)} that held then" if missing else ""


def _run(run_id: str, *, repair: bool) -> Finding:
    wrong = "says RUNNING, and the process that wrote it is gone"
    if repair:
        registry.end(run_id)
    return Finding(f"run {run_id[:12]}", wrong, "ended as KILLED" if repair else "")
