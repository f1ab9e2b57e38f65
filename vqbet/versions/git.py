"""What git knows about the project: where it stands, and what a committed file holds. Reads only."""

from __future__ import annotations

import subprocess
from pathlib import Path

READ = ("vqbet/", "flows/", "infra/", "params.yaml", "dvc.yaml", "data.dvc", "dvc.lock")  # by the graph


def git_commit(root: Path) -> str:
    """The commit the project stands at, with "-dirty" where files differ from it; empty where there is none."""
    answer = _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return answer.decode().strip() if answer else ""


def as_committed(root: Path, name: str) -> bool | None:
    """Whether the file `name` has the bytes of the last commit; None where the last commit has no such file."""
    content = committed(root, name)
    return None if content is None else (root / name).is_file() and (root / name).read_bytes() == content


def committed(root: Path, name: str) -> bytes | None:
    """The file `name` as the last commit holds it; None where there is no commit, or none with such a file."""
    return _git(root, "show", f"HEAD:./{name}")


def tracked(root: Path) -> bool:
    """Whether the project is in a git repository, as DVC needs it."""
    return _git(root, "rev-parse", "--git-dir") is not None


def dirty(root: Path) -> list[str]:
    """Files that differ from the last commit, sorted: changed ones that git tracks, and new ones that the graph reads.

    Paths are relative to `root`. Empty where there is no commit.
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
    """What git answers, or None where it has no answer: no git, no repository, no commit, no such file."""
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
