"""A worker of a work pool on this machine: takes runs of the team's deployments, each in a clone of its own."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from vqbet.contract import ConfigError

NEEDED = {
    "PREFECT_API_URL": "the address of the Prefect server",
    "MLFLOW_TRACKING_URI": "the address of the MLflow server",
    "VQBET_LEDGER": "the address of the ledger",
    "VQBET_DATA": "the place of DVC's remote",
}
QUERY_S = "3"  # seconds between two looks for runs
PROGRAM = "flows.worker"  # of this project, whose command line is Prefect's
PATIENCE = {  # with a Prefect server that is being started again: about four minutes
    "PREFECT_CLIENT_MAX_RETRIES": "7",
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",  # its answer while its database is away
}


def run(root: Path, pool: str, name: str, limit: int) -> NoReturn:
    """Become a Prefect worker with a keeper of its runs. Raises ConfigError where this shell has not joined a team."""
    environment = variables(root, os.environ)
    named = name or f"{socket.gethostname()}-{pool}"
    command = ["worker", "start", "--pool", pool, "--type", "process", "--name", named, "--limit", str(limit)]
    os.chdir(root)
    os.execve(sys.executable, [sys.executable, "-m", PROGRAM, *command], environment)


def variables(root: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the worker and of what it starts.

    The launcher of runs is this project's code; every run then imports the code of its own clone.
    """
    for variable, what in NEEDED.items():
        if not given.get(variable) or given[variable].startswith("sqlite:"):
            raise ConfigError(
                f"{variable}: is not set; it is {what}. Join a team first: source the file environment that "
                "`vqbet team up` or `vqbet team init` has written"
            )
    programs = str(Path(sys.executable).parent)
    return {
        "VQBET_RUNS": str(root / ".vqbet" / "runs"),
        "VQBET_REPOSITORY": str(root),
        "PREFECT_WORKER_QUERY_SECONDS": QUERY_S,
        **PATIENCE,
        **given,
        "VQBET_ROOT": str(root),
        "PATH": os.pathsep.join([programs, given.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), given.get("PYTHONPATH", "")])),
    }
