"""How one command becomes several processes, and how none of them outlives the command. No torch here.

`accelerate launch --cpu --num_processes 2` runs one process and says nothing; torchrun with ACCELERATE_USE_CPU=true
runs two. How many is a matter of the machine: of the environment variables VQBET_PROCESSES (that train) and
VQBET_WORKERS (that play episodes), never of a parameter.
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
    """How many processes a training should use: $VQBET_PROCESSES, else 1. Raises TrainingError for anything odd."""
    if (count := _count(VARIABLE, 1)) is None:
        raise TrainingError(_odd(VARIABLE))
    return count


def workers() -> int:
    """How many processes play episodes: $VQBET_WORKERS, else one for each core this process may use.

    Raises PipelineError for anything odd.
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
    """Whether this process is the one that writes files: the only one, or rank 0 of several."""
    return os.environ.get("RANK", "0") == "0"


def relaunch(argv: Sequence[str], *, module: str = "vqbet") -> int | None:
    """Run `python -m <module> <argv>` as $VQBET_PROCESSES processes and give their exit code.

    None where there is nothing to launch: one process is wanted, or this already is one of several. SIGINT and SIGTERM
    are passed on, and waited for, so that the training can write its checkpoint; the code is then 128 + the signal.
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
    """Ask Linux to send this process SIGTERM when the process that started it is gone; elsewhere nothing happens.

    parent: its number, for a process that takes so long to start that it may be gone already. A training that is told
    so writes its checkpoint and ends, instead of racing with the next one.
    """
    if sys.platform != "linux":
        return
    parent = parent or os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        signal.raise_signal(signal.SIGTERM)
