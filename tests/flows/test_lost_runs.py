"""Automations for runs whose process died, made once and changed only where something changed; and the revival."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.events.schemas.automations import AutomationCore, Posture
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed, Running

from flows import automations, notices, revive
from flows.automations import CRASHED, LOST, STUCK, Patience
from vqbet.contract import PipelineError

DEPLOYMENTS = [SimpleNamespace(name=name, id=uuid4()) for name in ("nightly-retrain", "crashed")]


class Server:
    """Stands in for Prefect's client: automations and one run."""

    def __init__(self, run: Any = None, *, crashes: int = 1, beats: bool = False, obeys: bool = True) -> None:
        self.automations: dict[UUID, AutomationCore] = {}
        self.run, self.crashes, self.beats, self.obeys = run, crashes, beats, obeys
        self.states: list[tuple[State[Any], bool]] = []

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def read_automations_by_name(self, name: str) -> list[Any]:
        found = [(number, one) for number, one in self.automations.items() if one.name == name]
        return [automation_of(number, one) for number, one in found]

    def create_automation(self, automation: AutomationCore) -> UUID:
        self.automations[number := uuid4()] = automation
        return number

    def update_automation(self, number: UUID, automation: AutomationCore) -> None:
        assert number in self.automations
        self.automations[number] = automation

    def delete_automation(self, number: UUID) -> None:
        del self.automations[number]

    def read_flow_run(self, number: UUID) -> Any:
        if self.run is None or number != self.run.id:
            raise ObjectNotFound(http_exc=Exception("404"))
        return self.run

    def read_flow(self, _number: UUID) -> Any:
        return SimpleNamespace(name="pipeline")

    def read_flow_run_states(self, _number: UUID) -> list[Any]:
        return [SimpleNamespace(type=StateType.RUNNING), SimpleNamespace(type=StateType.CRASHED)] * self.crashes

    def read_events(self, asked: Any, limit: int) -> Any:
        assert (asked.event.name, asked.resource.id, limit) == ([revive.HEARTBEAT], [resource(self.run)], 1)
        assert asked.occurred.since == self.run.state.timestamp, "a heartbeat from before the crash says nothing"
        return SimpleNamespace(events=["beat"] * self.beats)

    def set_flow_run_state(self, number: UUID, state: State[Any], *, force: bool) -> Any:
        assert number == self.run.id
        self.states.append((state, force))
        return SimpleNamespace(
            state=state, status=SimpleNamespace(value="ACCEPT" if self.obeys else "ABORT"), details="it ended"
        )


def automation_of(number: UUID, core: AutomationCore) -> Any:
    """Return an automation as a server answers it: with an id, and its sets in another order."""
    from prefect.events.schemas.automations import Automation

    content = core.model_dump(mode="json")
    content["trigger"]["expect"].reverse()
    return Automation.model_validate({**content, "id": str(number)})


def resource(run: Any) -> str:
    return f"prefect.flow-run.{run.id}"


def made(server: Server, patience: Patience = Patience()) -> dict[str, str]:  # noqa: B008  # frozen
    return dict(automations.made(server, DEPLOYMENTS, patience))  # type: ignore[arg-type]


def test_deploying_again_doubles_nothing_and_changes_what_changed() -> None:
    server = Server()
    assert [said.split(":")[0] for said in made(server).values()] == ["made"] * 3
    numbers = set(server.automations)
    assert [said.split(":")[0] for said in made(server).values()] == ["as it was"] * 3
    assert made(server, Patience(lost_s=90)) == {
        LOST: "changed: a run without a heartbeat for 90 s is Crashed",
        STUCK: "as it was: a run that a worker took and that does not start within 1800 s is Crashed",
        CRASHED: "as it was: revive/crashed looks after a crashed run 60 s later",
    }
    assert set(server.automations) == numbers
    server.create_automation(next(iter(server.automations.values())))
    made(server)
    assert len(server.automations) == 3


def test_they_watch_each_run_of_our_deployments_alone() -> None:
    server = Server()
    made(server)
    found = {one.name: one for one in server.automations.values()}
    ours = sorted(f"prefect.deployment.{one.id}" for one in DEPLOYMENTS)
    for one in found.values():
        trigger: Any = one.trigger
        assert trigger.for_each == {"prefect.resource.id"}
        assert trigger.match_related.model_dump() == {
            "prefect.resource.role": "deployment",
            "prefect.resource.id": ours,
        }
    lost: Any = found[LOST].trigger
    assert (lost.posture, lost.after, lost.within) == (Posture.Proactive, {revive.HEARTBEAT}, timedelta(seconds=120))
    assert lost.after < lost.expect, "each heartbeat waits for the next"
    assert {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Suspended", "Crashed")} < lost.expect
    stuck: Any = found[STUCK].trigger
    assert "prefect.flow-run.Running" in stuck.expect
    assert revive.HEARTBEAT not in stuck.expect
    for name in (LOST, STUCK):
        (action,) = found[name].actions
        assert (action.type, action.state) == ("change-flow-run-state", StateType.CRASHED)  # type: ignore[union-attr]
    (action,) = found[CRASHED].actions
    assert action.deployment_id == DEPLOYMENTS[1].id  # type: ignore[union-attr]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    heard: list[tuple[str, str, str]] = []
    monkeypatch.setattr(notices, "crashed", lambda *said: heard.append(said))
    return heard


def revived(server: Server, monkeypatch: pytest.MonkeyPatch, run: str = "") -> str:
    monkeypatch.setattr(revive, "get_client", lambda sync_client: server)
    return revive.revive.fn(run or resource(server.run), [30, 300])


def crashed(state: State[Any] | None = None) -> Any:
    return SimpleNamespace(
        id=uuid4(), name="calm-otter", flow_id=uuid4(), state=state or Crashed(message="no heartbeat for 120 s"),
        state_name=(state.name if state else "Crashed"), parameters={"task_name": "arm"},
    )  # fmt: skip


@pytest.mark.parametrize(("crashes", "wait_s", "attempt"), [(1, 30, 2), (2, 300, 3)])
def test_it_runs_again_later_after_each_crash(
    crashes: int, wait_s: int, attempt: int, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, before = Server(crashed(), crashes=crashes), datetime.now(UTC)
    said = revived(server, monkeypatch)
    ((state, force),) = server.states
    assert (state.type, state.name, force) == (StateType.SCHEDULED, "AwaitingRetry", False)
    assert state.state_details.scheduled_time is not None
    waited = (state.state_details.scheduled_time - before).total_seconds()
    assert wait_s <= waited < wait_s + 60
    assert said.startswith("pipeline, run calm-otter: Crashed: no heartbeat for 120 s; runs again at ")
    assert said.endswith(f"try {attempt} of 3")
    assert told == [("arm", said, str(server.run.id))]


def test_after_the_last_revival_it_stays_crashed_and_that_is_told(
    told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(crashed(), crashes=3)
    said = revived(server, monkeypatch)
    assert server.states == []
    assert said.endswith("crashed 3 times and is not run again")
    assert told == [("arm", said, str(server.run.id))]


def test_a_run_that_sends_heartbeats_is_not_run_twice(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(crashed(), beats=True)
    assert revived(server, monkeypatch) == "pipeline, run calm-otter: is at work"
    ((state, force),) = server.states
    assert (state.type, force) == (StateType.RUNNING, True)
    assert told == []


@pytest.mark.parametrize("state", [Completed(), Running()])
def test_what_has_ended_or_runs_meanwhile_is_left_alone(
    state: State[Any], told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(crashed(state))
    assert revived(server, monkeypatch) == f"pipeline, run calm-otter: is {state.name} meanwhile"
    assert server.states == told == []


def test_a_deleted_run_and_a_refusal_are_said(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert revived(Server(), monkeypatch, str(uuid4())).endswith("was deleted")
    with pytest.raises(PipelineError, match="run calm-otter stays Crashed: it ended"):
        revived(Server(crashed(), obeys=False), monkeypatch)
    assert told == []
