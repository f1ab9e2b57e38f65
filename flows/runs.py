"""Unfinished flow runs of the team's Prefect server, for `vqbet status`."""

from __future__ import annotations

import os

from vqbet.commands.status import FlowRun
from vqbet.contract import PipelineError

MOST = 12  # runs that are returned
ANSWER_S = 3.0


def unfinished() -> list[FlowRun]:
    """Return the newest unfinished flow runs. Raises PipelineError where no server of PREFECT_API_URL answers."""
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        raise PipelineError("no team's Prefect server here (PREFECT_API_URL is not set)")
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.exceptions import PrefectException

    unfinished = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.PAUSED])
    place = address.removesuffix("/api").rstrip("/")
    try:
        with get_client(sync_client=True, httpx_settings={"timeout": ANSWER_S}) as client:
            found = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=unfinished)),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
                limit=MOST,
            )
            flows = {run.flow_id: client.read_flow(run.flow_id).name for run in found}
    except (PrefectException, httpx.HTTPError, OSError, RuntimeError) as error:
        raise PipelineError(f"{place} does not answer: {error or type(error).__name__}") from error
    return [
        FlowRun(
            run.name,
            flows[run.flow_id],
            run.state_name or "unknown",
            f"{run.state.timestamp:%Y-%m-%dT%H:%M:%SZ}" if run.state else "",
            f"{place}/runs/flow-run/{run.id}",
        )
        for run in found
    ]
