"""A task of one file goes through the whole graph, and nothing else of the product is touched for it."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.support.installed import installed
from tests.support.project import Project
from tests.support.shrunk import shrunk
from vqbet import config, versions
from vqbet.commands import ingest, summary
from vqbet.contract import ValidationError
from vqbet.demos.validation.knowledge import Knowledge, Known
from vqbet.stages import runner, validate
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import TASKS

TOY = Path(__file__).with_name("toy.py").read_text(encoding="utf-8")
SECTIONS = {
    "demos": {"episodes": 60},
    "validate": {"min_steps": 20, "max_steps": 60},
    "tokenizer": {"steps": 40, "batch": 64, "health": {"max_mean_error": 9.0, "max_p99_error": 99.0, "min_used": 0.0}},
    "prior": {"steps": 20, "batch": 32, "width": 16, "heads": 1, "depth": 1, "head_hidden": 16, "warmup": 1},
    "evaluate": {"episodes": 6, "videos": 1},
    "gate": {"floor": 0.0, "min_modes": 0, "baselines": ["noop", "nearest"], "looks": [8, 16], "latency_ms": 10000.0},
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installed package that brings the task."""
    folder = tmp_path / "site"
    folder.mkdir()
    installed(folder, "toys", "toy_in_a_graph", TOY, toy="toy_in_a_graph:TASK")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "toy_in_a_graph", raising=False)
    return folder


@pytest.fixture
def root(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose only task is the installed one."""
    project = Project(tmp_path / "project")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.root / '.vqbet' / 'mlflow.db'}")
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    project.edit(lambda params: params.update(toy=params["blockpush"]))
    project.small("toy", SECTIONS)
    project.commit()
    return project.root


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_task_in_one_file_goes_through_the_whole_graph(site: Path, root: Path) -> None:
    params, paths = config.task(root / "params.yaml", "toy"), Paths(root, "toy")
    made = ingest.collect(root, "toy", params, "", Watch())
    assert made.episodes == 60
    assert not ingest.collect(root, "toy", params, "", Watch()).made, "the same oracle demonstrates the same"
    versions.add(root)
    for stage in runner.ORDER:
        runner.run(root, "toy", stage, params, Watch())
    verdict = json.loads((paths.gate / "verdict.json").read_text())
    assert set(verdict["numbers"]) == {"candidate", "noop", "nearest"}
    metrics = json.loads(paths.metrics("evaluate").read_text())
    assert (metrics["episodes"], 0 <= metrics["score"] <= 1) == (6, True)
    page = (paths.report / "index.html").read_text()
    assert "point" in page
    assert summary.rows(root, "toy", runner.ORDER)["way gone, of 10"].endswith(", 6 episodes")

    (site / "toy_in_a_graph.py").write_text(TOY.replace("NEAR_M, STEP_M = 0.1, 0.05", "NEAR_M, STEP_M = 0.1, 0.04"))
    assert ingest.collect(root, "toy", params, "", Watch()).made, "an edited oracle demonstrates anew"


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ingest", "validate"])
def test_demonstrations_are_held_against_what_is_known_of_their_task(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """The planted fault: by name a command moves its own channel, by the task's knowledge the other one."""
    params = shrunk("blockpush", **SECTIONS)
    ingest.collect(tmp_path, "toy", params, "", Watch())
    wrong = Knowledge(None, (Known("point_dx", "point_y", 0, 1.0, 1.0),))
    known = replace(TASKS["toy"], validation=lambda: wrong)
    monkeypatch.setattr("toy_in_a_graph.TASK", known)
    shutil.rmtree(tmp_path / ".vqbet", ignore_errors=True)  # or the same making would be left alone
    run = partial(ingest.collect, tmp_path, "toy", params, "", Watch())
    if stage == "validate":
        run = partial(validate.run, Paths(tmp_path, "toy"), params, Watch())
    with pytest.raises(ValidationError, match="point_dx"):
        run()
