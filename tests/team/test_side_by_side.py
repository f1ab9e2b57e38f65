"""Runs of two tasks that commit dvc.lock side by side: both reach the branch; one stage changed twice does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vqbet import versions
from vqbet.team import lock_merge, run
from vqbet.team.lock_merge import StageConflictError

HEAD = "schema: '2.0'\nstages:\n"


def stage(name: str, md5: str) -> str:
    return f"  {name}:\n    cmd: x\n    outs:\n    - path: a\n      md5: {md5}\n"


def git(folder: Path, *argv: str) -> str:
    done = subprocess.run(["git", "-C", folder, *argv], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def clones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two clones of a team's branch, as runs have them."""
    monkeypatch.setenv("VQBET_DATA", str(tmp_path / "remote"))
    origin = tmp_path / "origin"
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", str(origin))
    (origin / ".dvc").mkdir()
    (origin / ".dvc" / "config").write_text("")
    git(origin, "add", "-A")
    git(origin, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "-m", "project")
    git(origin, "branch", "runs")
    return [run.prepared(tmp_path / "the runs", name * 8, str(origin), "runs") for name in "ab"]


def committed(clone: Path, text: str) -> str:
    (clone / "dvc.lock").write_text(text)
    return versions.commit(clone, "runs", "a run", ("dvc.lock",))


def test_first_locks_of_two_tasks_are_both_on_the_branch(clones: list[Path]) -> None:
    one, two = clones
    for name, clone in (("prior@arm", one), ("prior@hand", two)):
        assert committed(clone, HEAD + stage(name, "1")).startswith("committed to runs: ")
    assert (two / "dvc.lock").read_text() == HEAD + stage("prior@arm", "1") + stage("prior@hand", "1")
    assert git(two, "log", "--merges", "--format=%h", "origin/runs") == ""


def test_neighbouring_stages_that_both_changed_are_both_on_the_branch(clones: list[Path]) -> None:
    one, two = clones
    committed(one, HEAD + stage("gate@arm", "1") + stage("gate@hand", "1"))
    git(two, "pull", "--quiet")
    assert committed(one, HEAD + stage("gate@arm", "2") + stage("gate@hand", "1")).startswith("committed to runs: ")
    assert committed(two, HEAD + stage("gate@arm", "1") + stage("gate@hand", "2")).startswith("committed to runs: ")
    assert (two / "dvc.lock").read_text() == HEAD + stage("gate@arm", "2") + stage("gate@hand", "2")


def test_one_stage_changed_twice_goes_aside(clones: list[Path]) -> None:
    one, two = clones
    committed(one, HEAD + stage("gate@arm", "1"))
    git(two, "pull", "--quiet")
    committed(one, HEAD + stage("gate@arm", "2"))
    assert "committed to runs-" in committed(two, HEAD + stage("gate@arm", "3"))


def test_stages_are_added_removed_and_kept() -> None:
    a, b, c = stage("a@t", "1"), stage("b@t", "1"), stage("c@t", "1")
    assert lock_merge.merged(HEAD + a + b, HEAD + a, HEAD + a + b + c) == HEAD + a + c
    assert lock_merge.merged(HEAD + a + b, HEAD + a + b, HEAD + b) == HEAD + b
    assert lock_merge.merged("", "", HEAD + a) == HEAD + a
    with pytest.raises(StageConflictError, match="a@t"):
        lock_merge.merged(HEAD + a, HEAD + stage("a@t", "2"), HEAD)
