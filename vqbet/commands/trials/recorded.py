"""From a promotion's robot records to the robot's recordings: each that counted, byte by byte, and its film."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class RobotTrials:
    """The robot trials behind a promotion. counted: their summary. home: their recordings on this machine, if any."""

    counted: Mapping[str, Any]
    page: Path
    home: Path | None

    def fault(self) -> str:
        """Return what is wrong with the recordings; "" where all are here as they were judged.

        Recordings that are kept elsewhere are no fault: the evidence holds their manifests.
        """
        if self.home is None:
            return ""
        for row in self.counted["trials"]:
            if row["counts"] and (said := _wrong(self.home, row)):
                return f"trial {row['code']}, recording {row['recording']['number']}: {said}"
        return ""

    def films(self) -> str:
        """Return a sentence on where the recordings and films are."""
        kept = "recordings are not in the session's folder, the evidence has their manifests"
        if self.home is not None:
            kept = f"recordings in {self.home}"
        return f"{kept}; films on {self.page}" if self.page.is_file() else kept


def behind(root: Path, entry: LedgerEntry) -> RobotTrials | None:
    """Return the robot trials behind a promotion; None where it rests on none, or where its evidence is not readable.

    The check of the evidence itself says why it is not.
    """
    try:
        counted = _counted(root, entry)
    except VqbetError:
        return None
    if not counted:
        return None
    session = TrialFolder(Paths(root, entry.task).trials(counted["plan"]))
    there = session.recordings.is_dir() and bool(trial_proofs.recordings(session.recordings))
    return RobotTrials(counted, session.path / "page" / "index.html", session.recordings if there else None)


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
