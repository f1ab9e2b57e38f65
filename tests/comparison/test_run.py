"""`python -m vqbet.comparison` on a comparison so small that it takes a minute: made once, resumed, refused, shown."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.support.project import Project

SIZE = {
    "train_s": 3.0,
    "ablation_s": 3.0,
    "ablation_seeds": 1,
    "episodes": 3,
    "seeds": 1,
    "main_episodes": 4,
    "main_seeds": 1,
}
OWN = "vqbet/comparison/params.yaml"
pytestmark = pytest.mark.slow


def shrink(content: dict) -> None:
    content["tasks"] = ["blockpush"]
    content["blockpush"]["demos"]["episodes"] = 12
    content["blockpush"]["tokenizer"].update(steps=40, batch=128)
    content["blockpush"]["prior"].update(width=16, depth=1, head_hidden=16, heads=2, batch=32)


def smaller(paper: dict) -> None:
    paper.update(tasks=["blockpush"], ablation_tasks=["blockpush"], policies=["vqbet", "bc"], goal_policies=["vqbet"])
    paper["sizes"] = {"smoke": SIZE}
    paper["size"] = "smoke"
    paper["ablations"] = {"as it is": {}, "noise": {"observation_noise": 0.01}}
    paper["baselines"] = {"blockpush": paper["baselines"]["pusht"]}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The copy, with its demonstrations, and the comparison made once."""
    project = Project(tmp_path_factory.mktemp("paper") / "project")
    shutil.rmtree(project.root / "docs" / "results", ignore_errors=True)  # the committed ones
    (project.root / "docs" / "results.md").unlink(missing_ok=True)
    project.edit(shrink)
    project.edit(smaller, OWN)
    project.commit()
    project.run("vqbet", "ingest", "blockpush")
    project.run("vqbet.comparison", "--workers", "2")
    return project


def results(project: Project) -> dict[str, dict]:
    files = sorted((project.root / "docs" / "results" / "smoke").glob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def test_every_cell_has_a_result_that_says_what_it_is(project: Project) -> None:
    found = results(project)
    assert set(found) == {
        *("blockpush.vqbet.s0", "blockpush.bc.s0", "blockpush-goals.vqbet.s0"),
        *("blockpush.vqbet.as-it-is.s0", "blockpush.vqbet.noise.s0"),
    }
    table = found["blockpush.vqbet.s0"]
    assert len(table["score"]) == len(table["success"]) == 4
    assert table["parameters"] > 0
    assert table["steps"] > 0
    assert 0 < table["tokenizer_s"] <= table["train_s"]
    assert table["act_ms"]["batch_1"] > 0
    assert table["made_with"]["torch"]
    assert found["blockpush-goals.vqbet.s0"]["params"]["prior"]["goal_steps"] == 1


def test_what_is_trained_the_same_was_trained_once(project: Project) -> None:
    found = results(project)
    one, two = found["blockpush.vqbet.as-it-is.s0"], found["blockpush.vqbet.noise.s0"]
    assert one["steps"] == two["steps"]
    assert one["train_s"] == two["train_s"]
    assert one["key"] != two["key"]
    trained = list((project.root / ".vqbet" / "paper").glob("*/trained.json"))
    assert len(trained) == 3


def test_the_page_names_every_policy_and_episode_count(project: Project) -> None:
    page = (project.root / "docs" / "results.md").read_text()
    assert "VQ-BeT" in page
    assert "GCBC" in page or "MLP-BC" in page
    assert list((project.root / "docs" / "results").glob("*.png"))


def test_nothing_is_made_twice_and_a_change_remakes_only_what_it_concerns(project: Project) -> None:
    before = {file: file.stat().st_mtime_ns for file in (project.root / "docs" / "results" / "smoke").glob("*.json")}
    assert "5 cells, 0 to make" in project.run("vqbet.comparison").stdout
    project.edit(lambda paper: paper["baselines"]["blockpush"]["bc"]["training"].update(lr=2.0e-3), OWN)
    there = project.run("vqbet.comparison", VQBET_DASK="local", VQBET_WORKERS="1").stdout
    assert "5 cells, 1 to make, on local" in there
    changed = {file.stem for file, when in before.items() if file.stat().st_mtime_ns != when}
    assert changed == {"blockpush.bc.s0"}


def many_bins(paper: dict) -> None:
    """More bins than the 12 demonstrations have actions that differ by enough to be told apart."""
    paper["policies"] = ["bet"]
    paper["baselines"]["blockpush"]["bet"]["shape"]["bins"] = 1024


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (many_bins, "params.yaml: baselines.blockpush.bet: 1024 bins were asked of"),
        (
            lambda paper: paper.update(tasks=["pusht"], ablations={}),
            "params.yaml: tasks: pusht: no demonstrations at .*ingest pusht",
        ),
        (
            lambda paper: paper["ablations"].update(many={"tokenizer.codes": 1024}),
            "blockpush.tokenizer.codes: 1024 codes for [0-9]+ distinct chunks",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(project: Project, edit, message: str) -> None:
    path = project.root / OWN
    kept = path.read_text()
    try:
        project.edit(edit, OWN)
        done = project.run("vqbet.comparison", "--workers", "1", check=False)
    finally:
        path.write_text(kept)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr)
    assert "train" not in done.stdout


def test_a_damaged_result_is_named(project: Project) -> None:
    file = project.root / "docs" / "results" / "smoke" / "blockpush.bc.s0.json"
    kept = file.read_bytes()
    file.write_text('{"key": 1}')
    try:
        done = project.run("vqbet.comparison", "--only", "blockpush.vqbet.s0", check=False)
    finally:
        file.write_bytes(kept)
    assert done.returncode == 1
    assert "blockpush.bc.s0.json: is no result of this version" in done.stderr
