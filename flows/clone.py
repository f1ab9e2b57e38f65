"""Exchange of a run in a clone of its own with its team: what it pulls before its work, and pushes afterwards.

A run is in a clone where `vqbet.team.run` has made one. A flow from the command line works in the project's own folder,
where nothing is pulled or committed.
"""

from __future__ import annotations

import os
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import deployment, flow_run
from prefect.tasks import Task

from flows import ROOT
from vqbet import versions
from vqbet.commands import unanswered
from vqbet.registry import links
from vqbet.stages import runner
from vqbet.team import run as launcher
from vqbet.team.run import IN_CLONE
from vqbet.versions.exchange import shown

COMMITTED = ("data.dvc", "dvc.lock")
DELAYS_S: list[float] = [5, 15, 40]  # between tries: longer in sum than an S3 server needs after a restart


def interrupted(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Return whether a task was killed, or a server did not answer: the only failures that another try can mend."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, versions.Killed) or (isinstance(error, BaseException) and unanswered.by_server(error))


# of every task that talks to servers or runs a stage; none of them does anything twice
AGAIN: dict[str, Any] = {
    "retries": len(DELAYS_S),
    "retry_delay_seconds": DELAYS_S,
    "retry_condition_fn": interrupted,
}
# Of every task whose effect lies in the clone: a run that goes on after a crash may have lost its clone meanwhile, so
# it asks DVC, and not Prefect's cache, what is done.
ANEW: dict[str, Any] = {"retries": len(DELAYS_S), "retry_delay_seconds": DELAYS_S, "cache_policy": NO_CACHE}


def begin(task_name: str) -> None:
    """In a clone, bring data and outputs of the task here. Runs in MLflow that stages open link to this flow run."""
    if address := page():
        os.environ[links.VARIABLE] = address
    if os.environ.get(IN_CLONE):
        fetch(task_name)


def end(task_name: str, *, outputs: bool) -> None:
    """In a clone, push what was made and commit data.dvc and dvc.lock. outputs: of stages, beside the data."""
    if branch := os.environ.get(IN_CLONE):
        give(task_name, branch, outputs)


def page() -> str:
    """Return the address of this flow run's page on a team's Prefect server; "" without a deployment."""
    if deployment.id is None:
        return ""
    place = os.environ.get("PREFECT_API_URL", "").removesuffix("/api").rstrip("/")
    return f"{shown(place)}/runs/flow-run/{flow_run.id}" if place else ""


def project() -> str:
    """Return what all runs of this project have in common: the repository that they are clones of, or the folder."""
    return os.environ["VQBET_REPOSITORY"] if os.environ.get(IN_CLONE) else str(ROOT)


@task(task_run_name="pull {task_name}", **ANEW)
def fetch(task_name: str) -> str:
    """Pull data and outputs of the task, as far as the remote has them; return the commit that the run works at."""
    versions.pull(ROOT, task_name, runner.ORDER)
    return versions.git_commit(ROOT)


@task(task_run_name="push {task_name}", **ANEW)
def give(task_name: str, branch: str, outputs: bool) -> str:
    """Push what was made, then commit data.dvc and dvc.lock to the team's branch; return a sentence."""
    versions.give(ROOT, task_name, runner.ORDER if outputs else ())
    launcher.settle(ROOT, branch)  # after a try that was killed in its commit
    said = versions.commit(ROOT, branch, _message(task_name), COMMITTED)
    create_markdown_artifact(markdown=said, key=f"{task_name}-commit", description=f"what git says of {task_name}")
    return said


def _message(task_name: str) -> str:
    named = deployment.name or "a flow"
    return f"{task_name}: {flow_run.flow_name}/{named}\n\nRun {flow_run.name}, {flow_run.id}"
