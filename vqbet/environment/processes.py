"""Launching a command as several processes, none of which outlives the command. Does not import torch.

`accelerate launch --cpu --num_processes 2` silently runs one process; torchrun with ACCELERATE_USE_CPU=true runs two.
The number of processes depends on the machine, so it is set by the environment variables VQBET_PROCESSES (training, of
each machine) and VQBET_WORKERS (episodes), never by a parameter. VQBET_ACCELERATE names a configuration of `accelerate
launch`, such as infra/accelerate/node.yaml. A training over VQBET_MACHINES machines needs one, with its own rank among
them in VQBET_MACHINE and the address of the first one in VQBET_MAIN.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from vqbet.contract import PipelineError, TrainingError

VARIABLE, WORKERS = "VQBET_PROCESSES", "VQBET_WORKERS"
CONFIG, MACHINES, MACHINE, MAIN = "VQBET_ACCELERATE", "VQBET_MACHINES", "VQBET_MACHINE", "VQBET_MAIN"
RESTARTS = 3  # of all processes, after a machine of an elastic training was replaced
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
    """Run `python -m <module> <argv>` as several processes and return their exit code.

    Returns None if there is nothing to launch: their number is one, or this already is one of several. Forwards SIGINT
    and SIGTERM and waits, so that the training can write its checkpoint; the code is then 128 + the signal. Raises
    TrainingError if a variable is invalid.
    """
    if "LOCAL_RANK" in os.environ:
        return None
    count, launcher = _launcher()
    if not launcher:
        return None
    threads = max(1, (os.cpu_count() or 1) // count)
    command = [
        sys.executable,
        "-m",
        "vqbet.environment.agent",
        *launcher,
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


def machine() -> int:
    """Return the rank of this machine in a training over several: $VQBET_MACHINE, else 0. Raises TrainingError."""
    value = os.environ.get(MACHINE, "0")
    if not (value.isascii() and value.isdigit() and int(value) < MOST):
        raise TrainingError(f"environment variable {MACHINE}: expected a rank from 0 to {MOST - 1}, got {value!r}")
    return int(value)


def _launcher() -> tuple[int, list[str]]:
    """Return the number of processes of this machine, and the options of what launches them; none: one process."""
    machines = _count(MACHINES, 1)
    if machines is None:
        raise TrainingError(_odd(MACHINES))
    config = os.environ.get(CONFIG, "")
    if not config:
        if machines > 1:
            raise TrainingError(
                f"{MACHINES} is {machines} and {CONFIG} is not set; set it to infra/accelerate/nodes.yaml, or to a "
                "configuration of your own"
            )
        count = processes()
        return count, ["--standalone", f"--nproc_per_node={count}"] if count > 1 else []
    text = _read(config)
    if MACHINES not in os.environ:
        machines = _stated(config, text, "num_machines")
    count = processes() if VARIABLE in os.environ else _stated(config, text, "num_processes") // machines
    if count * machines == 1:
        return 1, []
    words = ["--accelerate", f"--config_file={config}", f"--num_processes={count * machines}"]
    if machines > 1:
        words += [f"--num_machines={machines}", f"--machine_rank={_rank(machines)}", *_main()]
        backend = re.search(r"^rdzv_backend: *(\w+)", text, re.M)
        if backend and backend[1] != "static":  # Accelerate 1.15 reads the backend from its command line only
            words += [f"--rdzv_backend={backend[1]}", f"--max_restarts={RESTARTS}"]
    return count, words


def _rank(machines: int) -> int:
    if MACHINE not in os.environ or machine() >= machines:
        raise TrainingError(f"{MACHINE}: expected the rank of this machine, from 0 to {machines - 1}; set it on each")
    return machine()


def _main() -> list[str]:
    host, _, port = os.environ.get(MAIN, "").rpartition(":")
    if not host or not port.isdigit():
        raise TrainingError(f"{MAIN}: expected <host>:<port> of the first machine, got {os.environ.get(MAIN, '')!r}")
    return [f"--main_process_ip={host}", f"--main_process_port={port}"]


def _read(config: str) -> str:
    try:
        return Path(config).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{CONFIG}: {config} cannot be read ({type(error).__name__}); see infra/accelerate"
        ) from error


def _stated(config: str, text: str, name: str) -> int:
    """Return a number of a configuration, which is flat."""
    found = re.search(rf"^{name}: *([0-9]{{1,4}})\b", text, re.M)
    if found is None or int(found[1]) < 1:
        raise TrainingError(f"{config}: {name}: expected a number from 1 to {MOST}, found none")
    return int(found[1])


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
