"""Stage: write one page for people from the files of the earlier stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqbet import bundle, tasks
from vqbet.evaluation import report
from vqbet.stages import artifacts
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.config import TaskParams


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    policy = bundle.read(paths.policy)
    facts = {
        "policy": policy.digest,
        "tokenizer": policy.provenance["tokenizer"],
        "demonstrations": policy.provenance["data"],
        "code": policy.provenance["code"],
    }
    inputs = report.ReportInputs(artifacts=paths.artifacts, tracks=tasks.of(policy.spec).tracks, facts=facts)
    report.write(paths.report, task=paths.task, inputs=inputs)
    metrics = {"episodes": artifacts.read_metrics(paths.metrics("evaluate"), "episodes")["episodes"]}
    artifacts.write_json(paths.metrics("report"), metrics)
    return metrics
