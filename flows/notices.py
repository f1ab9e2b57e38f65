"""Notices that flows give of themselves to whoever $VQBET_NOTIFY names: a failed run, a verdict, a wait, drift.

Each notice of a process that runs flows, that of a champion which moved included, is an event of Prefect too, on which
automations of a team can hang: `vqbet.champion-moved`, `vqbet.verdict`, `vqbet.waits`, `vqbet.drift`, `vqbet.failed`.
Its resource is `vqbet.task.<task>`, its payload the notice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event
from prefect.flows import Flow
from prefect.settings import PREFECT_API_URL

from vqbet.commands import notices

log = logging.getLogger(__name__)


def failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Give notice of a run that failed or crashed.

    Prefect calls it as a hook of flows. A worker passes the arguments by name, so their names must stay.
    """
    task, said = str(flow_run.parameters.get("task_name", "")), f"{state.name}: {state.message}"
    _given(notices.FAILED, task, f"{flow.name}, run {flow_run.name}: {said}", run=str(flow_run.id))


def not_promoted(task_name: str, result: dict[str, Any]) -> None:
    """Give notice of a gate that has judged now and of a policy that is not champion after it."""
    said = result.get("promote", {})
    if result["gate"]["ran"] and said.get("promoted") == "no":
        event = notices.JUDGED if "verdict" in said else notices.WAITS
        _given(event, task_name, f"{task_name}: not promoted: {said['why']}", verdict=str(said.get("verdict", "")))


def waits(task_name: str, sentence: str) -> None:
    """Give notice of a promotion that is suspended."""
    _given(notices.WAITS, task_name, sentence)


def drifted(task_name: str, found: dict[str, Any]) -> None:
    """Give notice of demonstrations that differ from the champion's by more than a threshold."""
    if found["exceeded"]:
        _given(notices.DRIFTED, task_name, str(found["conclusion"]))


def crashed(task_name: str, sentence: str, run: str) -> None:
    """Give notice of a run that crashed, and of what becomes of it."""
    _given(notices.FAILED, task_name, sentence, run=run)


def emit(notice: Mapping[str, str]) -> None:
    """Make an event of Prefect of a notice, where there is a server; Prefect would start one for it."""
    if not PREFECT_API_URL.value():
        return
    name, task = f"vqbet.{notice['event'].replace(' ', '-')}", notice["task"]
    resource = {"prefect.resource.id": f"vqbet.task.{task}", "prefect.resource.name": task}
    emit_event(name, resource, payload=dict(notice))


def _given(event: str, task_name: str, sentence: str, **facts: str) -> None:
    for said in notices.tell(event, task_name, sentence, **facts).values():
        log.warning("%s", said)


HOOKS: dict[str, Any] = {"on_failure": [failed], "on_crashed": [failed]}  # of every flow that a team schedules
if emit not in notices.LISTENERS:
    notices.LISTENERS.append(emit)
