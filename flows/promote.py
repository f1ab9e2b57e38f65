"""Promotion flow for a person or a schedule: the last task of the pipeline, on its own, once nothing is waited for.

A run of a deployment is suspended while robot trials or approvals are missing: it holds no worker, and the server's
database keeps it. `flows.resume` starts it again, from its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas import OrchestrationResult
from prefect.exceptions import Pause
from prefect.runtime import deployment, flow_run
from prefect.states import Suspended

from flows import ROOT, clone, notices, pipeline
from flows.notices import HOOKS
from vqbet.commands import waiting
from vqbet.contract import PipelineError, RegistryError

PROJECT = "vqbet.project"  # label of a suspended run: its project, since projects may share a server


@flow(name="promote", flow_run_name="promote {task_name}", persist_result=True, result_serializer="json", **HOOKS)
def promote(task_name: str = "blockpush", candidate: int = 0, why: str = "the gate's verdict") -> dict[str, str]:
    """Make `candidate` (a version number; 0: the alias candidate) the champion, if its verdict allows it.

    Without a deployment a run cannot be suspended: RegistryError with what is waited for.
    """
    clone.begin(task_name)
    if awaited := waiting.missing(ROOT, task_name, candidate):
        _wait(task_name, awaited)
    result = pipeline.promote(task_name, candidate, why)
    _publish(task_name, "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in result.items())]))
    return result


def _wait(task_name: str, awaited: Sequence[str]) -> NoReturn:
    said = waiting.told(task_name, awaited)
    if deployment.id is None:
        raise RegistryError(said)
    _publish(task_name, waiting.page(task_name, awaited))
    notices.waits(task_name, said)
    _suspend(said)


def _suspend(message: str) -> NoReturn:
    """End this process and leave the run suspended, for any length of time.

    The same transition as `prefect.flow_runs.suspend_flow_run`, which has no message and suspends only once.
    """
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(flow_run.id, {PROJECT: clone.project()})
        answer: OrchestrationResult[None] = client.set_flow_run_state(flow_run.id, Suspended(message=message))
    if answer.state is None or not answer.state.is_paused():
        raise PipelineError(f"{message}; Prefect did not suspend the run: {answer.details}")
    raise Pause(state=answer.state)


def _publish(task_name: str, markdown: str) -> None:
    """Add the state of the promotion to the run page."""
    create_markdown_artifact(markdown=markdown, key=f"{task_name}-promotion", description=f"promotion of {task_name}")
