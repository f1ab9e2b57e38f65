"""The published Push-T demonstrations from import to verdict, with a training far too short to be any good."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.project import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHORT = {
    "tokenizer": {"steps": 300, "batch": 256, "health": {"max_mean_error": 0.5, "max_p99_error": 2.0, "min_used": 0.3}},
    "prior": {"steps": 60, "batch": 64, "width": 32, "depth": 2, "head_hidden": 64, "warmup": 10, "ema": 0.9},
    "evaluate": {"episodes": 6, "videos": 1},
    "gate": {"baselines": ["noop", "nearest"]},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, real_demos: Callable[[str], Path]) -> Project:
    source, project = real_demos("pusht"), Project(tmp_path_factory.mktemp("pusht"))
    project.small("pusht", SHORT)
    project.commit()
    project.run("vqbet", "ingest", "pusht", str(source))
    project.run("dvc", "repro")
    return project


def read(project: Project, name: str) -> dict:
    return json.loads((project.root / "artifacts" / "pusht" / name).read_text(encoding="utf-8"))


def test_all_206_demonstrations_are_in_and_valid(project: Project) -> None:
    metrics = read(project, "metrics/validate.json")
    assert (metrics["episodes"], metrics["steps"], metrics["errors"]) == (206, 25650, 0)


def test_the_candidate_stands_beside_the_baselines(project: Project) -> None:
    verdict = read(project, "gate/verdict.json")
    assert set(verdict["numbers"]) == {"candidate", "noop", "nearest"}
    assert all(0 <= numbers["score"] <= 1 for numbers in verdict["numbers"].values())
    assert verdict["outcome"] in ("HOLD", "REJECT"), "sixty steps of training are not enough for anything"


def test_a_foreign_or_damaged_source_changes_nothing(project: Project, tmp_path: Path) -> None:
    store = project.root / "data" / "pusht.zarr"
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    (tmp_path / "empty.zarr").mkdir()
    done = project.run("vqbet", "ingest", "pusht", str(tmp_path / "empty.zarr"), check=False)
    assert done.returncode != 0
    assert "empty.zarr" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
