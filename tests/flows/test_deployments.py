"""The deployments on a real Prefect server and a worker, in the project's own folder: no repository is named."""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import started
from tests.support.project import Project
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # whoever comes first runs the demo
LOGIN = "team:word"
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # as in a shell that has activated .venv


@pytest.fixture
def server(project: Project) -> Iterator[str]:
    """A real Prefect server on a free port of this machine."""

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    login = {"PREFECT_SERVER_API_AUTH_STRING": LOGIN}
    with started(project, [sys.executable, "-m", "vqbet", "flow", "ui", "--port", str(port)], **login):
        until(lambda: asked(port, "api/health") is True)
        yield f"http://127.0.0.1:{port}/api"


def asked(port: int, path: str) -> Any:
    """What the server answers; None while there is none."""

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=30) as answer:
            return json.load(answer)
    except OSError:
        return None


def test_the_deployments_run_on_a_server_and_a_worker(project: Project, server: str) -> None:
    team = {"PREFECT_API_URL": server, "PREFECT_API_AUTH_STRING": LOGIN, "VQBET_ROOT": str(project.root), "PATH": PATH}
    assert asked(int(server.split(":")[2].split("/")[0]), "ui-settings")["api_url"] == server
    refused = project.run("vqbet", "flow", "ui", check=False, **team)
    assert refused.returncode == 1
    assert f"that server has its own pages: {server.removesuffix('/api')}" in refused.stderr
    for pool in ("cpu", "gpu"):
        project.run("prefect", "work-pool", "create", pool, "--type", "process", **team)
    told = project.run("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "infra/prefect.yaml", **team)
    for name in ("pipeline/nightly-retrain", "ingest/new-data", "promote/by-hand", "resume/waiting"):
        assert name in told.stdout.replace("\n", "")
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu"]
    with started(project, worker, **team):
        done = project.run("prefect", "deployment", "run", "pipeline/nightly-retrain", "--watch", check=False, **team)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Completed" in done.stdout
