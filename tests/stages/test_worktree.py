"""A dirty working copy: its files are named, and a task can forbid to judge and to promote from one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vqbet import config, registry, versions
from vqbet.commands import release
from vqbet.contract import GateError
from vqbet.stages import runner, worktree
from vqbet.stages.progress import Watch

ROOT = Path(__file__).resolve().parent.parent.parent
DVC = "outs:\n- md5: {}.dir\n  size: 1\n  nfiles: 1\n  hash: md5\n  path: data\n"


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=ann", "-c", "user.email=ann@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project in a folder of a repository, all of it committed."""
    root = tmp_path / "a repository" / "a project"
    (root / "vqbet").mkdir(parents=True)
    (root / "vqbet" / "nets.py").write_text("old")
    (root / "dvc.lock").write_text("old")
    (root / "data.dvc").write_text(DVC.format("0" * 32))
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (root / "params.yaml").write_text(params.replace("clean: false", "clean: true"), encoding="utf-8")
    git(root.parent, "init", "--quiet")
    git(root.parent, "add", "-A")
    git(root.parent, "commit", "-qm", "all")
    return root


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "none": (lambda root: None, []),
    "parameters": (lambda root: (root / "params.yaml").write_text("x"), ["params.yaml"]),
    "code": (lambda root: (root / "vqbet" / "nets.py").write_text("new"), ["vqbet/nets.py"]),
    "new code": (lambda root: (root / "vqbet" / "mine.py").write_text("new"), ["vqbet/mine.py"]),
    "never committed": (lambda root: git(root, "rm", "-q", "--cached", "data.dvc"), ["data.dvc"]),
    "removed": (lambda root: (root / "vqbet" / "nets.py").unlink(), ["vqbet/nets.py"]),
    "staged": (lambda root: ((root / "data.dvc").write_text("x"), git(root, "add", "-A")), ["data.dvc"]),
    "renamed": (
        lambda root: git(root, "mv", "vqbet/nets.py", "vqbet/ä b.py"),
        ["vqbet/nets.py", "vqbet/ä b.py"],
    ),
    "a film": (lambda root: (root / "rollout.webm").write_text("film"), []),
    "beside it": (lambda root: (root.parent / "vqbet").mkdir(), []),
    "the lock": (lambda root: (root / "dvc.lock").write_text("new"), ["dvc.lock"]),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_differs_is_named_and_refused_where_asked(root: Path, case: str) -> None:
    change, expected = CHANGES[case]
    change(root)
    assert versions.dirty(root) == expected
    assert (root.parent / ".git" / "index.lock").exists() is False
    worktree.refuse_dirty(root, "tiny: nothing was judged", required=False)
    if expected in ([], ["dvc.lock"]):
        worktree.refuse_dirty(root, "tiny: nothing was judged", required=True)
    else:
        with pytest.raises(GateError, match=rf"^tiny: nothing was judged: .*{expected[0]}.* from the last commit"):
            worktree.refuse_dirty(root, "tiny: nothing was judged", required=True)


def test_the_tags_of_runs_and_versions(root: Path) -> None:
    assert worktree.tags(root)["dirty"] == "nothing"
    for number in range(12):
        (root / "vqbet" / f"new{number:02d}.py").write_text("x")
    found = worktree.tags(root)
    assert found["data_dvc"] == "0" * 32 + ".dir"
    assert found["dirty"].startswith("vqbet/new00.py, vqbet/new01.py, ")
    assert found["dirty"].endswith("vqbet/new09.py and 2 more")


def test_a_project_without_a_commit(tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text(DVC.format("0" * 32))
    assert versions.dirty(tmp_path) == []
    assert worktree.tags(tmp_path) == {
        "data_dvc": "0" * 32 + ".dir",
        "git_commit": "none",
        "dirty": "everything: there is no commit",
    }
    with pytest.raises(GateError, match=r"asks for a commit, and .* has none"):
        worktree.refuse_dirty(tmp_path, "tiny: nothing was judged", required=True)


def test_the_gate_and_a_promotion_ask(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "check", lambda: None)
    params = config.task(root / "params.yaml", "blockpush")
    assert params.promotion.clean
    (root / "vqbet" / "nets.py").write_text("new")
    with pytest.raises(GateError, match=r"^blockpush: nothing was judged: .*vqbet/nets\.py differs"):
        runner.run(root, "blockpush", "gate", params, Watch())
    with pytest.raises(GateError, match=r"^blockpush: nothing was promoted: .*vqbet/nets\.py differs"):
        release.promote(root, "blockpush", candidate=0, why="w", watch=Watch())
