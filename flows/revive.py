"""Revival of a crashed run, which an automation starts: it is scheduled again, since every stage resumes exactly.

A process that was killed says nothing. The server misses its heartbeats, calls the run Crashed, and starts this flow
(`flows.automations`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import OrchestrationResult
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Running

from flows import notices
from flows.notices import HOOKS
from vqbet.contract import PipelineError

RESOURCE = "prefect.flow-run."
HEARTBEAT = f"{RESOURCE}heartbeat"
WAITS_S = (30, 300, 900)  # before the second try, the third and the fourth


@flow(name="revive", flow_run_name="revive {run}", persist_result=True, result_serializer="json", **HOOKS)
def revive(run: str, waits_s: list[int] = list(WAITS_S)) -> str:  # noqa: B006  # shown on Prefect's pages, never changed
    """Schedule a crashed run again, later after each crash; return a sentence. run: its id, or the event's resource.

    A run that has sent a heartbeat since is at work, behind a server that was away: it is called Running again. After
    len(waits_s) revivals the run stays Crashed. Raises PipelineError where Prefect refuses.
    """
    with get_client(sync_client=True) as client:
        try:
            found = client.read_flow_run(UUID(run.removeprefix(RESOURCE)))
        except ObjectNotFound:
            return f"run {run} was deleted"
        return _revived(client, found, waits_s)


def _revived(client: SyncPrefectClient, run: FlowRun, waits_s: list[int]) -> str:
    named = f"{client.read_flow(run.flow_id).name}, run {run.name}"
    if run.state is None or not run.state.is_crashed():
        return f"{named}: is {run.state_name} meanwhile"
    if _beats(client, run, run.state.timestamp):
        _set(client, run, Running(message="sends heartbeats: its server was away, not its process"), force=True)
        return f"{named}: is at work"
    crashes = sum(state.type == StateType.CRASHED for state in client.read_flow_run_states(run.id))
    said, task = f"{named}: {run.state.name}: {run.state.message}", str(run.parameters.get("task_name", ""))
    if crashes > len(waits_s):
        said = f"{said}; crashed {crashes} times and is not run again"
    else:
        when = datetime.now(UTC) + timedelta(seconds=waits_s[crashes - 1])
        _set(client, run, AwaitingRetry(scheduled_time=when, message=said))
        said = f"{said}; runs again at {when:%H:%M:%S} UTC, try {crashes + 1} of {len(waits_s) + 1}"
    notices.crashed(task, said, str(run.id))
    return said


def _beats(client: SyncPrefectClient, run: FlowRun, since: datetime) -> bool:
    """Return whether the run has sent a heartbeat since then."""
    asked = EventFilter(
        occurred=EventOccurredFilter.model_validate({"since": since}),
        event=EventNameFilter(name=[HEARTBEAT]),
        resource=EventResourceFilter(id=[f"{RESOURCE}{run.id}"]),
    )
    return bool(client.read_events(asked, limit=1).events)


def _set(client: SyncPrefectClient, run: FlowRun, state: object, *, force: bool = False) -> None:
    answer: OrchestrationResult[None] = client.set_flow_run_state(run.id, state, force=force)  # type: ignore[arg-type]
    if answer.state is None or answer.status.value != "ACCEPT":
        raise PipelineError(f"run {run.name} stays {run.state_name}: {answer.details}")
