"""Entries of DVC's lock on files whose process is gone, and whose number another program has since.

DVC removes an entry once no process has its number, and waits for ever where one does (dvc/rwlock.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

BLOCKED = re.compile(r"\(PID (\d{1,10})\)")
SLACK_S = 2.0  # between clocks and time stamps
INTERPRETERS = re.compile(r"python|dvc", re.IGNORECASE)


def named(errors: str) -> list[int]:
    """The processes by which DVC says that it is blocked."""
    return sorted({int(number) for number in BLOCKED.findall(errors)}) if "is being blocked by" in errors else []


def forget(root: Path, holders: Iterable[int]) -> bool:
    """Remove the lock's entries of those holders that cannot have made them; whether there were some.

    Under DVC's own lock on that file, which whoever changes it holds; where it is busy, or the file is not as DVC
    writes it, nothing is changed.
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
    """Whether a process cannot have made an entry in a file that was last written at that time.

    It is gone or has ended, it was started later, or is neither DVC nor a Python that could have loaded it. Where the
    system does not tell, the process is left its entry.
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
    """The lock's content without the entries of those processes."""
    write = {file: entry for file, entry in lock.get("write", {}).items() if entry["pid"] not in gone}
    read = {
        file: kept
        for file, entries in lock.get("read", {}).items()
        if (kept := [entry for entry in entries if entry["pid"] not in gone])
    }
    return {**({"write": write} if write else {}), **({"read": read} if read else {})}
