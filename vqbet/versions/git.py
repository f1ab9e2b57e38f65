"""What git knows about the project: where it stands, and what a committed file holds. Reads only."""

from __future__ import annotations

import subprocess
from pathlib import Path


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


def _git(root: Path, *arguments: str) -> bytes | None:
    """What git answers, or None where it has no answer: no git, no repository, no commit, no such file."""
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
