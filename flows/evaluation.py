"""Evaluation flow, for a schedule: the committed policy plays its whole evaluation again, on the machine of today.

Nothing is committed or promoted. A difference is a result, not a failure: another processor rounds otherwise, and a
changed library is found before it changes a verdict.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact

from flows import ROOT, clone
from flows.notices import HOOKS
from vqbet import versions
from vqbet.stages import artifacts
from vqbet.stages.paths import Paths


@task(task_run_name="evaluate {task_name}", **clone.AGAIN | clone.ANEW)
def again(task_name: str) -> dict[str, Any]:
    """Run stage `evaluate` although nothing has changed, and return each metric before and after."""
    paths = Paths(ROOT, task_name)
    versions.repro(ROOT, f"evaluate@{task_name}", first=[f"code@{task_name}"])  # as git says, from the remote if there
    before = artifacts.read_metrics(paths.metrics("evaluate"))
    versions.repro(ROOT, f"evaluate@{task_name}", first=[f"code@{task_name}"], force=True)
    after = artifacts.read_metrics(paths.metrics("evaluate"))
    return {"before": before, "after": after, "same": before == after}


@flow(name="evaluation", flow_run_name="evaluation {task_name}", persist_result=True, result_serializer="json", **HOOKS)
def evaluation(task_name: str = "blockpush") -> dict[str, Any]:
    """Evaluate the policy of the team's branch again, and show where its numbers differ from the committed ones."""
    clone.begin(task_name)
    result = again(task_name)
    said = "the same numbers" if result["same"] else "other numbers than git has"
    create_table_artifact(
        table=[
            {"metric": name, "committed": result["before"].get(name), "now": value}
            for name, value in result["after"].items()
        ],
        key=f"{task_name}-evaluation",
        description=f"evaluation of {task_name}: {said}",
    )
    return result
