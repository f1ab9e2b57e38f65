"""Annotated tags of the project's git repository, made once and read back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from vqbet.contract import PipelineError

TIMEOUT_S = 60.0


def make(root: Path, name: str, message: str) -> bool:
    """Make the annotated tag `name` at the present commit; False where there is one of that name.

    Raises PipelineError in git's words where it refuses: no repository, no commit, no name of a committer.
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
    """Names and messages of the tags below `prefix`, by name; none where there is no repository.

    The message of a tag that is not annotated is its commit's.
    """
    names = _asked(root, "for-each-ref", "--format=%(refname:strip=2)", f"refs/tags/{prefix}")
    for name in names.stdout.splitlines() if names.returncode == 0 else ():
        yield name, _asked(root, "for-each-ref", "--format=%(contents:subject)", f"refs/tags/{name}").stdout.strip()


def ready(root: Path) -> None:
    """Raises PipelineError where no annotated tag can be made here, in git's words."""
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
