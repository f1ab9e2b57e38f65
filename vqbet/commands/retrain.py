"""Training and evaluation of the same recipe with other seeds, to measure seed-to-seed variance of the score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqbet import bundle, statistics
from vqbet.demos import store
from vqbet.stages import retraining_history, runner
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.stages.tokenizer import made_with
from vqbet.training import device

if TYPE_CHECKING:
    from vqbet.config import TaskParams

STAGES = ("tokenizer", "prior", "bundle", "evaluate")


def run(root: Path, task: str, params: TaskParams, times: int, watch: Watch) -> dict[str, str]:
    """Make the trainings 1 to `times` that do not exist yet; return their scores on the seeds of `evaluate`."""
    rows, scores = {}, []
    for training in range(1, times + 1):
        paths, chosen = Paths(root, task, training), params.reseeded(training)
        if not _there(paths, chosen):
            watch.say(f"training {training} of {times}")
            for name in STAGES:
                runner.run(root, task, name, params, watch, training=training)
        scores.append(float(retraining_history.played(paths, bundle.read(paths.policy)).mean()))
        rows[f"training {training}"] = f"score {scores[-1]:.3f}, {chosen.evaluate.episodes} episodes"
    if len(scores) > 1:
        deviation = statistics.Retraining(tuple(scores)).deviation
        rows["together"] = f"mean {np.mean(scores):.3f}, standard deviation between trainings {deviation:.3f}"
    return rows


def _there(paths: Paths, chosen: TaskParams) -> bool:
    """Return whether this training, with these parameters and demonstrations, was finished and evaluated."""
    if not (paths.evaluation / "records.jsonl").exists():
        return False
    policy = bundle.read(paths.policy)
    made = policy.provenance
    asked = {name: getattr(chosen, name).model_dump(mode="json") for name in ("prior", "bundle")}
    asked["prior"]["precision"] = device.precision(chosen.prior.precision, device.visible())
    asked |= {"demos": chosen.demos.learned(), "tokenizer": made_with(chosen.tokenizer)}
    same = made["params"] == asked and made["data"] == store.digest(paths.store)
    return same and len(retraining_history.played(paths, policy)) == chosen.evaluate.episodes
