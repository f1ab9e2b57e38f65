"""Ingest flow: collect, version, push and audit demonstrations, then compare them with the champion's.

A version is valid once it is audited. Drift is reported and does not fail the flow.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from flows import ROOT, clone, notices
from flows.notices import HOOKS
from vqbet import config
from vqbet.commands import console
from vqbet.commands import drift as drifting
from vqbet.commands import ingest as stage


@task(task_run_name="collect {task_name}", **clone.AGAIN | clone.ANEW)
def collect(task_name: str, source: str) -> dict[str, Any]:
    """Write demonstrations from a path, a URL or the oracle to data/<task>.zarr, validated before the old ones go."""
    params = config.task(ROOT / "params.yaml", task_name)
    return asdict(stage.collect(ROOT, task_name, params, source, console.watch()))


@task(**clone.ANEW)
def publish() -> dict[str, Any]:
    """Run dvc add, push and audit. Retried, since a remote can be unreachable briefly and pushing twice is harmless."""
    return asdict(stage.publish(ROOT, console.watch()))


@task(task_run_name="drift {task_name}", **clone.AGAIN | clone.ANEW)
def drift(task_name: str) -> dict[str, Any]:
    """Compare the new version with the champion's demonstrations. Drift is a result, not a failure."""
    params = config.task(ROOT / "params.yaml", task_name)
    return asdict(drifting.after_ingest(ROOT, task_name, params.drift, console.watch()))


@flow(name="ingest", flow_run_name="ingest {task_name}", persist_result=True, result_serializer="json", **HOOKS)
def ingest(task_name: str = "blockpush", source: str = "") -> dict[str, Any]:
    """Bring in a task's demonstrations, version them and compare them. Existing results are not made again."""
    clone.begin(task_name)
    collected = collect(task_name, source)
    version = publish()
    clone.end(task_name, outputs=False)
    create_markdown_artifact(
        markdown=f"{collected['episodes']} episodes, {collected['steps']} steps, "
        f"data version `{collected['digest'][:12]}`, data.dvc `{version['md5'][:12]}`",
        key=f"{task_name}-data",
        description=f"demonstrations of {task_name}",
    )
    drifted = drift(task_name)
    _publish(task_name, drifted)
    notices.drifted(task_name, drifted)
    return {"collected": collected, "version": version, "drift": drifted}


def _publish(task_name: str, drifted: dict[str, Any]) -> None:
    """Add the conclusion and its table to the run page."""
    lines = [f"| {name} | {value} |" for name, value in drifted["rows"].items()]
    table = "\n".join(["", "", "| | |", "|---|---|", *lines]) if lines else ""
    create_markdown_artifact(
        markdown=f"# {drifted['conclusion']}{table}",
        key=f"{task_name}-drift",
        description=f"drift of {task_name} from its champion's demonstrations",
    )
