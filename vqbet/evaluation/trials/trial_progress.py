"""Progress of a session, derived from its log event by event, each checked against the plan and those before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from vqbet.contract import GateError
from vqbet.evaluation.trials.blinding import Blinding, Slot
from vqbet.evaluation.trials.trial_log import TrialEvent
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.files import reading

UNSETTLED = ("armed", "running", "stopped")


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

    @property
    def place(self) -> tuple[str, int, int]:
        """Code, slot and repeat, as the log names them."""
        return self.code, self.slot.number, self.repeat


@dataclass(frozen=True, slots=True)
class Progress:
    """Trials of a log in the order in which they were run, by code, and what follows from the events."""

    trials: Mapping[str, Trial] = field(default_factory=dict)
    paused: bool = False
    looked: int = 0  # pairs at the last look
    goes_on: bool = True
    closed: str = ""  # why; "" while open
    operators: tuple[str, ...] = ()
    last: str = ""  # code of the trial whose outcome can be taken back; "" for none


def progress(plan: TrialPlan, blinding: Blinding, events: Sequence[TrialEvent]) -> Progress:
    """Return what a log says. Raises GateError where events do not follow from the plan and from one another."""
    found = Progress()
    for event in events:
        found = advanced(plan, blinding, found, event)
    return found


def advanced(plan: TrialPlan, blinding: Blinding, before: Progress, event: TrialEvent) -> Progress:
    """Return the progress after one more event. Raises GateError where the event cannot follow."""
    where = f"event {event.seq}, {event.kind}"
    if before.closed:
        raise GateError(f"{where}: the session was closed before it")
    if event.kind == "opened":
        if (event["plan"], event["robot"]) != (plan.sha256, plan.robot):
            raise GateError(f"{where}: of plan {str(event['plan'])[:12]}, this is {plan.sha256[:12]}; do not mix them")
        return replace(before, operators=tuple(dict.fromkeys((*before.operators, event["operator"]))))
    if not before.operators:
        raise GateError(f"{where}: nobody has opened the session before it; say who runs it")
    if event.kind in ("paused", "resumed"):
        return replace(before, paused=event.kind == "paused")
    if event.kind == "looked":
        if event["pairs"] != due(plan, blinding, before):
            raise GateError(f"{where}: no look is due after {event['pairs']} complete pairs")
        return replace(before, looked=event["pairs"], goes_on=event["go_on"], last="")
    if event.kind == "closed":
        if due(plan, blinding, before):
            raise GateError(f"{where}: a look was due before it")
        return replace(before, closed=event["why"], last="")
    trial = _armed(plan, blinding, before, event) if event.kind == "armed" else _next(plan, before, event)
    last = trial.code if event.kind in ("graded", "invalid") else ""
    return replace(before, trials={**before.trials, trial.code: trial}, last=last)


def due(plan: TrialPlan, blinding: Blinding, now: Progress) -> int:
    """Return the complete pairs at which a look is to be made before the next trial; 0 where none is due."""
    pairs = complete(plan, blinding, now.trials)
    return pairs if pairs in plan.judged.looks and pairs > now.looked else 0


def _armed(plan: TrialPlan, blinding: Blinding, now: Progress, event: TrialEvent) -> Trial:
    where = f"event {event.seq}, armed"
    before = now.trials.get(event["trial"])
    wanted = upcoming(blinding, now.trials)
    busy = any(trial.state in UNSETTLED for trial in now.trials.values())
    if before is not None and before.state == "armed":
        wanted, busy = before, False
    if busy or wanted is None or (event["trial"], event["slot"], event["repeat"]) != wanted.place:
        raise GateError(f"{where}: trial {event['trial']} was not the next one of this plan")
    if now.paused or not now.goes_on or due(plan, blinding, now):
        raise GateError(f"{where}: no trial may begin while the session is paused, decided, or waits for a look")
    return replace(wanted, state="armed", armed=event)


def _next(plan: TrialPlan, now: Progress, event: TrialEvent) -> Trial:
    where = f"event {event.seq}, {event.kind}"
    trial = now.trials.get(event["trial"])
    allowed = {
        "started": ("armed",),
        "stopped": ("running",),
        "graded": ("stopped",),
        "invalid": UNSETTLED,
        "undone": ("graded", "invalid"),
    }[event.kind]
    if trial is None or trial.state not in allowed:
        raise GateError(f"{where}: trial {event['trial']} is {trial.state if trial else 'unknown'} there")
    if event.kind == "started":
        return replace(trial, state="running")
    if event.kind == "stopped":
        return replace(trial, state="stopped", stopped=event)
    if event.kind == "graded":
        expect_outcome(plan, trial, event["stage"], event["tag"])
        told = {name: event[name] for name in ("stage", "tag", "remark")}
        return replace(trial, state="graded", outcome=event, **told)
    if event.kind == "invalid":
        expect_reason(plan, event["reason"])
        return replace(trial, state="invalid", outcome=event, reason=event["reason"], remark=event["remark"])
    if trial.code != now.last or trial.outcome is None or event["event"] != trial.outcome.seq:
        raise GateError(f"{where}: trial {trial.code}: its outcome stood already")
    blank = replace(trial, stage="", tag="", remark="", reason="", outcome=None)
    return replace(blank, state="stopped" if trial.stopped else "armed")


def expect_outcome(plan: TrialPlan, trial: Trial, stage: str, tag: str) -> None:
    """Raise GateError unless the plan has the stage and tag, and the robot has said how the trial ended."""
    if trial.stopped is None or trial.stopped["recording"] is None:
        raise GateError(
            f"trial {trial.code}: the robot has not said how it ended, so there is no recording of it; declare it "
            "invalid"
        )
    if trial.stopped["by"] == "lost":
        raise GateError(
            f"trial {trial.code}: the connection was lost, which says nothing of the policy; declare it invalid"
        )
    if trial.stopped["steps"] < 1:
        raise GateError(f"trial {trial.code}: the robot has made no step; declare it invalid")
    grade = plan.grade(stage)
    if tag and (tag not in plan.tags or grade.credit == 1):
        raise GateError(f"tag: expected one of {', '.join(plan.tags)} for a failure, got {reading.short(tag)}")


def expect_reason(plan: TrialPlan, reason: str) -> None:
    """Raise GateError unless the plan has this reason for an invalid trial."""
    if reason not in plan.invalid:
        raise GateError(
            f"reason: expected one of {', '.join(plan.invalid)}, as the plan says, got {reading.short(reason)}"
        )


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
    still = next((slot for slot in blinding.slots if slot.number not in graded), None)
    return plan.pairs if still is None else still.block * plan.block
