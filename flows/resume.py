"""Resume flow, for a schedule or a person: suspended promotions go on once what they wait for is there.

A run whose wait has changed, but not ended, is resumed too: it says what is missing now, and is suspended again.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import FlowPauseTimeout, NotPausedError
from prefect.flow_runs import resume_flow_run

from flows import ROOT, clone
from flows.promote import PROJECT, promote
from vqbet.commands import waiting
from vqbet.contract import VqbetError

PAGE = 100  # runs per request


@flow(name="resume", persist_result=True, result_serializer="json")
def resume() -> dict[str, str]:
    """Resume this project's suspended promotions whose wait is over; return a row about each."""
    with get_client(sync_client=True) as client:
        runs = [run for run in _suspended(client) if run.labels.get(PROJECT) == clone.project()]
    return {f"{run.name} {str(run.id)[:8]}": resumed(run) for run in runs}


def _suspended(client: SyncPrefectClient) -> Iterator[FlowRun]:
    offset = 0
    named = FlowFilter(name=FlowFilterName(any_=[promote.name]))
    suspended = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Suspended"])))
    while found := client.read_flow_runs(
        flow_filter=named, flow_run_filter=suspended, sort=FlowRunSort.START_TIME_ASC, limit=PAGE, offset=offset
    ):
        yield from found
        offset += len(found)


def resumed(run: FlowRun) -> str:
    """Resume a run unless it still waits for the same; return a sentence on it."""
    given = inspect.signature(promote.fn).bind(**run.parameters)
    given.apply_defaults()
    task_name, candidate = given.arguments["task_name"], given.arguments["candidate"]
    clone.begin(task_name)
    try:
        awaited = waiting.missing(ROOT, task_name, candidate)
    except VqbetError as error:
        return f"still suspended, since what it waits for cannot be read: {error}"
    said = waiting.told(task_name, awaited)
    if awaited and run.state is not None and run.state.message == said:
        return said
    try:
        resume_flow_run(run.id)
    except (NotPausedError, FlowPauseTimeout, RuntimeError) as error:
        return f"not resumed: {error}"
    return f"resumed, to say what it waits for now: {said}" if awaited else "resumed"
