"""Exclusion of an ingest and the stages of the graph, by DVC's own lock: data/ does not change under a training.

DVC records the hash of what a stage depends on when the stage has ended. If data/ changed before, dvc.lock would say
that the policy was trained on demonstrations that it never saw.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from vqbet.contract import PipelineError
from vqbet.versions import strangers

WRITER = "vqbet ingest"  # as which DVC names this process to others


def busy(root: Path) -> str:
    """Return who reads or changes data/ at this moment, and since when; "" where nobody does. Does not wait.

    Raises PipelineError as `alone`.
    """
    try:
        with alone(root):
            return ""
    except Busy as error:
        return error.sentence


class Busy(PipelineError):
    """Somebody else uses data/. sentence: who, and since when."""

    def __init__(self, sentence: str, advice: str) -> None:
        super().__init__(f"{sentence}; {advice}")
        self.sentence = sentence


@contextmanager
def alone(root: Path, advice: str = "run it again when that has ended") -> Iterator[None]:
    """Hold DVC's lock on data/ as a writer, so that no stage begins to read it.

    Raises Busy at once where a stage reads it, or another process changes it. advice: what to do then. A project
    without DVC needs no lock.
    """
    if not (root / ".dvc").is_dir():
        yield
        return
    with ExitStack() as held:
        found = _entered(root, held)
        if found and strangers.forget(root, strangers.named(found)):
            found = _entered(root, held)
        if found:
            raise Busy(f"{root / 'data'}: {_told(root, found)}", advice)
        yield


def _entered(root: Path, held: ExitStack) -> str:
    """Enter DVC's lock; return its message where it is held by others."""
    from dvc.fs import localfs
    from dvc.lock import LockError
    from dvc.rwlock import rwlock

    folder = root / ".dvc" / "tmp"
    folder.mkdir(exist_ok=True)
    try:
        held.enter_context(rwlock(str(folder), localfs, WRITER, [], [str((root / "data").resolve())], False))
    except LockError as error:
        return str(error)
    return ""


def _told(root: Path, found: str) -> str:
    """Return who holds the lock: the outputs that a stage makes are in the lock as well."""
    for pid in strangers.named(found):
        try:
            since = time.strftime("%H:%M", time.localtime(psutil.Process(pid).create_time()))
        except psutil.Error:
            continue
        made = _written(root, pid)
        stage = f"the stage that makes {made} reads it" if made else "another command of DVC uses it"
        return f"{stage} (process {pid}, since {since})"
    return "DVC's lock on it is held by another process"


def _written(root: Path, pid: int) -> str:
    """Return the first output that a process makes, relative to the project; "" where it makes none outside data/."""
    try:
        entries: dict[str, Any] = json.loads((root / ".dvc" / "tmp" / "rwlock").read_bytes()).get("write", {})
    except (OSError, ValueError, AttributeError):
        return ""
    mine = sorted(path for path, entry in entries.items() if entry.get("pid") == pid)
    home = root.resolve()
    inside = [str(Path(path).relative_to(home)) for path in mine if Path(path).is_relative_to(home)]
    return next((path for path in inside if not path.startswith("data")), "")
