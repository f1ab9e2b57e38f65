"""Removal of stale entries from DVC's file lock whose process id was reused by another program.

DVC removes an entry if no process has its id, and waits forever if one does (dvc/rwlock.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

BLOCKED = re.compile(r"\(PID (\d{1,10})\)")
SLACK_S = 2.0  # tolerance between process start times and file times
INTERPRETERS = re.compile(r"python|dvc", re.IGNORECASE)


def named(errors: str) -> list[int]:
    """Return the ids of the processes that block DVC, from its error message."""
    return sorted({int(number) for number in BLOCKED.findall(errors)}) if "is being blocked by" in errors else []


def forget(root: Path, holders: Iterable[int]) -> bool:
    """Remove the lock's entries of those `holders` that cannot have made them; return whether there were any.

    Holds DVC's own lock on the file, as every writer does. Changes nothing if that lock is held by another process or
    the file is not in DVC's format.
    """
    from dvc.lock import LockError, make_lock

    folder = root / ".dvc" / "tmp"
    path = folder / "rwlock"
    try:
        with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):
            written = path.stat().st_mtime
            gone = [pid for pid in holders if stranger(pid, written)]
            found = json.loads(path.read_text(encoding="utf-8"))
            left = _without(found, set(gone))
            if left != found:
                path.write_text(json.dumps(left), encoding="utf-8")
            return bool(left != found)
    except (LockError, OSError, ValueError, TypeError, AttributeError, KeyError):
        return False


def stranger(pid: int, written: float) -> bool:
    """Return whether process `pid` cannot have made an entry in a file last written at time `written`.

    True if the process is gone, is a zombie, was started later, or is neither DVC nor a Python interpreter. False if
    the system does not permit the check.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or process.create_time() > written + SLACK_S:
            return True
        words = [process.name(), *process.cmdline()[:3]]
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
    return not any(INTERPRETERS.search(word) for word in words)


def _without(lock: dict[str, Any], gone: set[int]) -> dict[str, Any]:
    """Return the lock's content without the entries of the processes `gone`."""
    write = {file: entry for file, entry in lock.get("write", {}).items() if entry["pid"] not in gone}
    read = {
        file: kept
        for file, entries in lock.get("read", {}).items()
        if (kept := [entry for entry in entries if entry["pid"] not in gone])
    }
    return {**({"write": write} if write else {}), **({"read": read} if read else {})}
