"""Launcher of one run of a deployment: `python -m vqbet.team.run`, the command of every deployment.

Makes a clone of the team's branch, points DVC at the team's remote and at this machine's cache, and becomes Prefect's
engine there. So a run executes exactly one commit, and never sees another run's files. Without $VQBET_REPOSITORY the
run works in $VQBET_ROOT itself.

    $VQBET_RUNS/<id of the run>   clones; the newest stay for a look at what a run has made
               /cache             DVC's cache of this machine
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import NoReturn

from vqbet import environment
from vqbet.contract import TeamError
from vqbet.files import atomic
from vqbet.team import lock_merge

RUN = "PREFECT__FLOW_RUN_ID"
BRANCH = "runs"  # not "team", which is the name of a folder too
IN_CLONE = "VQBET_CLONE_OF"  # the branch, for flows; never set by a person
KEPT = 4  # clones of ended runs that stay
ID = re.compile(r"[0-9a-f-]{8,40}", re.ASCII)
ENGINE = ("-m", "prefect.engine")
SUPERVISED = ("-m", "prefect", "flow-run", "execute")  # in a pod: a run that SIGTERM ends is scheduled again
IN_POD = "KUBERNETES_SERVICE_HOST"


def main() -> NoReturn:
    """Prepare the clone and become the engine. Raises TeamError."""
    root = os.environ.get("VQBET_ROOT", "")
    if repository := os.environ.get("VQBET_REPOSITORY", ""):
        _forget(Path(root))
        branch = os.environ.get("VQBET_BRANCH", BRANCH)
        root = str(prepared(Path(_needed("VQBET_RUNS")), _needed(RUN), repository, branch))
        os.environ[IN_CLONE] = branch
    if not root:
        raise TeamError("VQBET_ROOT: is not set; start the worker with: vqbet worker")
    os.environ["VQBET_ROOT"] = root
    os.chdir(root)
    os.execv(sys.executable, [sys.executable, *(SUPERVISED if os.environ.get(IN_POD) else ENGINE)])


def prepared(runs: Path, run: str, repository: str, branch: str) -> Path:
    """Return the clone of a run, made if it does not exist, and held by this process until it ends.

    A run that goes on after an interruption gets its clone again; where nothing was changed in it, at the newest commit
    of the branch. Raises TeamError.
    """
    if not ID.fullmatch(run):
        raise TeamError(f"{RUN}: expected the id of a run, got {run!r}")
    runs.mkdir(parents=True, exist_ok=True, mode=0o700)
    clone = runs / run
    _hold(runs / f"{run}.lock", run)
    _sweep(runs, clone)
    if not (clone / ".dvc" / "config.local").is_file():
        shutil.rmtree(clone, ignore_errors=True)
        _git(runs, "clone", "--quiet", "--single-branch", "--branch", branch, repository, str(clone))
        _git(clone, "config", "user.name", f"vqbet on {socket.gethostname()}")
        _git(clone, "config", "user.email", f"vqbet@{socket.gethostname()}")
        _merge_by_stages(clone)
        remote(clone, _needed("VQBET_DATA"), cache=runs / "cache")
    else:
        settle(clone, branch)
        if not _git(clone, "status", "--porcelain", "--untracked-files=no"):
            _git(clone, "pull", "--quiet", "--ff-only")
    return clone


def settle(clone: Path, branch: str) -> None:
    """Undo what a process that was killed has left of a commit: git's locks, a rebase, a commit that nobody has.

    The files stay as they are, so that they are committed again. Nobody else may work in the clone. Raises TeamError.
    """
    for lock in (clone / ".git").rglob("*.lock"):
        lock.unlink(missing_ok=True)
    if (clone / ".git" / "rebase-merge").exists():
        _git(clone, "rebase", "--abort")
    _git(clone, "fetch", "--quiet", "origin", branch)
    shared = _git(clone, "merge-base", "HEAD", "FETCH_HEAD").strip()
    if shared != _git(clone, "rev-parse", "HEAD").strip():
        _git(clone, "reset", "--quiet", "--soft", shared)


def _merge_by_stages(clone: Path) -> None:
    """Let git merge dvc.lock in this clone by stages, since several tasks' runs commit to one file."""
    driver = f"{shlex.quote(sys.executable)} -m {lock_merge.__name__} %O %A %B"
    _git(clone, "config", f"merge.{lock_merge.NAME}.driver", driver)
    (clone / ".git" / "info" / "attributes").write_text(lock_merge.ATTRIBUTES, encoding="utf-8")


def remote(clone: Path, address: str, cache: Path | None = None) -> None:
    """Make `address` the default remote of DVC in this clone alone. cache: a cache that clones share."""
    lines = ["[core]", "    remote = team", "['remote \"team\"']", f"    url = {address}", "    verify = true"]
    if cache is not None:
        cache.mkdir(exist_ok=True, mode=0o700)
        lines += ["[cache]", f"    dir = {cache}", "    type = reflink,copy"]
    atomic.write(clone / ".dvc" / "config.local", "\n".join(lines) + "\n", TeamError, private=True)


def _hold(path: Path, run: str) -> None:
    """Lock the run's clone until this process ends, also as the engine that it becomes."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TeamError(f"{path}: a process of run {run} is still at work on this machine; end it first") from error
    os.set_inheritable(handle, True)


def _sweep(runs: Path, but: Path) -> None:
    """Remove the clones of ended runs, except the newest ones."""
    ended = sorted((path for path in runs.iterdir() if ID.fullmatch(path.name)), key=lambda path: path.stat().st_mtime)
    for clone in ended[:-KEPT]:
        lock = runs / f"{clone.name}.lock"
        if clone == but:
            continue
        with closing(lock.open("a")) as handle, suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(clone, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _forget(root: Path) -> None:
    """Remove variables that name folders of the worker's own project; the clone has others."""
    for name, value in environment.embedded(root).items():
        if os.environ.get(name) == value:
            del os.environ[name]


def _needed(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise TeamError(f"{name}: is not set; start the worker with: vqbet worker")
    return value


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = re.sub(r"//[^/@]*@", "//", " ".join(done.stderr.split()))[-300:]
        raise TeamError(f"git {arguments[0]} in {folder}: {said}; if the branch is missing: vqbet flow deploy")
    return done.stdout


if __name__ == "__main__":
    try:
        main()
    except TeamError as error:
        sys.exit(f"error: {error}")
