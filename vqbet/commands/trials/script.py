"""An operator that is a script, for rehearsals with the simulated robot: it grades by what the simulator has seen.

It goes through the same HTTP calls as the page and knows no more than the page, but for the simulated outcome.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from vqbet.commands.trials.desk_client import DeskClient, DeskRefusal
from vqbet.contract import GateError
from vqbet.evaluation.trials.trial_plan import Grade, TrialPlan

WAIT_S = 15.0
LOST_S = 20.0  # a robot that is gone for so long in a trial does not come back
AGAIN_S = 0.5  # before a change that the desk refused is tried again
PATIENCE_S = 120.0  # for robot and server to be there
REMARK = "entered by a script"
Advance = Callable[[int, int], None]


def run(plan: TrialPlan, client: DeskClient, advance: Advance, left: Callable[[], bool] = lambda: False) -> str:
    """Operate a session until it is closed, and return why it is. left: whether to leave it before.

    Raises GateError where robot or server do not come for a long time.
    """
    state, since_s, gone_s = client.state(), time.monotonic(), 0.0
    while not state["closed"] and not left():
        advance(state["done"], state["most"])
        if state["robot"]["present"] or state["phase"] != "running":
            gone_s = time.monotonic()
        before = (state["phase"], state["trial"])
        try:
            state = _moved(plan, client, state, lost=time.monotonic() - gone_s > LOST_S)
        except DeskRefusal as error:
            if time.monotonic() - since_s > PATIENCE_S:
                raise GateError(f"the script gives up after {PATIENCE_S:.0f} s: {error}") from error
            time.sleep(AGAIN_S)
            state = client.state()
        if (state["phase"], state["trial"]) != before:
            since_s = time.monotonic()
        elif time.monotonic() - since_s > PATIENCE_S + plan.timeout_s:
            raise GateError(f"the script gives up: nothing has happened for {PATIENCE_S:.0f} s; {_amiss(state)}")
    advance(state["done"], state["most"])
    return str(state["closed"])


def stage(rubric: Sequence[Grade], score: float, success: bool) -> str:
    """Return the furthest stage whose credit a simulated score reaches; the last one for a success only."""
    if success:
        return rubric[-1].name
    return [grade for grade in rubric[:-1] if grade.credit <= score + 1e-9][-1].name


def _moved(plan: TrialPlan, client: DeskClient, state: dict[str, Any], *, lost: bool) -> dict[str, Any]:
    """Do what is next, and return the state afterwards."""
    phase, code = state["phase"], state["trial"]
    if phase == "ready":
        return client.change("start", trial=code)
    if phase == "paused":
        return client.change("resume")
    if phase == "stopped":
        return _entered(plan, client, state)
    if phase == "running" and lost:
        return client.change("lost", trial=code)
    return client.state(state["version"], WAIT_S if phase == "armed" else 1.0)


def _entered(plan: TrialPlan, client: DeskClient, state: dict[str, Any]) -> dict[str, Any]:
    """Enter the outcome of a trial; one that cannot count, or whose outcome nobody knows, is invalid."""
    code, seen = state["trial"], client.seen(state["trial"])
    if not state["ended"]["counts"] or not seen:
        return client.change("invalid", trial=code, reason=plan.invalid[-1], remark=REMARK)
    reached = stage(plan.rubric, seen["score"], seen["success"])
    tags = ("", *plan.tags)
    tag = "" if reached == plan.rubric[-1].name else tags[zlib.crc32(code.encode()) % len(tags)]
    return client.change("grade", trial=code, stage=reached, tag=tag, remark=REMARK)


def _amiss(state: dict[str, Any]) -> str:
    if state["server"]:
        return str(state["server"])
    return "the robot is not there" if not state["robot"]["present"] else f"the session is {state['phase']}"
