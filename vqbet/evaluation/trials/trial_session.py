"""A session of trials as a state machine over its log: what is next, and what may be done now.

    ready -> armed -> running -> stopped -> ready ...      closed: decided, complete, or ended by the operator

The state is what the events say, so a session goes on after a crash where its log ends. Every change carries a key,
chosen by who asks for it; asked twice, it happens once. A change that does not fit the state raises GateError, and
nothing is written. Nothing here names an arm except `arm` of the present trial, for the server.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

from vqbet.contract import GateError
from vqbet.evaluation.trials.blinding import Blinding
from vqbet.evaluation.trials.trial_log import TrialEvent, TrialLog
from vqbet.evaluation.trials.trial_plan import Condition, TrialPlan
from vqbet.evaluation.trials.trial_progress import (
    UNSETTLED,
    Progress,
    Trial,
    advanced,
    complete,
    due,
    expect_outcome,
    expect_reason,
    progress,
    upcoming,
)
from vqbet.files import reading
from vqbet.files.manifest import SHA256

__all__ = ["By", "Interim", "Phase", "Progress", "Trial", "TrialSession", "complete", "progress"]
MOST_REMARK = 500  # characters
Phase = Literal["ready", "armed", "running", "stopped", "paused", "closed"]
By = Literal["operator", "robot", "timeout", "guard", "lost"]
# Says whether the session goes on after this number of complete pairs; unblinds inside, and says nothing else.
Interim = Callable[[Sequence[TrialEvent], int], bool]


@final
class TrialSession:
    """A session: its plan, its blinding, its log, and the interim look of its gate.

    Raises GateError where the log is of another plan or robot.
    """

    def __init__(self, plan: TrialPlan, blinding: Blinding, log: TrialLog, interim: Interim) -> None:
        self.plan, self.blinding, self.log, self._interim = plan, blinding, log, interim
        self.progress = progress(plan, blinding, log.events)

    # --- state -------------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        if self.progress.closed:
            return "closed"
        if (now := self.now) is not None and now.state in UNSETTLED:
            return now.state  # type: ignore[return-value]
        return "paused" if self.progress.paused else "ready"

    @property
    def now(self) -> Trial | None:
        """The trial that is armed, running or waits for its outcome; else the next one; None where there is none."""
        for trial in self.progress.trials.values():
            if trial.state in UNSETTLED:
                return trial
        return upcoming(self.blinding, self.progress.trials)

    @property
    def last(self) -> Trial | None:
        """The trial whose outcome can be taken back: the last one, until the next begins or a look was made."""
        return self.progress.trials.get(self.progress.last)

    @property
    def condition(self) -> Condition | None:
        return None if self.now is None else self.plan.condition(self.now.slot.pair)

    @property
    def done(self) -> int:
        """The number of valid trials so far."""
        return sum(trial.state == "graded" for trial in self.progress.trials.values())

    @property
    def pairs(self) -> int:
        """The number of complete pairs, in whole blocks."""
        return complete(self.plan, self.blinding, self.progress.trials)

    # --- changes -----------------------------------------------------------------------------------------------------

    def open(self, key: str, *, operator: str, user: str) -> None:
        """Note who runs the session from now on. user: of the operating system, who cannot be somebody else."""
        if not operator.strip() or len(operator) > 100 or not operator.isprintable():
            raise GateError(f"operator: expected a name of at most 100 letters, got {reading.short(operator)}")
        self._write("opened", key, plan=self.plan.sha256, operator=operator, robot=self.plan.robot, user=user)

    def arm(self, key: str, prove: Callable[[Trial], Mapping[str, Any]]) -> Trial:
        """Arm the next trial, with the server's proof: nonce, statement and signature. Makes a look that is due first.

        prove: asks the server, and raises where it refuses; nothing is written then. A trial that is armed already is
        armed anew under another key, as after a restart of the server. Raises GateError in another phase.
        """
        if (known := self._known(key)) is not None:
            return self._at(known["trial"])
        if self.phase not in ("ready", "armed"):
            raise GateError(self._not_now("start a trial"))
        if self.phase == "ready" and not self.settle():
            raise GateError(f"the session is over: {self.progress.closed}; no trial is left to start")
        trial = self.now
        assert trial is not None
        proof = prove(trial)
        said = {"slot": trial.slot.number, "repeat": trial.repeat, **proof}
        self._write("armed", key, trial=trial.code, **said)
        return self._at(trial.code)

    def start(self, key: str, code: str) -> None:
        """Note that the robot has begun the trial of this code."""
        if self._known(key) is not None:
            return
        self._expect(code, "armed", "begin")
        self._write("started", key, trial=code)

    def stop(self, key: str, code: str, *, by: By, operator: str = "", report: Mapping[str, Any] | None = None) -> None:
        """Note the end of a trial. report: steps, duration_s, holds, interventions and recording {number, digest} from
        the robot; None where the robot is gone, and then the trial can only be declared invalid."""
        if self._known(key) is not None:
            return
        self._expect(code, "running", "stop")
        empty = {"steps": 0, "duration_s": 0.0, "holds": 0, "interventions": 0, "recording": None}
        said = {**empty, **(report or {})}
        _expect_report(said)
        self._write("stopped", key, trial=code, operator=operator, by=by, **said)

    def grade(self, key: str, code: str, *, operator: str, stage: str, tag: str = "", remark: str = "") -> None:
        """Enter the outcome of a trial: the furthest stage of the rubric, and for a failure a tag, if one fits."""
        if self._known(key) is not None:
            return
        expect_outcome(self.plan, self._expect(code, "stopped", "enter an outcome"), stage, tag)
        self._write("graded", key, trial=code, operator=operator, stage=stage, tag=tag, remark=_remark(remark))

    def invalidate(self, key: str, code: str, *, operator: str, reason: str, remark: str = "") -> None:
        """Declare a trial invalid that has no outcome yet; it is repeated at the end of its block, under a new code."""
        if self._known(key) is not None:
            return
        trial = self._at(code)
        if trial.state not in UNSETTLED:
            raise GateError(
                f"trial {code}: is {trial.state}; a trial is declared invalid before its outcome is entered: take the "
                "outcome back first"
            )
        expect_reason(self.plan, reason)
        self._write("invalid", key, trial=code, operator=operator, reason=reason, remark=_remark(remark))

    def undo(self, key: str, code: str, *, operator: str) -> None:
        """Take the last outcome back, of the trial of this code. Raises GateError once another trial was begun."""
        if self._known(key) is not None:
            return
        last = self.last
        if last is None or last.code != code or last.outcome is None:
            raise GateError(f"trial {code}: its outcome stands: only the last one can be taken back, before the next")
        self._write("undone", key, trial=code, operator=operator, event=last.outcome.seq)

    def pause(self, key: str, *, operator: str) -> None:
        """Pause between two trials."""
        if self._known(key) is not None:
            return
        if self.phase != "ready":
            raise GateError(self._not_now("pause"))
        self._write("paused", key, operator=operator)

    def resume(self, key: str, *, operator: str) -> None:
        if self._known(key) is not None:
            return
        if self.phase != "paused":
            raise GateError(self._not_now("resume"))
        self._write("resumed", key, operator=operator)

    def settle(self) -> bool:
        """Make the look that is due, if any, and return whether the session goes on. Outcomes before it stand."""
        if self.progress.closed:
            return False
        if self.phase not in ("ready", "paused"):
            return True
        if pairs := due(self.plan, self.blinding, self.progress):
            self._write("looked", f"look {pairs}", pairs=pairs, go_on=self._interim(self.log.events, pairs))
        if not self.progress.goes_on:
            self._write("closed", "closed", operator="", why="decided")
        elif upcoming(self.blinding, self.progress.trials) is None:
            self._write("closed", "closed", operator="", why="complete")
        return not self.progress.closed

    def close(self, key: str, *, operator: str) -> None:
        """End the session early. Complete pairs up to the last look count."""
        if self.progress.closed or self._known(key) is not None:
            return
        if self.phase not in ("ready", "paused"):
            raise GateError(self._not_now("end the session"))
        if self.settle():
            self._write("closed", key, operator=operator, why="ended by the operator")

    # --- inside ------------------------------------------------------------------------------------------------------

    def _write(self, kind: str, key: str, **said: Any) -> None:
        if self._known(key) is not None:
            return
        self._advanced(TrialEvent(len(self.log.events) + 1, kind, key, "", said, ""))  # raises before it is written
        self.progress = self._advanced(self.log.append(kind, key, **said))

    def _advanced(self, event: TrialEvent) -> Progress:
        return advanced(self.plan, self.blinding, self.progress, event)

    def _known(self, key: str) -> TrialEvent | None:
        return self.log.known(key)

    def _at(self, code: str) -> Trial:
        trial = self.progress.trials.get(code)
        if trial is None:
            raise GateError(f"trial {reading.short(code)}: was not started in this session")
        return trial

    def _expect(self, code: str, state: str, what: str) -> Trial:
        trial = self._at(code)
        if trial.state != state:
            raise GateError(f"trial {code}: is {trial.state}, so nobody can {what} now; the page shows what is next")
        return trial

    def _not_now(self, what: str) -> str:
        return f"the session is {self.phase}, so nobody can {what} now"


def _expect_report(report: Mapping[str, Any]) -> None:
    """Raise GateError unless a robot's report of a trial has its numbers and, where there is one, its recording."""
    wrong = [name for name in ("steps", "holds", "interventions") if not _count(report[name])]
    if type(report["duration_s"]) not in (int, float) or not 0 <= report["duration_s"] < math.inf:
        wrong.append("duration_s")
    said = report["recording"]
    if said is not None:
        whole = isinstance(said, Mapping) and said.keys() == {"number", "digest"} and _count(said["number"])
        if not whole or not isinstance(said["digest"], str) or not SHA256.fullmatch(said["digest"]):
            wrong.append("recording")
    if wrong:
        raise GateError(
            f"{', '.join(wrong)}: expected counts, seconds, and number and sha256 of a recording, got "
            f"{reading.short({name: report[name] for name in wrong})}"
        )


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _remark(text: str) -> str:
    if len(text) > MOST_REMARK:
        raise GateError(f"remark: expected at most {MOST_REMARK} characters, got {len(text)}")
    return text
