"""Stage: validate a task's store and write the report and its page. Errors stop the graph; advice does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqbet import tasks
from vqbet.demos import store
from vqbet.demos.validation import validate
from vqbet.stages import artifacts
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.config import TaskParams


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    demos = store.verify(paths.store)
    report = validate.validate(demos, tasks.of(demos.spec).validation(), **params.validate_.model_dump())
    validate.write(report, paths.validation)
    metrics = {
        "episodes": float(len(demos.episode_ends)),
        "steps": float(len(demos.action)),
        "errors": float(len(report.errors)),
        "advice": float(len(report.advice)),
    }
    artifacts.write_json(paths.metrics("validate"), metrics)
    for sentence in report.advice:
        watch.say(f"advice: {sentence}")
    validate.raise_for_errors(report, str(paths.store))
    return metrics
