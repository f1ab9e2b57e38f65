"""The recipe trained again with other seeds, and played: how far its score moves by itself."""

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

if TYPE_CHECKING:
    from vqbet.config import TaskParams

STAGES = ("tokenizer", "prior", "bundle", "evaluate")


def run(root: Path, task: str, params: TaskParams, times: int, watch: Watch) -> dict[str, str]:
    """Trainings 1 to `times` where they are not there yet, and what they scored on the seeds of `evaluate`."""
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
    """Whether this training of these parameters on these demonstrations was made and played to its end."""
    if not (paths.evaluation / "records.jsonl").exists():
        return False
    policy = bundle.read(paths.policy)
    made = policy.provenance
    asked = {name: getattr(chosen, name).model_dump(mode="json") for name in ("prior", "bundle")}
    asked |= {"demos": {"views": chosen.demos.views}, "tokenizer": made_with(chosen.tokenizer)}
    same = made["params"] == asked and made["data"] == store.digest(paths.store)
    return same and len(retraining_history.played(paths, policy)) == chosen.evaluate.episodes
