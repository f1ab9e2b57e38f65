"""Notices that flows give of themselves to whoever $VQBET_NOTIFY names: a failed run, a verdict, a wait, drift."""

from __future__ import annotations

import logging
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from vqbet.commands import notices

log = logging.getLogger(__name__)


def failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Give notice of a run that failed or crashed; a hook of flows, whose arguments a worker gives by these names."""
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


def _given(event: str, task_name: str, sentence: str, **facts: str) -> None:
    for said in notices.tell(event, task_name, sentence, **facts).values():
        log.warning("%s", said)


HOOKS: dict[str, Any] = {"on_failure": [failed], "on_crashed": [failed]}  # of every flow that a team schedules
