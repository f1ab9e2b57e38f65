"""Worker of a pool: Prefect's own, with a keeper that schedules runs again whose process on this machine has died.

A flow run, or a worker with its runs, may be killed at any moment: out of memory, a machine that restarts, kill -9.
Prefect then shows the run as Crashed, or for ever as Running or Pending. The keeper knows better: every run of
`vqbet.team.run` holds a lock for as long as it lives. A run of this worker that holds none is scheduled again and finds
its clone, with every finished stage and the last checkpoint of a training.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectException
from prefect.logging import get_logger
from prefect.states import AwaitingRetry, Crashed

LOOK_S = 10.0  # between two looks
GRACE_S = 30.0  # for which a run stays as it is before it is lost: its launcher must lock, a worker report a crash
TIMES = 12  # that one run is scheduled again; a run that dies more often needs a person
DELAY_S = 5.0  # before the second time; about twice as long before each further one
LONGEST_DELAY_S = 300.0
RECENT = timedelta(hours=12)  # a run that crashed earlier is left to a person
LABEL = "prefect.worker.name"
AGAIN = AwaitingRetry().name
KINDS = (StateType.RUNNING, StateType.PENDING, StateType.CRASHED)


class Keeper:
    """Finds the runs of one worker that have begun, have not ended well, and have no process on this machine.

    runs: folder of the clones and their locks. A run that Prefect has not yet given to a worker by name counts as this
    worker's, as its pool's worker may have died in between.
    """

    def __init__(self, pool: str, worker: str, runs: Path) -> None:
        self.pool, self.worker, self.runs = pool, worker, runs
        self._since: dict[UUID, datetime] = {}  # by state, which is another one after each transition

    def look(self, client: SyncPrefectClient, now: datetime) -> list[str]:
        """Schedule again the runs that have been without a process for GRACE_S; return a sentence about each."""
        without = {run.state.id: run for run in self._begun(client) if run.state and self._dead(run, now)}
        self._since = {state: self._since.get(state, now) for state in without}
        due = [without[state] for state, since in self._since.items() if now - since >= timedelta(seconds=GRACE_S)]
        return [said for run in due if (said := scheduled(client, run, now))]

    def _begun(self, client: SyncPrefectClient) -> list[FlowRun]:
        return client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[*KINDS]))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self.pool])),
            sort=FlowRunSort.START_TIME_DESC,
            limit=100,
        )

    def _dead(self, run: FlowRun, now: datetime) -> bool:
        state = run.state
        old = state is None or (state.is_crashed() and now - state.timestamp > RECENT)
        mine = run.labels.get(LABEL, self.worker) == self.worker
        return mine and not old and self._free(run)

    def _free(self, run: FlowRun) -> bool:
        """Return whether no process holds the run's lock; a run that goes on without ever a lock here is elsewhere."""
        try:
            with closing((self.runs / f"{run.id}.lock").open("rb")) as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return run.state is not None and not run.state.is_running()
        except BlockingIOError:
            return False
        return True


def scheduled(client: SyncPrefectClient, run: FlowRun, now: datetime) -> str:
    """Schedule a run again, later after each time; return a sentence.

    A run that has died more than TIMES times is left as Crashed, whatever Prefect knew of it: "" if it knew.
    """
    times = sum(state.name == AGAIN for state in client.read_flow_run_states(run.id))
    named = run.state.name if run.state else "no state"
    if times >= TIMES:
        if run.state is None or run.state.is_crashed():
            return ""
        said = f"its process died ({named}), as {times} times before; it is left to a person: prefect flow-run retry"
        client.set_flow_run_state(run.id, Crashed(message=said))
        return f"{run.name}: {said}"
    delay_s = min(DELAY_S * (2**times - 1), LONGEST_DELAY_S)
    said = f"its process died ({named}); scheduled again, {times + 1} of at most {TIMES} times"
    client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=now + timedelta(seconds=delay_s), message=said))
    return f"{run.name}: {said}, in {delay_s:.0f} s"


def keep(keeper: Keeper) -> None:
    """Look for lost runs until the process ends."""
    log = get_logger("vqbet.keeper")
    while True:
        time.sleep(LOOK_S)
        try:
            with get_client(sync_client=True) as client:
                for said in keeper.look(client, datetime.now(UTC)):
                    log.warning("%s", said)
        except (PrefectException, httpx.HTTPError, OSError, RuntimeError) as error:
            log.warning("Prefect's server does not answer: %s", error or type(error).__name__)


def main(pool: str, worker: str) -> None:
    """Run Prefect's command line of this process's arguments, with the keeper beside it."""
    keeper = Keeper(pool, worker, Path(os.environ["VQBET_RUNS"]))
    threading.Thread(target=keep, args=(keeper,), name="keeper", daemon=True).start()
    from prefect.cli import app

    app()


if __name__ == "__main__":
    arguments = dict(zip(sys.argv, sys.argv[1:], strict=False))
    main(arguments["--pool"], arguments["--name"])
