"""Server of MLflow's pages for runs and registry, on this machine only."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from vqbet.registry import connection


def serve(port: int) -> NoReturn:
    """Replace this process by the server of MLflow's pages at this port, until Ctrl-C."""
    if not connection.empty():
        connection.client()  # corrects MLflow's paths if the project was moved
    store = os.environ["MLFLOW_TRACKING_URI"]
    command = ["-m", "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1"]  # for one person; MLflow would start four
    command += ["--app-name", "vqbet"]  # without an assistant that runs commands: registry/pages_app.py
    # MLflow's default hosts have patterns such as 10.*, which 10.pages.example matches.
    doors = ["--allowed-hosts", f"127.0.0.1:{port},localhost:{port}", "--x-frame-options", "DENY"]
    doors += ["--cors-allowed-origins", f"http://127.0.0.1:{port},http://localhost:{port}"]
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # else ten processes run jobs that a page requests
    os.execv(sys.executable, [sys.executable, *command, *doors])
