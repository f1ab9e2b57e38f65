"""Pipeline flow, from demonstrations to champion: one Prefect task per DVC stage, then registry and alias."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows import ROOT, clone, notices
from flows.notices import HOOKS
from vqbet import config, registry, versions
from vqbet.commands import bounds, console, release, waiting
from vqbet.registry import links
from vqbet.stages import artifacts, runner, sealing
from vqbet.stages.paths import Paths

SPOKEN = {"outcome": str, "reason": str, "candidate": str, "champion": str}  # fields of a verdict shown


@task(task_run_name="compare {task_name}", **clone.AGAIN | clone.ANEW)
def changed(task_name: str) -> list[str]:
    """Return the stages that have changed, as DVC names them."""
    targets = [f"{name}@{task_name}" for name in runner.ORDER]
    return versions.changed(ROOT, targets, first=[f"code@{task_name}"])


@task(task_run_name="{name}@{task_name}", **clone.AGAIN | clone.ANEW)
def run_stage(task_name: str, name: str, unchanged: bool = False) -> dict[str, Any]:
    """Run one DVC stage of one task; return its metrics, and whether the stage ran now or was up to date.

    unchanged: DVC has already reported the stage as unchanged and is not asked again. If the verdict in DVC's cache is
    not sealed in this registry, the gate runs again.
    """
    stage, code = f"{name}@{task_name}", [f"code@{task_name}"]
    ran = not unchanged and versions.repro(ROOT, stage, first=code)
    if name == "gate" and not sealing.known(ROOT, task_name):
        ran = versions.repro(ROOT, stage, first=code, force=True)
    metrics = artifacts.read_metrics(Paths(ROOT, task_name).metrics(name))
    create_table_artifact(
        table=[{"metric": key, "value": value} for key, value in metrics.items()],
        key=f"{task_name}-{name}",
        description=f"{name} of {task_name}, {'run now' if ran else 'unchanged'}",
    )
    return {"ran": ran, **metrics}


@task(task_run_name="register {task_name}", **clone.AGAIN)
def register(task_name: str) -> dict[str, str]:
    """Register the tokenizer and the policy as the task's candidate."""
    return release.register(ROOT, task_name)


@task(task_run_name="promote {task_name}", **clone.AGAIN)
def promote(task_name: str, candidate: int = 0, why: str = "the gate's verdict") -> dict[str, str]:
    """Move the champion alias if the verdict allows it.

    A verdict other than PROMOTE is a result, not a failure; likewise trials and approvals that are missing.
    """
    verdict = artifacts.read_object(Paths(ROOT, task_name).gate / "verdict.json", outcome=str, reason=str)
    simulated = "simulated" in bounds.committed(ROOT, task_name).gate.evidence
    if candidate == 0 and simulated and verdict["outcome"] != "PROMOTE":
        return {"promoted": "no", "verdict": verdict["outcome"], "why": verdict["reason"]}
    if awaited := waiting.missing(ROOT, task_name, candidate):
        return {"promoted": "no", "why": waiting.told(task_name, awaited)}
    return release.promote(ROOT, task_name, candidate=candidate, why=why, watch=console.watch())


@flow(name="pipeline", flow_run_name="pipeline {task_name}", persist_result=True, result_serializer="json", **HOOKS)
def pipeline(task_name: str = "blockpush", allow_promotion: bool = True) -> dict[str, Any]:
    """Run the stages in the order of the graph, register and promote; return the metrics of every stage."""
    config.tasks(ROOT / "params.yaml")  # checked before DVC is called
    clone.begin(task_name)
    result: dict[str, Any] = {}
    due = changed(task_name)
    unchanged = True  # so far; DVC is asked again after a stage that ran
    for name in runner.ORDER:
        unchanged = unchanged and f"{name}@{task_name}" not in due
        result[name] = run_stage(task_name, name, unchanged)
        unchanged = unchanged and not result[name]["ran"]
    clone.end(task_name, outputs=True)
    result["register"] = register(task_name)
    if allow_promotion:
        result["promote"] = promote(task_name)
    _publish(task_name, result["register"])
    notices.not_promoted(task_name, result)
    return result


def _publish(task_name: str, registered: dict[str, str]) -> None:
    """Add the verdict and links to the report and to MLflow to the run page, and a link to this page to MLflow."""
    paths = Paths(ROOT, task_name)
    verdict = artifacts.read_object(paths.gate / "verdict.json", **SPOKEN)
    version = registry.resolve(registered["policy"])
    if (address := clone.page()) and (evidence := version.tags.get("evidence", "")):
        links.judged_by(evidence, address)
        links.describe(version)
    pages = links.pages(version)
    listed = "".join(f"\n- [{name}]({place})" for name, place in pages.items() if place != address)
    create_markdown_artifact(
        markdown=f"# {verdict['outcome']}\n\n{verdict['reason']}\n\n"
        f"candidate `{verdict['candidate'][:12]}`, champion `{verdict['champion'][:12] or 'none'}`\n{listed}",
        key=f"{task_name}-verdict",
        description=f"verdict about {task_name}",
    )
    create_link_artifact(
        link=pages.get(links.REPORT, (paths.report / "index.html").as_uri()),
        key=f"{task_name}-report",
        link_text="evaluation report",
        description=f"evaluation report of {task_name}",
    )
