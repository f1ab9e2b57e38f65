"""Read-only queries to git: committed content, and files that git may commit."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path

PROJECT = "VQBET_PROJECT"  # set by vqbet.environment.prepare: the project's root
FILE = "infra/trust.yaml"
TIMEOUT_S = 30.0
ELSEWHERE = {  # set by a hook or an outer git; they point to another repository or other objects
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
}


class GitSilentError(Exception):
    """Git cannot answer. The message is git's reason."""


def project() -> Path | None:
    """Return the project's root: $VQBET_PROJECT, else the nearest folder at or above this one with a params.yaml."""
    if named := os.environ.get(PROJECT, ""):
        return Path(named)
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "params.yaml").is_file()), None)


def in_git(folder: Path) -> bool:
    """Return whether `folder` (absolute) lies in a git work tree."""
    return any((parent / ".git").exists() for parent in (folder, *folder.parents))


def committed(root: Path, name: str) -> bytes | None:
    """Return the bytes of the file `name` in the last commit, None if there is no such file or no commit.

    Raises GitSilentError if git cannot answer.
    """
    listed = _git(root, "ls-tree", "HEAD", "--", name)
    if listed is None and _git(root, "rev-parse", "--verify", "--quiet", "HEAD") is None:
        if _git(root, "rev-parse", "--git-dir") is not None:
            return None  # a repository without a commit
        raise GitSilentError(_reason(root))
    if not listed:
        return None
    mode, kind, blob = listed.decode().split(None, 3)[:3]
    if kind != "blob" or mode == "120000":
        raise GitSilentError(f"{name} is committed as a link or a folder, expected a file")
    return _blob(root, blob)


def exposed(path: Path) -> bool:
    """Return whether the file `path` (absolute) would lie in a git work tree that does not ignore it."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    return in_git(folder.resolve()) and _git(folder, "check-ignore", "--quiet", str(path)) is None


@lru_cache(maxsize=16)
def _blob(root: Path, name: str) -> bytes:
    """Return the content of the blob with hash `name`. Cached, because a blob never changes."""
    content = _git(root, "cat-file", "blob", name)
    if content is None:
        raise GitSilentError(f"object {name} is missing")
    return content


def _git(root: Path, *arguments: str) -> bytes | None:
    done = _asked(root, arguments)
    return done.stdout if done is not None and done.returncode == 0 else None


def _reason(root: Path) -> str:
    done = _asked(root, ("rev-parse", "--git-dir"))
    return "there is no git here" if done is None else " ".join(done.stderr.decode(errors="replace").split())[:300]


def _asked(root: Path, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[bytes] | None:
    try:
        return subprocess.run(
            ["git", "--no-replace-objects", *arguments],
            cwd=root,
            env={name: value for name, value in os.environ.items() if name not in ELSEWHERE},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
