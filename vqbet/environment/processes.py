"""Launching a command as several processes, none of which outlives the command. Does not import torch.

`accelerate launch --cpu --num_processes 2` silently runs one process; torchrun with ACCELERATE_USE_CPU=true runs two.
The number of processes depends on the machine, so it is set by the environment variables VQBET_PROCESSES (training) and
VQBET_WORKERS (episodes), never by a parameter.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from vqbet.contract import PipelineError, TrainingError

VARIABLE, WORKERS = "VQBET_PROCESSES", "VQBET_WORKERS"
MOST = 1024
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def processes() -> int:
    """Return the number of training processes: $VQBET_PROCESSES, else 1. Raises TrainingError if it is invalid."""
    if (count := _count(VARIABLE, 1)) is None:
        raise TrainingError(_odd(VARIABLE))
    return count


def workers() -> int:
    """Return the number of processes that play episodes: $VQBET_WORKERS, else the cores available to this process.

    Raises PipelineError if $VQBET_WORKERS is invalid.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (count := _count(WORKERS, cores)) is None:
        raise PipelineError(_odd(WORKERS))
    return count


def _count(variable: str, default: int) -> int | None:
    value = os.environ.get(variable, str(default))
    return int(value) if value.isascii() and value.isdigit() and 1 <= int(value) <= MOST else None


def _odd(variable: str) -> str:
    return f"environment variable {variable}: expected a number from 1 to {MOST}, got {os.environ[variable]!r}"


def is_main() -> bool:
    """Return whether this process writes files: it is the only one, or rank 0 of several."""
    return os.environ.get("RANK", "0") == "0"


def relaunch(argv: Sequence[str], *, module: str = "vqbet") -> int | None:
    """Run `python -m <module> <argv>` as $VQBET_PROCESSES processes and return their exit code.

    Returns None if there is nothing to launch: the number is one, or this already is one of several. Forwards SIGINT
    and SIGTERM and waits, so that the training can write its checkpoint; the code is then 128 + the signal.
    """
    count = processes()
    if count == 1 or "LOCAL_RANK" in os.environ:
        return None
    threads = max(1, (os.cpu_count() or 1) // count)
    command = [
        sys.executable,
        "-m",
        "vqbet.environment.agent",
        "--standalone",
        f"--nproc_per_node={count}",
        "-m",
        module,
        *argv,
    ]
    received: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for child in children:
            child.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
        children.append(subprocess.Popen(command, env=environment, start_new_session=True))
        code = children[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else abs(code)


def die_with_parent(parent: int | None = None) -> None:
    """Make Linux send this process SIGTERM when its parent process ends; does nothing on other systems.

    parent: the parent's process id, given if the parent may already have ended while this process was starting. On
    SIGTERM a training writes its checkpoint and ends, instead of racing with the next one.
    """
    if sys.platform != "linux":
        return
    parent = parent or os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        signal.raise_signal(signal.SIGTERM)
