"""MLflow's pages, on this machine only, for runs and registry."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from vqbet.registry import connection


def serve(port: int) -> NoReturn:
    """Become the server of MLflow's pages at this port, until Ctrl-C."""
    if not connection.empty():
        connection.client()  # a project that was moved: MLflow's pages must not look where it was
    store = os.environ["MLFLOW_TRACKING_URI"]
    command = ["-m", "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1"]  # for one person; MLflow would start four
    # MLflow's own list of hosts has patterns such as 10.*, which 10.pages.example fits.
    doors = ["--allowed-hosts", f"127.0.0.1:{port},localhost:{port}", "--x-frame-options", "DENY"]
    doors += ["--cors-allowed-origins", f"http://127.0.0.1:{port},http://localhost:{port}"]
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # ten processes that run what a page asks for
    os.execv(sys.executable, [sys.executable, *command, *doors])
