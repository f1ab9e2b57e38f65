"""Commits of several clones to one branch: none is lost, and the same lines are never merged blindly."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vqbet import versions
from vqbet.contract import PipelineError


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    return subprocess.run(
        ["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "dvc.lock").write_text("one: 1\n\n\n\n\n\ntwo: 1\n")
    (folder / "data.dvc").write_text("md5: a\n")
    for command in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-qm", "first"), ("branch", "team")):
        git(folder, *command)
    return folder


def clone(repository: Path, name: str) -> Path:
    folder = repository.parent / name
    git(repository, "clone", "-q", "--single-branch", "-b", "team", str(repository), str(folder))
    git(folder, "config", "user.name", name)
    git(folder, "config", "user.email", f"{name}@localhost")
    return folder


def give(folder: Path) -> str:
    return versions.commit(folder, "team", f"by {folder.name}", ["data.dvc", "dvc.lock", "not there"])


def test_commits_of_two_runs_both_arrive(repository: Path) -> None:
    ann, bob = clone(repository, "ann"), clone(repository, "bob")
    (ann / "data.dvc").write_text("md5: b\n")
    (bob / "dvc.lock").write_text("one: 1\n\n\n\n\n\ntwo: 2\n")
    assert give(ann).startswith("committed to team: ")
    assert give(bob).startswith("committed to team: ")
    assert git(repository, "log", "--format=%s", "team").splitlines() == ["by bob", "by ann", "first"]
    assert git(repository, "show", "team:data.dvc") == "md5: b"
    assert git(repository, "show", "team:dvc.lock").endswith("two: 2")


def test_the_same_lines_go_to_a_branch_of_their_own(repository: Path) -> None:
    ann, bob = clone(repository, "ann"), clone(repository, "bob")
    for folder, value in ((ann, 2), (bob, 3)):
        (folder / "dvc.lock").write_text(f"one: {value}\n\n\n\n\n\ntwo: 1\n")
    give(ann)
    said = give(bob)
    assert "team has changed the same lines meanwhile; committed to team-" in said
    aside = said.split("committed to ")[1].split(",")[0]
    assert git(repository, "show", f"{aside}:dvc.lock").startswith("one: 3")
    assert git(repository, "show", "team:dvc.lock").startswith("one: 2")


def test_nothing_new_is_no_commit(repository: Path) -> None:
    assert give(clone(repository, "ann")).startswith("nothing to commit: team has it at ")


def test_the_branch_moves_forward_only(repository: Path) -> None:
    ann = clone(repository, "ann")
    (ann / "data.dvc").write_text("md5: b\n")
    give(ann)
    with pytest.raises(PipelineError, match=r"team: cannot be moved to \w{12}: .*; if runs have committed to it"):
        versions.advance(repository, str(repository), "team")
    git(repository, "merge", "-q", "team")
    assert versions.advance(repository, str(repository), "team") == git(repository, "rev-parse", "team")


def test_no_password_of_an_address_is_shown(repository: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        versions.advance(repository, "https://ann:hidden@127.0.0.1:1/x.git", "team")
    assert "hidden" not in str(caught.value)
    assert versions.shown("https://ann:hidden@host/x") == "https://host/x"
