"""DVC itself, this graph and this code, with stages that only note that they ran: what runs again after which edit."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.project import Project
from vqbet import versions
from vqbet.stages import runner
from vqbet.stages.paths import Paths

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first waits for the whole graph
TASKS = ("blockpush", "kitchen")

# In the place of infra/vqbet: `code` is the real one; a stage writes its outputs and its own name.
SCRIPT = """#!/bin/sh
if [ "$1" = code ]; then exec .venv/bin/python -m vqbet "$@"; fi
task="${2#*@}"; stage="${2%@*}"; to="artifacts/$task"
mkdir -p "$to/metrics" "$to/plots"
echo "{}" > "$to/metrics/$stage.json"
case "$stage" in
  validate) mkdir -p "$to/validation" ;;
  tokenizer) mkdir -p "$to/tokenizer"; echo "{}" > "$to/health.json"; echo step > "$to/plots/tokenizer.csv" ;;
  prior) mkdir -p "$to/prior"; echo step > "$to/plots/prior.csv" ;;
  bundle) mkdir -p "$to/policy" ;;
  evaluate) mkdir -p "$to/evaluation" ;;
  *) mkdir -p "$to/$stage" ;;
esac
echo "$2" >> ran
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Built once; its stages have run."""
    project = Project(tmp_path_factory.mktemp("graph"))
    project.edit(lambda params: params.update(tasks=list(TASKS)))
    (project.root / "infra" / "vqbet").write_text(SCRIPT)
    for task in TASKS:
        store = Paths(project.root, task).store
        store.mkdir(parents=True)
        (store / "data").write_text(task)
    project.commit()
    project.run("dvc", "repro", "--quiet")
    assert ran(project) == [f"{stage}@{task}" for task in TASKS for stage in sorted(runner.ORDER)]
    project.commit("built")
    return project


@pytest.fixture
def edited(project: Project) -> Callable[..., list[str]]:
    """Add to a file of the package, run the graph, and say which stages ran; the project is then as it was."""

    def edit(name: str, text: str, *repro: str) -> list[str]:
        path = project.root / "vqbet" / name
        before, lock = path.read_text(), project.root / "dvc.lock"
        locked = lock.read_bytes()
        path.write_text(before + text)
        try:
            project.run("dvc", "repro", "--quiet", *repro)
        finally:
            path.write_text(before)
            lock.write_bytes(locked)  # the outputs are the same, whoever wrote them
        return ran(project)

    return edit


def ran(project: Project) -> list[str]:
    """The stages that ran since the last call, task by task."""
    notes = project.root / "ran"
    names = notes.read_text().split() if notes.exists() else []
    notes.unlink(missing_ok=True)
    return sorted(names, key=lambda name: name.split("@")[::-1])


def test_nothing_changed_and_nothing_runs(project: Project) -> None:
    locked = (project.root / "dvc.lock").read_bytes()
    done = project.run("dvc", "repro")
    assert ran(project) == []
    assert done.stdout.count("Running stage") == len(TASKS), "code, of each task"
    assert (project.root / "dvc.lock").read_bytes() == locked
    changed = project._git(project.root, "status", "--porcelain")
    assert changed == "", "code.json is nobody's to commit"


def test_a_comment_and_another_tasks_picture_run_nothing(edited: Callable[..., list[str]]) -> None:
    assert edited("contract/__init__.py", "# So it is.\n") == []
    kitchen = edited("tasks/kitchen/picture.py", "PLANTED = 1\n")
    assert kitchen
    assert {name.partition("@")[2] for name in kitchen} == {"kitchen"}


def test_a_constant_runs_what_names_it_and_what_follows(edited: Callable[..., list[str]]) -> None:
    names = {"prior", "bundle", "evaluate", "gate"}
    assert edited("models/prior.py", "PLANTED = 1\n") == sorted(
        (f"{name}@{task}" for task in TASKS for name in names), key=lambda name: name.split("@")[::-1]
    )


def test_one_stage_asked_for_has_its_code_looked_at(edited: Callable[..., list[str]]) -> None:
    assert edited("models/prior.py", "PLANTED = 2\n", "prior@kitchen") == ["prior@kitchen"]


def test_status_after_code_and_a_parameter_of_an_experiment(project: Project) -> None:
    path = project.root / "vqbet" / "models" / "prior.py"
    before = path.read_text()
    for task in TASKS:
        project.run("vqbet", "code", task)
    path.write_text(before + "PLANTED = 3\n")
    project.run("vqbet", "code", "blockpush")
    status = json.loads(project.run("dvc", "status", "--json").stdout)
    path.write_text(before)
    project.run("vqbet", "code", "blockpush")
    code = {f"code@{task}" for task in TASKS}
    assert status.keys() - code == {f"{name}@blockpush" for name in ("prior", "bundle", "evaluate", "gate")}
    assert json.loads(project.run("dvc", "status", "--json").stdout).keys() == code
    project.run("dvc", "exp", "run", "--quiet", "-S", "kitchen.prior.width=48")
    assert ran(project) == ["prior@kitchen"]
    project._git(project.root, "checkout", "params.yaml", "dvc.lock")


def test_a_flow_asks_once_what_changed(project: Project) -> None:
    stages, first = [f"{name}@blockpush" for name in runner.ORDER], ["code@blockpush"]
    assert versions.changed(project.root, stages, first=first) == []
    path = project.root / "vqbet" / "evaluation" / "report.html.j2"
    before, locked = path.read_text(), (project.root / "dvc.lock").read_bytes()
    path.write_text(before + "<!-- more -->")
    assert versions.changed(project.root, stages, first=first) == ["report@blockpush"]
    assert versions.repro(project.root, "report@blockpush", first=first)
    assert not versions.repro(project.root, "report@blockpush", first=first), "code ran, the stage did not"
    assert ran(project) == ["report@blockpush"]
    path.write_text(before)
    (project.root / "dvc.lock").write_bytes(locked)


def test_a_clone_has_what_was_built(project: Project, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    project._git(tmp_path, "clone", "--quiet", str(project.root), str(clone))
    shutil.copytree(project.root / "data", clone / "data")
    (clone / ".venv").symlink_to(Path(sys.prefix))  # Git ignores the project's own
    other = Project.__new__(Project)
    other.root = clone
    other.run("dvc", "cache", "dir", "--local", str(project.root / ".dvc" / "cache"))
    other.run("dvc", "checkout")
    assert "code.json" in other.run("dvc", "status").stdout, "it is not there yet, and DVC says so"
    locked = (clone / "dvc.lock").read_bytes()
    other.run("dvc", "repro", "--quiet")
    assert not (clone / "ran").exists()
    assert (clone / "dvc.lock").read_bytes() == locked
