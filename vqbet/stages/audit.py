"""Do ledger, registry, evidence and bundles tell the same story? And what a crash left half done, is finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vqbet import registry
from vqbet.contract import VqbetError
from vqbet.registry import LedgerEntry
from vqbet.stages import evidence, kept, release
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

    Files of a champion that the registry has lost or holds changed are put back where the artefacts or DVC's cache have
    the bundle of that digest. Other content that was changed is only found: restore a copy, or roll the champion back.
    Raises RegistryError where the registry does not answer.
    """
    registry.check()
    entries: list[LedgerEntry] = []

    def ledger() -> str:
        entries.extend(registry.history(task))
        if not entries:
            registry.refuse_without_ledger(task)
        return ""

    found = [_looked("ledger", ledger)]
    if found[0].open:
        return found
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
    return found + [_run(run_id, repair=repair) for run_id in registry.abandoned(task)]


def _looked(what: str, check: Callable[[], str], mend: Callable[[], str] | None = None) -> Finding:
    wrong = _said(check)
    if not wrong or mend is None:
        return Finding(what, wrong)
    try:
        return Finding(what, wrong, mend())
    except VqbetError as error:
        refusal = str(error)
        return Finding(what, wrong if refusal == wrong else f"{wrong}; cannot be repaired: {refusal}")


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
