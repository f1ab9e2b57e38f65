"""Exchange of a clone with its team: content from and to DVC's remote, and commits to the team's branch."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vqbet.contract import PipelineError
from vqbet.versions import transfer
from vqbet.versions.git import git_commit

TRIES = 5  # to push a commit while other runs push theirs


def pull(root: Path, task: str, stages: Sequence[str]) -> None:
    """Bring data/ and the outputs that dvc.lock names of the task's stages here, as far as the remote has them.

    What is missing is made again by whoever needs it. Raises PipelineError if the remote does not answer.
    """
    if (root / "data.dvc").is_file():
        transfer.bring(root, "data.dvc")
    lock = root / "dvc.lock"
    known = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    if made := [f"{name}@{task}" for name in stages if f"\n  {name}@{task}:\n" in known]:
        transfer.bring(root, *made)


def give(root: Path, task: str, stages: Sequence[str]) -> None:
    """Copy data/ and the outputs of the task's stages to the remote. Raises PipelineError."""
    transfer.send(root, "data.dvc", *[f"{name}@{task}" for name in stages])


def commit(root: Path, branch: str, message: str, names: Sequence[str]) -> str:
    """Commit the files `names` and push them to `branch` of the repository that this clone is of.

    Commits of other runs that came first are kept: ours goes on top of them. If both changed the same lines, ours goes
    to a branch of its own, which the returned sentence names. Returns a sentence. Raises PipelineError.
    """
    _git(root, "add", "--", *[name for name in names if (root / name).is_file()])
    if not _git(root, "diff", "--cached", "--name-only"):
        return f"nothing to commit: {branch} has it at {git_commit(root)[:12]}"
    _git(root, "commit", "--quiet", "--message", message)
    for _ in range(TRIES):
        if not (refused := _refusal(root, "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")):
            return f"committed to {branch}: {git_commit(root)[:12]}"
        _git(root, "fetch", "--quiet", "origin", branch)
        if _refusal(root, "rebase", "--quiet", "--autostash", "FETCH_HEAD"):
            _git(root, "rebase", "--abort")
            aside = f"{branch}-{git_commit(root)[:12]}"
            _git(root, "push", "--quiet", "origin", f"HEAD:refs/heads/{aside}")
            return f"{branch} has changed the same lines meanwhile; committed to {aside}, to be merged by a person"
    raise PipelineError(f"{root}: cannot be pushed to {branch} in {TRIES} tries: {refused}")


def advance(root: Path, repository: str, branch: str) -> str:
    """Move `branch` of a repository forward to this project's commit, and return the commit.

    Raises PipelineError if there is none, or the branch has commits that this project lacks.
    """
    head = _git(root, "rev-parse", "HEAD").strip()
    if refused := _refusal(root, "push", "--quiet", repository, f"{head}:refs/heads/{branch}"):
        raise PipelineError(
            f"{branch}: cannot be moved to {head[:12]}: {refused}; if runs have committed to it, take that over first: "
            f"git pull {shown(repository)} {branch}"
        )
    return head


def shown(address: str) -> str:
    """Return an address without user and password, for messages."""
    return re.sub(r"//[^/@\s]*@", "//", address)


def _refusal(root: Path, *arguments: str) -> str:
    try:
        _git(root, *arguments)
    except PipelineError as error:
        return str(error)
    return ""


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PipelineError(f"git cannot be started: {error.strerror}; install it") from error
    if done.returncode:
        raise PipelineError(f"git {arguments[0]} in {root}: {shown(' '.join(done.stderr.split()))[-400:]}")
    return done.stdout
