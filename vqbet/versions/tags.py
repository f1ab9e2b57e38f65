"""Annotated tags of the project's git repository: created once, and read."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from vqbet.contract import PipelineError

TIMEOUT_S = 60.0


def make(root: Path, name: str, message: str) -> bool:
    """Create the annotated tag `name` at the current commit; return False if the tag exists.

    Raises PipelineError with git's message if git refuses: no repository, no commit, no committer identity.
    """
    if _asked(root, "rev-parse", "--verify", "--quiet", f"refs/tags/{name}").returncode == 0:
        return False
    done = _asked(root, "tag", "--annotate", "--message", message, "--", name)
    if done.returncode and "already exists" in done.stderr:
        return False
    if done.returncode:
        raise _refused(root, f"make the tag {name}", done)
    return True


def read(root: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield name and message of each tag below `prefix`, by name; nothing if there is no repository.

    The message of a lightweight tag is that of its commit.
    """
    names = _asked(root, "for-each-ref", "--format=%(refname:strip=2)", f"refs/tags/{prefix}")
    for name in names.stdout.splitlines() if names.returncode == 0 else ():
        yield name, _asked(root, "for-each-ref", "--format=%(contents:subject)", f"refs/tags/{name}").stdout.strip()


def ready(root: Path) -> None:
    """Raise PipelineError with git's message if no annotated tag can be created here."""
    for arguments in (("rev-parse", "--verify", "HEAD"), ("var", "GIT_COMMITTER_IDENT")):
        done = _asked(root, *arguments)
        if done.returncode:
            raise _refused(root, "make a tag", done)


def _asked(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(["git"], 1, "", str(error))


def _refused(root: Path, action: str, done: subprocess.CompletedProcess[str]) -> PipelineError:
    reason = " ".join(done.stderr.split())[:300] or "it gave no reason"
    return PipelineError(
        f"{root}: git cannot {action}: {reason}; mend that, or choose another promotion.publish in params.yaml"
    )
