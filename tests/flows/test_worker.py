"""The keeper of a worker: which runs are lost and scheduled again, and which are left alone."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import AwaitingRetry

from flows import worker
from flows.worker import Keeper

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=worker.GRACE_S)
OURS, OTHERS = {worker.LABEL: "gpu-here"}, {worker.LABEL: "gpu-elsewhere"}


class Server:
    """Stand-in for a Prefect server with one run, which was scheduled again so many times."""

    def __init__(self, run: FlowRun, times: int = 0) -> None:
        self.run, self.times, self.set = run, times, list[State]()

    def read_flow_run_states(self, _run: object) -> list[State]:
        return [AwaitingRetry()] * self.times + [State(type=StateType.RUNNING)]

    def read_flow_runs(self, **_: Any) -> list[FlowRun]:
        return [self.run]

    def set_flow_run_state(self, _run: object, state: State) -> None:
        self.set.append(state)


def run_in(kind: StateType, *, since: datetime = NOW, labels: dict[str, Any] = OURS) -> FlowRun:
    state = State(id=uuid4(), type=kind, timestamp=since)
    return FlowRun(id=uuid4(), flow_id=uuid4(), name="one", state=state, labels=labels)


@contextmanager
def holding(path: Path) -> Iterator[None]:
    with closing(path.open("a")) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def looked(server: Server, runs: Path) -> Server:
    """Return the server after two looks, GRACE_S apart."""
    keeper = Keeper("gpu", "gpu-here", runs)
    assert keeper.look(server, NOW) == [], "a run may have changed its state just now"  # type: ignore[arg-type]
    keeper.look(server, LATER)  # type: ignore[arg-type]
    return server


@pytest.mark.parametrize("kind", [StateType.RUNNING, StateType.PENDING, StateType.CRASHED])
def test_a_run_whose_process_is_gone_is_scheduled_again_later_each_time(tmp_path: Path, kind: StateType) -> None:
    for times, delay_s in ((0, 0), (1, 5), (2, 15), (worker.TIMES - 1, 300)):
        server = Server(run_in(kind), times)
        (tmp_path / f"{server.run.id}.lock").touch()
        (state,) = looked(server, tmp_path).set
        assert state.name == "AwaitingRetry"
        assert state.state_details.scheduled_time == LATER + timedelta(seconds=delay_s)
        assert state.message
        assert f"{times + 1} of at most {worker.TIMES} times" in state.message


@pytest.mark.parametrize("kind", [StateType.PENDING, StateType.CRASHED])
def test_a_run_that_died_before_its_lock_is_lost_too(tmp_path: Path, kind: StateType) -> None:
    assert looked(Server(run_in(kind, labels={})), tmp_path).set


def test_a_run_that_is_alive_is_left_alone(tmp_path: Path) -> None:
    server = Server(run_in(StateType.RUNNING))
    with holding(tmp_path / f"{server.run.id}.lock"):
        assert not looked(server, tmp_path).set
    assert looked(server, tmp_path).set


def test_a_run_that_runs_without_a_lock_of_this_machine_is_left_alone(tmp_path: Path) -> None:
    assert not looked(Server(run_in(StateType.RUNNING)), tmp_path).set


@pytest.mark.parametrize(
    "left",
    [
        run_in(StateType.RUNNING, labels=OTHERS),
        run_in(StateType.CRASHED, since=NOW - worker.RECENT),
    ],
    ids=["another worker's", "crashed yesterday"],
)
def test_what_a_person_or_another_worker_must_see_to_is_left(tmp_path: Path, left: FlowRun) -> None:
    (tmp_path / f"{left.id}.lock").touch()
    assert not looked(Server(left), tmp_path).set


def test_a_run_that_dies_every_time_is_left_as_crashed(tmp_path: Path) -> None:
    server = Server(run_in(StateType.RUNNING), worker.TIMES)
    (tmp_path / f"{server.run.id}.lock").touch()
    (state,) = looked(server, tmp_path).set
    assert state.is_crashed()
    assert not looked(Server(run_in(StateType.CRASHED), worker.TIMES), tmp_path).set


def test_a_run_that_changes_its_state_meanwhile_has_its_time_again(tmp_path: Path) -> None:
    server, keeper = Server(run_in(StateType.CRASHED)), Keeper("gpu", "gpu-here", tmp_path)
    keeper.look(server, NOW)  # type: ignore[arg-type]
    server.run.state = State(id=uuid4(), type=StateType.PENDING, timestamp=LATER)
    assert keeper.look(server, LATER) == []  # type: ignore[arg-type]
    assert not server.set
