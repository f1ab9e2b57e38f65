"""Read-only queries to git: the current commit, the content of committed files, and uncommitted changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

READ = ("vqbet/", "flows/", "infra/", "params.yaml", "dvc.yaml", "data.dvc", "dvc.lock")  # paths that the graph reads


def git_commit(root: Path) -> str:
    """Return the current commit, with "-dirty" if files differ from it; empty if there is none."""
    answer = _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return answer.decode().strip() if answer else ""


def as_committed(root: Path, name: str) -> bool | None:
    """Return whether the file `name` equals its last commit; None if the last commit has no such file."""
    content = committed(root, name)
    return None if content is None else (root / name).is_file() and (root / name).read_bytes() == content


def committed(root: Path, name: str) -> bytes | None:
    """Return the bytes of the file `name` in the last commit; None if there is no commit or no such file."""
    return _git(root, "show", f"HEAD:./{name}")


def tracked(root: Path) -> bool:
    """Return whether the project is in a git repository, which DVC needs."""
    return _git(root, "rev-parse", "--git-dir") is not None


def dirty(root: Path) -> list[str]:
    """Return the files that differ from the last commit, sorted: changed tracked files and new files the graph reads.

    Paths are relative to `root`. Returns an empty list if there is no commit.
    """
    asked = ("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--", ".")
    answer = _git(root, "--no-optional-locks", *asked)
    if answer is None or not git_commit(root):
        return []
    prefix = (_git(root, "rev-parse", "--show-prefix") or b"").decode().strip()
    entries = [entry for entry in answer.decode(errors="replace").split("\0") if entry]
    changed = {entry[3:].removeprefix(prefix) for entry in entries if not entry.startswith("??")}
    new = {entry[3:].removeprefix(prefix) for entry in entries if entry.startswith("??")}
    return sorted(changed | {path for path in new if path.startswith(READ)})


def _git(root: Path, *arguments: str) -> bytes | None:
    """Return git's output, or None if git fails: no git, no repository, no commit, no such file."""
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
