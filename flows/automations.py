"""Automations of a team's Prefect server: nobody inside a killed process can speak, so the server does.

    a run whose heartbeats stop, or that was taken and does not start   -> its state becomes Crashed
    a run that is Crashed, for whatever reason                          -> deployment revive/crashed looks after it

They watch the runs of deployments of `flows` alone, and are known by name: making them again changes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.revive import HEARTBEAT, RESOURCE

HEARTBEAT_S = 30  # PREFECT_FLOWS_HEARTBEAT_FREQUENCY in infra/prefect.yaml; Prefect allows no less
LEAST_LOST_S = 2 * HEARTBEAT_S  # one heartbeat may be late
LOST, STUCK, CRASHED = "vqbet: no heartbeat", "vqbet: not started", "vqbet: crashed"
ENDS = (
    "Completed",
    "Failed",
    "Cancelled",
    "Crashed",
    "Cancelling",
    "Suspended",
    "Paused",
    "AwaitingRetry",
    "Scheduled",
)
REVIVAL = "crashed"  # the deployment of flow revive


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds after which a run without a heartbeat, and one that was taken and does not start, count as crashed.

    revive_s: from the crash until its revival, in which a run that lives can send a heartbeat.
    """

    lost_s: int = 120
    start_s: int = 1800
    revive_s: int = 2 * HEARTBEAT_S


def made(
    client: SyncPrefectClient, deployments: Sequence[DeploymentResponse], patience: Patience
) -> Iterator[tuple[str, str]]:
    """Make the automations, or change those of the same name; yield name and sentence about each.

    What has not changed is left alone, since the server forgets which heartbeats a changed one waits for.
    """
    ids = {found.name: found.id for found in deployments}
    for automation in (*_silent(ids, patience), _crashed(ids, patience)):
        known = client.read_automations_by_name(automation.name)
        for more in known[1:]:
            client.delete_automation(more.id)
        done = "made"
        if not known:
            client.create_automation(automation)
        elif _content(known[0]) == _content(automation):
            done = "as it was"
        else:
            client.update_automation(known[0].id, automation)
            done = "changed"
        yield automation.name, f"{done}: {automation.description}"


def _content(automation: AutomationCore) -> dict[str, Any]:
    """Return what an automation does, without what the server adds."""
    found = automation.model_dump(mode="json", include={"description", "enabled", "trigger", "actions"})
    trigger = {name: sorted(said) if isinstance(said, list) else said for name, said in found["trigger"].items()}
    return {**found, "trigger": {name: said for name, said in trigger.items() if name != "id"}}


def _silent(ids: dict[str, UUID], patience: Patience) -> Iterator[AutomationCore]:
    """Yield the automations that call a run Crashed."""
    ends = {f"{RESOURCE}{name}" for name in ENDS}
    yield _automation(
        LOST,
        f"a run without a heartbeat for {patience.lost_s} s is Crashed",
        _trigger(ids, Posture.Proactive, {HEARTBEAT}, {HEARTBEAT, *ends}, patience.lost_s),
        _ended(f"no heartbeat for {patience.lost_s} s: its process, or its machine, is gone"),
    )
    yield _automation(
        STUCK,
        f"a run that a worker took and that does not start within {patience.start_s} s is Crashed",
        _trigger(ids, Posture.Proactive, {f"{RESOURCE}Pending"}, {f"{RESOURCE}Running", *ends}, patience.start_s),
        _ended(f"taken by a worker, not started within {patience.start_s} s"),
    )


def _ended(message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message, force=False)


def _crashed(ids: dict[str, UUID], patience: Patience) -> AutomationCore:
    return _automation(
        CRASHED,
        f"revive/{REVIVAL} looks after a crashed run {patience.revive_s} s later",
        _trigger(ids, Posture.Reactive, set(), {f"{RESOURCE}Crashed"}, 0),
        RunDeployment(
            source="selected",
            deployment_id=ids[REVIVAL],
            parameters={"run": {"__prefect_kind": "jinja", "template": "{{ event.resource.id }}"}},
            job_variables=None,
            schedule_after=timedelta(seconds=patience.revive_s),
        ),
    )


def _trigger(
    ids: dict[str, UUID],
    posture: Literal[Posture.Reactive, Posture.Proactive],
    after: set[str],
    expect: set[str],
    within_s: int,
) -> EventTrigger:
    """Return a trigger that looks at each run of the deployments by itself."""
    return EventTrigger(
        match={"prefect.resource.id": f"{RESOURCE}*"},
        match_related={
            "prefect.resource.role": "deployment",
            "prefect.resource.id": sorted(f"prefect.deployment.{one}" for one in ids.values()),
        },
        after=after,
        expect=expect,
        for_each={"prefect.resource.id"},
        posture=posture,
        threshold=1,
        within=timedelta(seconds=within_s),
    )


def _automation(
    name: str, description: str, trigger: EventTrigger, action: ChangeFlowRunState | RunDeployment
) -> AutomationCore:
    return AutomationCore(name=name, description=description, enabled=True, trigger=trigger, actions=[action])
