"""View of a session for its operator, without any arm, slot or policy, and without a count by any of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqbet.evaluation.trials.trial_session import Trial, TrialSession


def of(session: TrialSession, *, operator: str, stopping: str, robot: Mapping[str, Any], server: str) -> dict[str, Any]:
    """Return the state of a session as JSON. stopping: trial that the robot was told to end. server: what is wrong
    with the policy server; "" for nothing."""
    plan, now, condition = session.plan, session.now, session.condition
    blocks = -(-plan.pairs // plan.block)
    return {
        "task": plan.task,
        "plan": plan.sha256[:12],
        "phase": session.phase,
        "trial": "" if now is None else now.code,
        "condition": {
            "name": condition.name if condition else "",
            "text": condition.text if condition else "",
            "picture": condition.picture if condition else "",
        },
        "done": session.done,
        "most": plan.trials,
        "block": blocks if now is None else now.slot.block + 1,
        "blocks": blocks,
        "stages": [grade.name for grade in plan.rubric],
        "tags": list(plan.tags),
        "invalid": list(plan.invalid),
        "timeout_s": plan.timeout_s,
        "stopping": bool(stopping) and now is not None and stopping == now.code,
        "ended": _ended(now),
        "last": _last(None if given_up(session) else session.last),
        "closed": session.progress.closed,
        "operator": operator,
        "robot": dict(robot),
        "server": server,
    }


def given_up(session: TrialSession) -> bool:
    """Return whether the last outcome is of a trial that was declared invalid before the robot had ended it.

    The robot has moved in it and has told of no end, so that it can neither begin again nor be graded.
    """
    last = session.last
    if last is None or last.state != "invalid" or last.stopped is not None:
        return False
    return any(event.kind == "started" and event["trial"] == last.code for event in session.log.events)


def _ended(now: Trial | None) -> dict[str, Any]:
    """Return how the present trial ended, and whether an outcome can be entered."""
    if now is None or now.stopped is None:
        return {"by": "", "duration_s": 0.0, "counts": False}
    said = now.stopped
    whole = said["recording"] is not None and said["steps"] >= 1 and said["by"] != "lost"
    return {"by": said["by"], "duration_s": round(float(said["duration_s"]), 1), "counts": whole}


def _last(last: Trial | None) -> dict[str, str]:
    """Return the trial whose outcome can be taken back; its code is "" where there is none."""
    if last is None:
        return {"trial": "", "state": "", "what": ""}
    return {"trial": last.code, "state": last.state, "what": last.stage if last.state == "graded" else last.reason}
