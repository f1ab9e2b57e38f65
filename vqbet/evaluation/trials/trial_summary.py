"""Summary of a session after unblinding: everything that its page shows, as JSON, derived from the log alone.

version, task, robot, plan (sha256), after (evidence of the simulated verdict, or ""), question, metric, margin
opened, closed     UTC of the first and of the last event;  why: decided, complete, ended by the operator
arms               {arm: digest}
operators, users   names, in order of appearance
rubric             [{name, credit}], ascending;  conditions: [{name, text, picture}] by number
trials             in the order in which they were run, each
                   {number (1..), code, slot, block, pair, seed, condition (name), arm, repeat,
                    state: graded | invalid | armed | running | stopped, counts (in the verdict),
                    stage, credit (None unless graded), tag, remark, reason (of an invalid one), operator,
                    by (who ended it), steps, duration_s, holds, interventions,
                    recording: {number, digest} | None, armed, outcome (seq of events | None), when}
looks              [{pairs, name, state, value, low, high, limit, outcome: "goes on" | "decided"}]
stages             {arm: {stage: trials that count}};  tags: {arm: {tag: trials that count}}
invalid            {arm: {reason: trials}};  invalid_share, invalid_p (Fisher, of the arms' difference)
voiding, irregular sentences: why there is no verdict; what stands beside it
cost               {robot_minutes, session_minutes, trials_spent, trials_counted, trials_invalid,
                    trials_needed (of this plan or of a new one, those spent included; None: unknown),
                    <names of `costs`, such as gpu_hours>}
fused              {estimate, low, high, weight, measured, predicted_others} | None, and why not: fused_note
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from vqbet.evaluation.gate import DIGITS, Verdict
from vqbet.evaluation.trials import irregular
from vqbet.evaluation.trials.trial_folder import OpenedFolder
from vqbet.evaluation.trials.trial_progress import Trial
from vqbet.evaluation.trials.trial_proofs import TrialRecording
from vqbet.evaluation.trials.trial_records import seed_of

VERSION = 1
REPORTED = ("by", "steps", "duration_s", "holds", "interventions", "recording")


def summary(opened: OpenedFolder, verdict: Verdict, recordings: Mapping[int, TrialRecording]) -> dict[str, Any]:
    """Return the summary but for its costs and fused estimate."""
    plan, events, progress = opened.plan, opened.events, opened.progress
    rows = [_trial(opened, number, trial) for number, trial in enumerate(progress.trials.values(), start=1)]
    counted = [row for row in rows if row["counts"]]
    wrong = [row for row in rows if row["state"] == "invalid"]
    return {
        "version": VERSION,
        "task": plan.task,
        "robot": plan.robot,
        "plan": plan.sha256,
        "after": plan.after,
        "question": plan.judged.question,
        "metric": plan.judged.metric,
        "margin": plan.judged.margin,
        "opened": events[0].when,
        "closed": events[-1].when,
        "why": progress.closed,
        "arms": plan.arms,
        "operators": list(progress.operators),
        "users": list(dict.fromkeys(event["user"] for event in events if event.kind == "opened")),
        "rubric": [asdict(grade) for grade in plan.rubric],
        "conditions": [asdict(condition) for condition in plan.conditions],
        "trials": rows,
        "looks": _looks(opened, verdict),
        "stages": {arm: dict(Counter(row["stage"] for row in counted if row["arm"] == arm)) for arm in plan.arms},
        "tags": {
            arm: dict(Counter(row["tag"] for row in counted if row["arm"] == arm and row["tag"])) for arm in plan.arms
        },
        "invalid": {arm: dict(Counter(row["reason"] for row in wrong if row["arm"] == arm)) for arm in plan.arms},
        "invalid_share": round(len(wrong) / max(len(rows), 1), DIGITS),
        "invalid_p": round(irregular.unequal(opened), DIGITS),
        "voiding": irregular.voiding(opened, recordings),
        "irregular": irregular.beside(opened, recordings),
    }


def cost(opened: OpenedFolder, verdict: Verdict, costs: Mapping[str, float]) -> dict[str, float | None]:
    """Return what the session has cost, and the trials that a decision needs. costs: further ones, by name."""
    trials, arms = opened.progress.trials.values(), len(opened.plan.arms)
    ran = [event["duration_s"] for event in opened.events if event.kind == "stopped"]
    spent = _seconds(opened.events[-1].when) - _seconds(opened.events[0].when)
    counted = opened.progress.looked * arms
    more = verdict.more_episodes * arms
    known = verdict.outcome in ("PROMOTE", "REJECT") or more > 0
    return {
        **{name: round(float(value), DIGITS) for name, value in sorted(costs.items())},
        "robot_minutes": round(sum(ran) / 60, DIGITS),
        "session_minutes": round(spent / 60, DIGITS),
        "trials_spent": len(trials),
        "trials_counted": counted,
        "trials_invalid": sum(trial.state == "invalid" for trial in trials),
        "trials_needed": counted + more if known else None,
    }


def _trial(opened: OpenedFolder, number: int, trial: Trial) -> dict[str, Any]:
    plan, slot, outcome = opened.plan, trial.slot, trial.outcome
    graded = trial.state == "graded"
    assert trial.armed is not None
    return {
        "number": number,
        "code": trial.code,
        **{name: getattr(slot, name) for name in ("block", "pair", "arm")},
        "slot": slot.number,
        "seed": seed_of(plan, slot.pair),
        "condition": plan.condition(slot.pair).name,
        "repeat": trial.repeat,
        "state": trial.state,
        "counts": graded and slot.pair < opened.progress.looked,
        **{name: getattr(trial, name) for name in ("stage", "tag", "remark", "reason")},
        "credit": plan.grade(trial.stage).credit if graded else None,
        "operator": "" if outcome is None else outcome["operator"],
        **{name: None if trial.stopped is None else trial.stopped[name] for name in REPORTED},
        "armed": trial.armed.seq,
        "outcome": None if outcome is None else outcome.seq,
        "when": trial.armed.when,
    }


def _looks(opened: OpenedFolder, verdict: Verdict) -> list[dict[str, Any]]:
    looked = [event for event in opened.events if event.kind == "looked"]
    return [
        {
            "pairs": event["pairs"],
            **{name: getattr(check, name) for name in ("name", "state", "value", "low", "high", "limit")},
            "outcome": "goes on" if event["go_on"] else "decided",
        }
        for event, check in zip(looked, verdict.looked, strict=bool(verdict.looked))
    ]


def _seconds(when: str) -> float:
    return datetime.fromisoformat(when).timestamp()
