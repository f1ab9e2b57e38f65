"""Processes that outlive the command that starts them, known again by number and time of start.

Each runs in a session of its own and carries a mark in its environment, which its children inherit. So all of a part
can be found and ended, also after its first process was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from vqbet.contract import TeamError
from vqbet.files import atomic

MARK = "VQBET_TEAM_PART"  # <folder of the part>, in the environment of each of its processes
GRACE_S = 20.0  # from the request to end until the kill
KILLED_S = 5.0
CLOCK_S = 2.0  # by which the time of a process's start may differ, as the clock is set
MOST_LOG_BYTES = 16 << 20  # a longer log is set aside when its part is started


@dataclass(frozen=True)
class Launch:
    """Start of a part: its command, its whole environment, its working directory, and its user ("": this one)."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    directory: Path
    user: str = ""
    ending: signal.Signals = signal.SIGTERM


def start(folder: Path, launch: Launch) -> int:
    """Start a part whose log and process number are kept in `folder`; return the number. Raises TeamError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = folder / "log"
    if log.is_file() and log.stat().st_size > MOST_LOG_BYTES:
        shutil.move(log, folder / "log.old")
    try:
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            process = subprocess.Popen(
                list(launch.command),
                cwd=launch.directory,
                env={**launch.environment, MARK: str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=launch.user or None,
                start_new_session=True,
            )
    except OSError as error:
        raise TeamError(f"{folder.name}: {launch.command[0]} cannot be started: {error.strerror}") from error
    note = {"pid": process.pid, "started": psutil.Process(process.pid).create_time(), "boot": _boot()}
    atomic.write(folder / "process.json", json.dumps(note), TeamError, private=True)
    return process.pid


def running(folder: Path) -> int:
    """Return the number of the part's first process, 0 if it does not run."""
    note = _noted(folder)
    with suppress(psutil.Error):
        process = psutil.Process(int(note["pid"])) if note else None
        if process and _is(process, note) and process.status() != psutil.STATUS_ZOMBIE:
            return process.pid
    return 0


def left(folder: Path) -> list[psutil.Process]:
    """Return every process of the part, whether or not its first one runs."""
    note = _noted(folder)
    session = int(note["pid"]) if note and _may_lead(note) else 0
    return [process for process in _own() if _belongs(process, folder, session)]


def end(folder: Path, ending: signal.Signals = signal.SIGTERM) -> None:
    """Ask the part's first process to end, and kill all that is left after GRACE_S seconds.

    Raises TeamError if a process does not end even then.
    """
    if first := running(folder):
        with suppress(ProcessLookupError):
            os.kill(first, ending)
        with suppress(psutil.Error):
            psutil.Process(first).wait(GRACE_S)
    deadline = time.monotonic() + KILLED_S
    while remaining := left(folder):
        for process in remaining:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(remaining, timeout=1.0)
        if time.monotonic() > deadline:
            numbers = ", ".join(str(process.pid) for process in remaining)
            raise TeamError(f"{folder.name}: process {numbers} does not end; look at it: ps -p {numbers}")
    (folder / "process.json").unlink(missing_ok=True)


def last_words(folder: Path) -> str:
    """Return the last line of the part's log that says something, shortened."""
    try:
        lines = (folder / "log").read_bytes()[-4096:].decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:200] for line in reversed(lines) if any(sign.isalnum() for sign in line)), "")


def _noted(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "process.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # never started, or ended
        return {}
    return found if isinstance(found, dict) and found.get("boot") == _boot() and "pid" in found else {}


def _boot() -> str:
    """Return what differs after every start of this machine; process numbers from before mean nothing. Linux only."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _is(process: psutil.Process, note: Mapping[str, Any]) -> bool:
    return abs(process.create_time() - float(note.get("started", 0))) < CLOCK_S


def _may_lead(note: Mapping[str, Any]) -> bool:
    """Return False if the number of the part's first process is another program's now."""
    try:
        return _is(psutil.Process(int(note["pid"])), note)
    except psutil.NoSuchProcess:
        return True


def _own() -> Iterator[psutil.Process]:
    """Yield the processes that this user may end."""
    mine = os.geteuid()
    for process in psutil.process_iter(["uids", "status"]):
        uids = process.info["uids"]
        if mine in (0, uids.real if uids else -1) and process.info["status"] != psutil.STATUS_ZOMBIE:
            yield process


def _belongs(process: psutil.Process, folder: Path, session: int) -> bool:
    with suppress(psutil.Error, ProcessLookupError):
        if session and os.getsid(process.pid) == session:
            return True
        return process.environ().get(MARK) == str(folder)
    return False
