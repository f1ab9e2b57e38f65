"""The folder of a session, and of the same files in a verdict's evidence.

plan.json        the locked plan           salt         hexadecimal; secret until unblinding
session.jsonl    the log                   pictures/    <sha256>.png, of initial conditions
recordings/      by number; in evidence their two documents only
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vqbet.contract import GateError
from vqbet.evaluation import records
from vqbet.evaluation.trials import trial_log
from vqbet.evaluation.trials.blinding import Blinding
from vqbet.evaluation.trials.trial_log import TrialEvent
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.evaluation.trials.trial_progress import Progress, progress
from vqbet.files import canonical, manifest, reading

SALT_LETTERS = 64


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """Paths of a session's files."""

    path: Path

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def salt(self) -> Path:
        return self.path / "salt"

    @property
    def log(self) -> Path:
        return self.path / "session.jsonl"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def recordings(self) -> Path:
        return self.path / "recordings"

    def keep(self, plan: TrialPlan, salt: bytes) -> None:
        """Write plan and salt; the salt is readable by this user only. Raises GateError where one is there already."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with open(os.open(self.salt, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
                file.write(salt.hex() + "\n")
        except OSError as error:
            raise GateError(f"{self.salt}: cannot be written: {error.strerror}") from error
        plan.write(self.plan)

    def blinding(self, plan: TrialPlan) -> Blinding:
        """Return the blinding of the salt in the folder. Raises GateError where it is not the plan's."""
        if not self.salt.exists():
            raise GateError(
                f"{self.salt}: is missing, and without it nobody can tell which policy acted; bring it back"
            )
        text = reading.load(self.salt, GateError, most=SALT_LETTERS + 2).strip()
        with reading.sentences(str(self.salt), GateError, "bring the original salt back"):
            return Blinding(plan, bytes.fromhex(text))

    def read(self) -> OpenedFolder:
        """Return plan, blinding and log, each checked against the others. Raises GateError naming what was changed."""
        plan = TrialPlan.read(self.plan)
        if canonical.document(plan.to_json()) != records.load(self.plan):
            raise GateError(f"{self.plan}: is not as it was written; a plan is never edited once it is locked")
        self._expect_pictures(plan)
        blinding, events = self.blinding(plan), trial_log.read(self.log)
        try:
            return OpenedFolder(plan, blinding, tuple(events), progress(plan, blinding, events))
        except GateError as error:
            raise GateError(f"{self.log}: {error}") from error

    def _expect_pictures(self, plan: TrialPlan) -> None:
        for condition in plan.conditions:
            path = self.pictures / f"{condition.picture}.png"
            if condition.picture and (not path.is_file() or manifest.sha256(path) != condition.picture):
                raise GateError(f"{path}: is missing or was changed: the plan names this picture of {condition.name!r}")


@dataclass(frozen=True, slots=True)
class OpenedFolder:
    """Content of a session's folder, unblinded."""

    plan: TrialPlan
    blinding: Blinding
    events: tuple[TrialEvent, ...]
    progress: Progress
