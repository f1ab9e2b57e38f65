"""Proofs of a trial: the server's signed statement of the policy that it served, and the robot's recording.

recordings/<number>/episode.json, manifest.json     of `serving.recordings`; here, what they prove of a trial
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqbet.contract import GateError
from vqbet.evaluation.trials.blinding import Blinding
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.evaluation.trials.trial_progress import Trial
from vqbet.evaluation.trials.trial_records import seed_of
from vqbet.files import manifest, reading
from vqbet.files.manifest import Files, Fingerprint
from vqbet.signing import keys
from vqbet.signing.statements import Statement, genuine

FACTS, MANIFEST = "episode.json", "manifest.json"
NUMBER = re.compile(r"\d{5,9}", re.ASCII)
SESSION = "trial "  # before a trial's code, the session of its recording
MOST_BYTES = 4 * 2**20
MEND = "bring the original recording back from the robot"


def expect_statement(plan: TrialPlan, blinding: Blinding, trial: Trial, said: Mapping[str, Any]) -> None:
    """Raise GateError unless the plan's server has signed that it serves the policy of this trial.

    said: nonce, statement (JSON) and signature, as the log holds them.
    """
    where = f"trial {trial.code}"
    with reading.sentences(f"{where}: statement of the server", GateError):
        statement = Statement.from_json(said["statement"])
    expected = {
        "plan": plan.sha256,
        "trial": trial.code,
        "robot": plan.robot,
        "nonce": said["nonce"],
        "commitment": blinding.commitment(trial.code, plan.arms[trial.slot.arm]),
    }
    wrong = [name for name, value in expected.items() if getattr(statement, name) != value]
    if wrong:
        raise GateError(
            f"{where}: the server's statement is not about this trial and its policy: {', '.join(wrong)} "
            f"{'differs' if len(wrong) == 1 else 'differ'}; serve the two policies of plan {plan.sha256[:12]}"
        )
    if not isinstance(said["signature"], str) or not genuine(keys.parse(plan.server_key), said["signature"], statement):
        raise GateError(f"{where}: the server's statement is not signed by the key that the plan names")


@dataclass(frozen=True, slots=True)
class TrialRecording:
    """The two documents of a recording. digest: sha256 of its manifest. commitment: to the policy that acted."""

    folder: Path
    digest: str
    commitment: str
    session: str
    robot: str
    operator: str
    seed: int
    steps: int
    files: Files

    @property
    def number(self) -> int:
        return int(self.folder.name)

    @property
    def code(self) -> str:
        """The code of its trial; "" for a recording outside of trials."""
        return self.session.removeprefix(SESSION) if self.session.startswith(SESSION) else ""

    def verify(self) -> None:
        """Raise GateError unless the folder holds the files that the manifest lists, in their bytes."""
        for name, entry in self.files.items():
            path = self.folder / name
            if not path.is_file() or path.stat().st_size != entry.size or manifest.sha256(path) != entry.sha256:
                raise GateError(f"{path}: is missing or was changed: it is not what {MANIFEST} lists; {MEND}")


def recording(folder: Path) -> TrialRecording:
    """Return a recording by its two documents. Raises GateError where there is none or a document was changed."""
    content = reading.content(folder / MANIFEST, GateError, most=MOST_BYTES, mend=MEND)
    where = str(folder / FACTS)
    with reading.sentences(str(folder), GateError, MEND):
        said = reading.parse(content.decode(), str(folder / MANIFEST), GateError)
        files = manifest.from_json(said["files"])
        told = reading.content(folder / FACTS, GateError, most=MOST_BYTES, mend=MEND)
        if Fingerprint.of(told) != files[FACTS]:
            raise GateError(f"{where}: was changed: its sha256 is not the one in {MANIFEST}; {MEND}")
        facts = reading.parse(told.decode(), where, GateError)
        return TrialRecording(
            folder=folder,
            digest=hashlib.sha256(content).hexdigest(),
            commitment=str(facts["digest"]),
            **{name: str(facts[name]) for name in ("session", "robot", "operator")},
            seed=int(facts["seed"]),
            steps=int(said["steps"]),
            files=files,
        )


def recordings(folder: Path) -> dict[int, TrialRecording]:
    """Return the readable recordings in a folder, by number; none where there is no folder."""
    found: dict[int, TrialRecording] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if NUMBER.fullmatch(path.name):
            try:
                found[int(path.name)] = recording(path)
            except GateError:  # of another session, or named by the log: then `expect_recording` says what is wrong
                continue
    return found


def expect_recording(
    plan: TrialPlan, blinding: Blinding, trial: Trial, operators: tuple[str, ...], folder: Path
) -> TrialRecording:
    """Return the recording of a trial that the log names.

    Raises GateError where it is missing or changed, or was made of another trial, policy, robot or operator.
    """
    assert trial.stopped is not None
    said = trial.stopped["recording"]
    found = recording(folder / f"{said['number']:05d}")
    where = f"trial {trial.code}: recording {said['number']}"
    if found.digest != said["digest"]:
        raise GateError(f"{where}: is another one than the log names ({said['digest'][:12]}); {MEND}")
    expected = {
        "session": f"{SESSION}{trial.code}",
        "commitment": blinding.commitment(trial.code, plan.arms[trial.slot.arm]),
        "robot": plan.robot,
        "seed": seed_of(plan, trial.slot.pair),
    }
    for name, value in expected.items():
        if getattr(found, name) != value:
            what = "policy" if name == "commitment" else name
            raise GateError(
                f"{where}: is of another {what} than the plan's: {reading.short(getattr(found, name))}, expected "
                f"{reading.short(value)}"
            )
    if found.operator not in operators:
        raise GateError(f"{where}: by operator {reading.short(found.operator)}, the session's are {operators}")
    return found
