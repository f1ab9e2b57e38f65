"""From a promotion's robot records to the robot's recordings: each that counted, byte by byte, and its film."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqbet.contract import GateError, ServingError, VqbetError
from vqbet.evaluation import records
from vqbet.evaluation.trials import judging, trial_proofs
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.registry import LedgerEntry
from vqbet.serving import recordings
from vqbet.stages import verdicts
from vqbet.stages.paths import Paths


def fault(root: Path, entry: LedgerEntry) -> str:
    """Return what is wrong with the recordings behind a promotion; "" where all are here as they were judged.

    A promotion without robot trials has none. Recordings that are kept elsewhere are no fault: the evidence holds their
    manifests.
    """
    try:
        counted = _counted(root, entry)
    except VqbetError:  # the check of the evidence says so
        return ""
    there = _home(root, entry, counted)
    if there is None:
        return ""
    for row in counted["trials"]:
        if row["counts"] and (said := _wrong(there, row)):
            return f"trial {row['code']}, recording {row['recording']['number']}: {said}"
    return ""


def films(root: Path, entry: LedgerEntry) -> str:
    """Return a sentence on where the recordings and films of a promotion's robot trials are; "" without trials."""
    try:
        counted = _counted(root, entry)
    except VqbetError:  # the check of the evidence says so
        return ""
    if not counted:
        return ""
    there, page = _home(root, entry, counted), _session(root, entry, counted).path / "page" / "index.html"
    kept = f"recordings in {there}" if there else "recordings are not on this machine, the evidence has their manifests"
    return f"{kept}; films on {page}" if page.is_file() else kept


def _wrong(there: Path, row: Mapping[str, Any]) -> str:
    try:
        found = recordings.read(there, row["recording"]["number"])
        if found.digest != row["recording"]["digest"]:
            return f"has the digest {found.digest[:12]}, {row['recording']['digest'][:12]} was judged"
        found.verify()
    except ServingError as error:
        return str(error)
    return ""


def _counted(root: Path, entry: LedgerEntry) -> dict[str, Any]:
    """Return the summary of the trials behind a promotion; empty where it rests on simulations alone."""
    folder, _ = verdicts.found(root, entry.evidence)
    path = folder / judging.TRIALS / judging.SUMMARY
    if not path.is_file():
        return {}
    said = records.parse(records.load(path), str(path))
    if not isinstance(said, dict):
        raise GateError(f"{path}: expected an object, got {type(said).__name__}")
    return said


def _session(root: Path, entry: LedgerEntry, counted: Mapping[str, Any]) -> TrialFolder:
    return TrialFolder(Paths(root, entry.task).trials(counted["plan"]))


def _home(root: Path, entry: LedgerEntry, counted: Mapping[str, Any]) -> Path | None:
    """Return the folder of the session's recordings where they are on this machine."""
    if not counted:
        return None
    there = _session(root, entry, counted).recordings
    return there if there.is_dir() and trial_proofs.recordings(there) else None
