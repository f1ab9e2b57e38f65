"""Project whose gate has judged one policy, with real stages small enough to run in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.project import Project
from vqbet import config, versions
from vqbet.config import TaskParams
from vqbet.demos import store
from vqbet.evaluation import gate, records
from vqbet.evaluation.gate import Verdict
from vqbet.evaluation.plan import Plan
from vqbet.stages import runner
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks.blockpush.oracle import demonstrations

TASK = "blockpush"
SECTIONS = {
    "tokenizer": {"steps": 20, "batch": 64, "health": {"max_mean_error": 9.0, "max_p99_error": 99.0, "min_used": 0.0}},
    "prior": {"steps": 4, "batch": 16, "width": 8, "heads": 1, "depth": 1, "head_hidden": 8, "warmup": 1},
    "evaluate": {"episodes": 3, "videos": 0},
    "gate": {"floor": 0.0, "min_modes": 0, "baselines": ["noop"], "looks": [8, 16], "latency_ms": 10000.0},
}


@contextmanager
def judged(root: Path) -> Iterator[Project]:
    """Yield the project at `root` after its gate, with one commit and the registry's address set."""
    project = Project(root)
    project.small(sections=SECTIONS)
    project.commit()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / '.vqbet' / 'mlflow.db'}")
        patch.delenv("DVC_SITE_CACHE_DIR", raising=False)
        store.write(Paths(root, TASK).store, demonstrations(6, 0))
        versions.add(root)
        for name in ("validate", "tokenizer", "prior", "bundle", "evaluate", "gate"):
            runner.run(root, TASK, name, params(root), Watch())
        yield project


def params(root: Path) -> TaskParams:
    return config.task(root / "params.yaml", TASK)


def forge(folder: Path) -> Verdict:
    """Set all scores of the candidate to 1 and decide again, so that records, verdict and plan agree."""
    plan, looks = Plan.read(folder / "plan.json"), params(folder.parent.parent.parent).gate.looks
    played = [record for record in records.read(folder / "records.jsonl") if record.seed < plan.first_seed + looks[0]]
    perfect = {"score": 1.0, "success": True}
    forged = [replace(record, **perfect) if record.policy == "candidate" else record for record in played]
    records.write(folder / "records.jsonl", forged)
    verdict = gate.decide(plan, gate.by_policy(forged))
    gate.write(folder / "verdict.json", verdict)
    return verdict
