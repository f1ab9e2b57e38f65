"""Sessions of robot trials without a robot: a server key that signs, a recorder that records, outcomes as given."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support.point import POINT
from tests.support.recording import handshake, record
from vqbet.evaluation.plan import Plan, Slice, spec_sha256
from vqbet.evaluation.trials.blinding import Blinding, committed
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.evaluation.trials.trial_log import TrialLog
from vqbet.evaluation.trials.trial_plan import Condition, Grade, TrialPlan
from vqbet.evaluation.trials.trial_records import interim
from vqbet.evaluation.trials.trial_session import Trial, TrialSession
from vqbet.files import canonical
from vqbet.serving import recordings
from vqbet.serving.recorder import Recorder
from vqbet.signing.keys import Key
from vqbet.signing.statements import Statement

SALT = bytes(range(32))
STEPS = 3
OPERATOR = "Ada"
Outcome = Callable[[Trial], str]  # -> a stage of the rubric, or "" for an invalid trial


def key() -> Key:
    """Return a server's key, the same each time."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Key("server", base64.b64encode(public).decode(), private)


def judged(**fields: Any) -> Plan:
    """Return the gate's plan of a session of 4, 8 or 12 pairs."""
    made = Plan(
        task="point",
        world="robot:arm 1",
        spec=spec_sha256(POINT),
        candidate="c" * 64,
        champion="d" * 64,
        machine="arm 1",
        first_seed=1000,
        looks=(4, 8, 12),
        reserved={},
        slices=(Slice("all", 1.0),),
        metric="success",
        question="not_worse",
        stopping="group_sequential",
        margin=0.4,
        alpha=0.2,
        power=0.8,
        floor=0.1,
        min_modes=0,
        baselines=(),
    )
    return replace(made, **fields)


def planned(**fields: Any) -> TrialPlan:
    """Return a plan of trials. fields: of the plan; `judged` may be a mapping of the fields of the gate's plan."""
    asked = fields.pop("judged", {})
    made = TrialPlan(
        judged=asked if isinstance(asked, Plan) else judged(**asked),
        robot="arm 1",
        conditions=(Condition("left", "block to the left"), Condition("right"), Condition("far")),
        block=2,
        rubric=(Grade("nothing", 0.0), Grade("touched", 0.5), Grade("done", 1.0)),
        tags=("dropped", "missed"),
        invalid=("robot fault", "wrong condition"),
        most_invalid=0.4,
        timeout_s=60.0,
        salt=committed(SALT),
        server_key=key().public,
    )
    return replace(made, **fields)


@dataclass
class Bench:
    """A session in a folder, with its server and its robot's recorder. operator: who enters and is recorded."""

    folder: Path
    plan: TrialPlan = field(default_factory=planned)
    operator: str = OPERATOR
    count: int = 0

    def __post_init__(self) -> None:
        self.paths = TrialFolder(self.folder)
        if not self.paths.plan.exists():
            self.paths.keep(self.plan, SALT)
        self.blinding = Blinding(self.plan, SALT)
        self.reopen()
        if not self.session.progress.operators:
            self.session.open("open", operator=self.operator, user="ada")

    def reopen(self) -> None:
        """Start anew over the same log, as after a crash of the desk."""
        if hasattr(self, "session"):
            self.session.log.close()
        look = interim(self.plan, self.blinding)
        self.session = TrialSession(self.plan, self.blinding, TrialLog(self.paths.log), look)

    def prove(self, trial: Trial) -> dict[str, Any]:
        self.count += 1
        nonce = f"{len(self.session.log.events)}-{self.count}"
        return proof(self.plan, self.blinding, trial, nonce=nonce)

    def key(self) -> str:
        """Return a key that was not used before."""
        self.count += 1
        return f"{len(self.session.log.events)}/{self.count}"

    def record(self, trial: Trial, **fields: Any) -> dict[str, Any]:
        """Record the episode of a trial and return the robot's report. fields: of the recording that are wrong."""
        said = {
            "robot": self.plan.robot,
            "operator": self.operator,
            "session": f"trial {trial.code}",
            "digest": self.blinding.commitment(trial.code, self.plan.arms[trial.slot.arm]),
            "seed": self.plan.judged.first_seed + trial.slot.pair,
            **fields,
        }
        made = replace(handshake(), digest=said.pop("digest"))
        seed = said.pop("seed")
        folder = record(Recorder(self.paths.recordings, made, **said), seed=seed, steps=STEPS, success=None)
        number = int(folder.name)
        return {
            "steps": STEPS,
            "duration_s": 1.5,
            "holds": 0,
            "interventions": 0,
            "recording": {"number": number, "digest": recordings.digest(self.paths.recordings, number)},
        }

    def run(self, **recorded: Any) -> Trial:
        """Arm, start and stop the next trial."""
        trial = self.session.arm(self.key(), self.prove)
        self.session.start(self.key(), trial.code)
        self.session.stop(self.key(), trial.code, by="robot", report=self.record(trial, **recorded))
        return trial

    def enter(self, trial: Trial, stage: str) -> None:
        """Enter an outcome; "" for an invalid trial."""
        if stage:
            tag = "" if stage == "done" else "dropped"
            self.session.grade(self.key(), trial.code, operator=self.operator, stage=stage, tag=tag)
        else:
            self.session.invalidate(self.key(), trial.code, operator=self.operator, reason="robot fault")

    def play(self, outcome: Outcome, *, most: int = 10_000) -> None:
        """Run trials until the session is over, or `most` of them."""
        for _ in range(most):
            if not self.session.settle():
                return
            trial = self.run()
            self.enter(trial, outcome(trial))


def proof(
    plan: TrialPlan, blinding: Blinding, trial: Trial, *, nonce: str, wrong: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return what a server says of a trial. wrong: fields of its statement."""
    commitment = blinding.commitment(trial.code, plan.arms[trial.slot.arm])
    said = {"plan": plan.sha256, "trial": trial.code, "robot": plan.robot, "nonce": nonce, "commitment": commitment}
    statement = Statement(**{**said, "when": "2026-01-01T00:00:00+00:00", **(wrong or {})})
    return {"nonce": nonce, "statement": statement.to_json(), "signature": key().sign(statement.content())}


def rewrite(log: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Change the lines of a log and compute its chain anew, as somebody would who knows how it is made."""
    before, lines = "", []
    for number, said in enumerate(change([json.loads(line) for line in log.read_text().splitlines()]), start=1):
        made: dict[str, Any] = {**{name: value for name, value in said.items() if name != "hash"}, "seq": number}
        made["prev"] = before
        before = made["hash"] = canonical.digest(made, ascii=False)
        lines.append(canonical.line(made, ascii=False) + "\n")
    log.write_text("".join(lines))


def by_arm(stages: Mapping[str, str]) -> Outcome:
    """Return outcomes that the arm alone determines."""
    return lambda trial: stages[trial.slot.arm]
