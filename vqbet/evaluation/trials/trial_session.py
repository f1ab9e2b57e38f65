"""A session of trials as a state machine over its log: what is next, and what may be done now.

    ready -> armed -> running -> stopped -> ready ...      closed: decided, complete, or ended by the operator

The state is what the events say, so a session goes on after a crash where its log ends. Every change carries a key,
chosen by who asks for it; asked twice, it happens once. A change that does not fit the state raises GateError, and
nothing is written. Nothing here names an arm except `arm` of the present trial, for the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

from vqbet.contract import GateError
from vqbet.evaluation.trials.blinding import Blinding, Slot
from vqbet.evaluation.trials.trial_log import TrialEvent, TrialLog
from vqbet.evaluation.trials.trial_plan import Condition, TrialPlan
from vqbet.files import reading

MOST_REMARK = 500  # characters
Phase = Literal["ready", "armed", "running", "stopped", "paused", "closed"]
By = Literal["operator", "robot", "timeout", "guard", "lost"]
# Says whether the session goes on after this number of complete pairs; unblinds inside, and says nothing else.
Interim = Callable[[Sequence[TrialEvent], int], bool]


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial: a slot, and how often the slot was invalid before. state: of this trial; event: its last outcome."""

    slot: Slot
    repeat: int
    code: str
    state: Literal["planned", "armed", "running", "stopped", "graded", "invalid"] = "planned"
    stage: str = ""
    tag: str = ""
    remark: str = ""
    reason: str = ""  # why it is invalid
    armed: TrialEvent | None = None
    stopped: TrialEvent | None = None
    outcome: TrialEvent | None = None  # graded or invalid


@dataclass(frozen=True, slots=True)
class Progress:
    """Trials of a log in the order in which they were run, by code, and what follows from the events."""

    trials: Mapping[str, Trial]
    paused: bool
    looked: int  # pairs at the last look
    goes_on: bool
    closed: str  # why; "" while open
    operators: tuple[str, ...]


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
        if (now := self.now) is not None and now.state in ("armed", "running", "stopped"):
            return now.state
        return "paused" if self.progress.paused else "ready"

    @property
    def now(self) -> Trial | None:
        """The trial that is armed, running or waits for its outcome; else the next one; None where there is none."""
        for trial in self.progress.trials.values():
            if trial.state in ("armed", "running", "stopped"):
                return trial
        return upcoming(self.blinding, self.progress.trials)

    @property
    def last(self) -> Trial | None:
        """The trial whose outcome can be taken back: the last one, until the next begins or a look was made."""
        events = [event for event in self.log.events if event.kind not in ("paused", "resumed", "opened")]
        if not events or events[-1].kind not in ("graded", "invalid"):
            return None
        return self.progress.trials[events[-1]["trial"]]

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
        armed anew, as after a restart of the server. Raises GateError in another phase.
        """
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
        if self._known(key):
            return
        self._expect(code, "armed", "begin")
        self._write("started", key, trial=code)

    def stop(self, key: str, code: str, *, by: By, operator: str = "", report: Mapping[str, Any] | None = None) -> None:
        """Note the end of a trial. report: steps, duration_s, holds, interventions and recording {number, digest} from
        the robot; None where the robot is gone, and then the trial can only be declared invalid."""
        if self._known(key):
            return
        self._expect(code, "running", "stop")
        empty = {"steps": 0, "duration_s": 0.0, "holds": 0, "interventions": 0, "recording": None}
        self._write("stopped", key, trial=code, operator=operator, by=by, **{**empty, **(report or {})})

    def grade(self, key: str, code: str, *, operator: str, stage: str, tag: str = "", remark: str = "") -> None:
        """Enter the outcome of a trial: the furthest stage of the rubric, and for a failure a tag, if one fits."""
        if self._known(key):
            return
        trial = self._expect(code, "stopped", "enter an outcome")
        assert trial.stopped is not None
        if trial.stopped["recording"] is None:
            raise GateError(
                f"trial {code}: the robot has not said how it ended, so there is no recording of it; declare it invalid"
            )
        grade = self.plan.grade(stage)
        if tag and (tag not in self.plan.tags or grade.credit == 1):
            raise GateError(f"tag: expected one of {', '.join(self.plan.tags)} for a failure, got {reading.short(tag)}")
        self._write("graded", key, trial=code, operator=operator, stage=stage, tag=tag, remark=_remark(remark))

    def invalidate(self, key: str, code: str, *, operator: str, reason: str, remark: str = "") -> None:
        """Declare a trial invalid that has no outcome yet; it is repeated at the end of its block, under a new code."""
        if self._known(key):
            return
        trial = self._at(code)
        if trial.state not in ("armed", "running", "stopped"):
            raise GateError(
                f"trial {code}: is {trial.state}; a trial is declared invalid before its outcome is entered: take the "
                "outcome back first"
            )
        if reason not in self.plan.invalid:
            raise GateError(
                f"reason: expected one of {', '.join(self.plan.invalid)}, as the plan says, got {reading.short(reason)}"
            )
        self._write("invalid", key, trial=code, operator=operator, reason=reason, remark=_remark(remark))

    def undo(self, key: str, code: str, *, operator: str) -> None:
        """Take the last outcome back, of the trial of this code. Raises GateError once another trial was begun."""
        if self._known(key):
            return
        last = self.last
        if last is None or last.code != code or last.outcome is None:
            raise GateError(f"trial {code}: its outcome stands: only the last one can be taken back, before the next")
        self._write("undone", key, trial=code, operator=operator, event=last.outcome.seq)

    def pause(self, key: str, *, operator: str) -> None:
        """Pause between two trials."""
        if self._known(key):
            return
        if self.phase != "ready":
            raise GateError(self._not_now("pause"))
        self._write("paused", key, operator=operator)

    def resume(self, key: str, *, operator: str) -> None:
        if self._known(key):
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
        pairs = self.pairs
        if pairs in self.plan.judged.looks and pairs > self.progress.looked:
            self._write("looked", f"look {pairs}", pairs=pairs, go_on=self._interim(self.log.events, pairs))
        if not self.progress.goes_on:
            self._write("closed", "closed", operator="", why="decided")
        elif upcoming(self.blinding, self.progress.trials) is None:
            self._write("closed", "closed", operator="", why="complete")
        return not self.progress.closed

    def close(self, key: str, *, operator: str) -> None:
        """End the session early. Complete pairs up to the last look count."""
        if self.progress.closed or self._known(key):
            return
        if self.phase not in ("ready", "paused"):
            raise GateError(self._not_now("end the session"))
        if self.settle():
            self._write("closed", key, operator=operator, why="ended by the operator")

    # --- inside ------------------------------------------------------------------------------------------------------

    def _write(self, kind: str, key: str, **said: Any) -> None:
        self.log.append(kind, key, **said)
        self.progress = progress(self.plan, self.blinding, self.log.events)

    def _known(self, key: str) -> bool:
        return any(event.key == key for event in self.log.events)

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


def progress(plan: TrialPlan, blinding: Blinding, events: Sequence[TrialEvent]) -> Progress:
    """Return what a log says. Raises GateError where events do not follow from the plan and from one another."""
    trials: dict[str, Trial] = {}
    paused, looked, goes_on, closed = False, 0, True, ""
    operators: list[str] = []
    for event in events:
        where = f"event {event.seq}, {event.kind}"
        if closed:
            raise GateError(f"{where}: the session was closed before it")
        if event.kind == "opened":
            if (event["plan"], event["robot"]) != (plan.sha256, plan.robot):
                raise GateError(
                    f"{where}: of plan {str(event['plan'])[:12]}, this is {plan.sha256[:12]}; do not mix them"
                )
            operators.append(event["operator"])
        elif event.kind in ("paused", "resumed"):
            paused = event.kind == "paused"
        elif event.kind == "looked":
            looked, goes_on = event["pairs"], event["go_on"]
        elif event.kind == "closed":
            closed = event["why"]
        elif event.kind == "armed":
            trials[event["trial"]] = _armed(blinding, trials, event, where)
        else:
            trials[event["trial"]] = _next(trials.get(event["trial"]), event, where)
    return Progress(trials, paused, looked, goes_on, closed, tuple(dict.fromkeys(operators)))


def _armed(blinding: Blinding, trials: Mapping[str, Trial], event: TrialEvent, where: str) -> Trial:
    before = trials.get(event["trial"])
    if before is not None and before.state == "armed":
        return replace(before, armed=event)
    wanted = upcoming(blinding, trials)
    busy = any(trial.state in ("armed", "running", "stopped") for trial in trials.values())
    if busy or wanted is None or event["trial"] != wanted.code:
        raise GateError(f"{where}: trial {event['trial']} was not the next one of this plan")
    return replace(wanted, state="armed", armed=event)


def _next(trial: Trial | None, event: TrialEvent, where: str) -> Trial:
    allowed = {
        "started": ("armed",),
        "stopped": ("running",),
        "graded": ("stopped",),
        "invalid": ("armed", "running", "stopped"),
        "undone": ("graded", "invalid"),
    }[event.kind]
    if trial is None or trial.state not in allowed:
        raise GateError(f"{where}: trial {event['trial']} is {trial.state if trial else 'unknown'} there")
    if event.kind == "started":
        return replace(trial, state="running")
    if event.kind == "stopped":
        return replace(trial, state="stopped", stopped=event)
    if event.kind == "graded":
        told = {name: event[name] for name in ("stage", "tag", "remark")}
        return replace(trial, state="graded", outcome=event, **told)
    if event.kind == "invalid":
        return replace(trial, state="invalid", outcome=event, reason=event["reason"], remark=event["remark"])
    blank = replace(trial, stage="", tag="", remark="", reason="", outcome=None)
    return replace(blank, state="stopped" if trial.stopped else "armed")


def upcoming(blinding: Blinding, trials: Mapping[str, Trial]) -> Trial | None:
    """Return the next trial to be armed: the first open slot of the first open block, invalid ones at its end."""
    repeats: dict[int, int] = {}
    settled: set[int] = set()
    for trial in trials.values():
        if trial.state == "invalid":
            repeats[trial.slot.number] = max(repeats.get(trial.slot.number, 0), trial.repeat + 1)
        elif trial.state != "planned":
            settled.add(trial.slot.number)
    still = [slot for slot in blinding.slots if slot.number not in settled]
    if not still:
        return None
    block = [slot for slot in still if slot.block == still[0].block]
    slot = min(block, key=lambda slot: (repeats.get(slot.number, 0), slot.number))
    repeat = repeats.get(slot.number, 0)
    return Trial(slot, repeat, blinding.code(slot.number, repeat))


def complete(plan: TrialPlan, blinding: Blinding, trials: Mapping[str, Trial]) -> int:
    """Return the number of complete pairs in whole blocks from the first block on."""
    graded = {trial.slot.number for trial in trials.values() if trial.state == "graded"}
    pairs = 0
    for first in range(0, plan.pairs, plan.block):
        block = first // plan.block
        if any(slot.block == block and slot.number not in graded for slot in blinding.slots):
            return pairs
        pairs = first + plan.block
    return pairs


def _remark(text: str) -> str:
    if len(text) > MOST_REMARK:
        raise GateError(f"remark: expected at most {MOST_REMARK} characters, got {len(text)}")
    return text
