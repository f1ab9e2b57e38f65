"""Stage: one page for people, from the files that the stages before left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqbet import bundle
from vqbet.evaluation import records, report
from vqbet.stages import artifacts
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.config import TaskParams

# Which observation channels make a path worth looking at.
TABLE = {
    "effector": ("effector_x", "effector_y"),
    "block 0": ("block0_x", "block0_y"),
    "block 1": ("block1_x", "block1_y"),
}
TRACKS = {
    "blockpush": TABLE,
    "blockpush_drawn": TABLE,
    "pusht": {"agent": ("agent_x", "agent_y")},
}


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    policy = bundle.read(paths.policy)
    facts = {
        "policy": policy.digest,
        "tokenizer": policy.provenance["tokenizer"],
        "demonstrations": policy.provenance["data"],
        "code": policy.provenance["code"],
    }
    inputs = report.ReportInputs(artifacts=paths.artifacts, tracks=TRACKS.get(paths.task, {}), facts=facts)
    report.write(paths.report, task=paths.task, inputs=inputs)
    metrics = {"episodes": float(len(records.read(paths.evaluation / "records.jsonl")))}
    artifacts.write_json(paths.metrics("report"), metrics)
    return metrics
