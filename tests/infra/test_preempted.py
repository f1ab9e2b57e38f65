"""A pod that is pre-empted: SIGTERM, the training's checkpoint, the run scheduled again, and a second pod that resumes.

The pod's process, Prefect's server and the training are real; its node is this machine.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest

from tests.support.infra import ROOT
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRAINING = """
import sys, time
from pathlib import Path
from tests.training import test_loop as t
from vqbet.environment.processes import die_with_parent

die_with_parent()
folder, pause = Path(sys.argv[1]), float(sys.argv[2])
def slow(index):
    with (folder / "steps").open("a") as file:
        file.write("step\\n")
    time.sleep(pause)
    return t.gather(index)
try:
    model, trained = t.run(folder / "checkpoints", slow)
except KeyboardInterrupt as error:
    (folder / "stopped").write_text(str(error))
    sys.exit(130)
(folder / "weights").write_text(repr([value.tolist() for value in model.parameters()]))
(folder / "resumed").write_text(str(trained.resumed_from))
"""
FLOW = """
import os, signal, subprocess, sys
from prefect import flow

@flow(persist_result=False)
def training():
    child = subprocess.Popen([sys.executable, "training.py", ".", "0.5"], start_new_session=True)
    try:
        code = child.wait()
    except BaseException:  # as vqbet.versions does with the stage of a DVC that is ended
        os.killpg(child.pid, signal.SIGINT)
        child.wait(30)
        raise
    assert code == 0, code
"""
DEPLOY = """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    flow = client.create_flow_from_name("training")
    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $VQBET_ROOT }}"}}]
    deployment = client.create_deployment(flow, "gpu", entrypoint="flow.py:training", pull_steps=steps)
    print(client.create_flow_run_from_deployment(deployment).id)
"""
STATE = """
import sys, uuid
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    print(client.read_flow_run(uuid.UUID(sys.argv[1])).state.name)
"""


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the environment of a client of a new Prefect server."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    environment = {**os.environ, **quiet, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def answers() -> bool:
        assert server.poll() is None, (home / "log").read_text()
        try:
            return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5).status == 200)
        except (URLError, OSError):
            return False

    try:
        until(answers, 300)
        yield environment
    finally:
        server.terminate()
        server.wait(60)


def asked(environment: dict[str, str], code: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, timeout=200, check=True
    )
    return done.stdout.strip()


def pod(environment: dict[str, str], folder: Path, run: str) -> subprocess.Popen[bytes]:
    """Start what the container of a job runs, with what Prefect's worker adds to its environment."""
    added = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "PREFECT__FLOW_RUN_ID": run,
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
        "VQBET_ROOT": str(folder),
    }
    for name in ("VQBET_REPOSITORY", "VQBET_RUNS"):
        environment.pop(name, None)
    return subprocess.Popen([sys.executable, "-m", "vqbet.team.run"], env=environment | added, cwd=folder)


def test_a_pre_empted_run_is_scheduled_again_and_resumes_exactly(team: dict[str, str], tmp_path: Path) -> None:
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "run"
    for each in (undisturbed, folder):
        each.mkdir()
        (each / "training.py").write_text(TRAINING)
        (each / "flow.py").write_text(FLOW)
    subprocess.run([sys.executable, "training.py", ".", "0"], cwd=undisturbed, env=team, check=True, timeout=200)
    run = asked(team, DEPLOY)

    first = pod(team, folder, run)
    steps = folder / "steps"
    until(lambda: steps.exists() and steps.read_text().count("\n") >= 3, 240)
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 0, "what Kubernetes takes for done, so that it starts no pod of its own"
    assert "stopped after step" in (folder / "stopped").read_text()
    assert asked(team, STATE, run) == "AwaitingRetry"
    assert not (folder / "weights").exists()

    time.sleep(1)  # as long as the worker takes to look
    assert pod(team, folder, run).wait(240) == 0
    assert asked(team, STATE, run) == "Completed"
    assert int((folder / "resumed").read_text()) >= 3
    assert (folder / "weights").read_text() == (undisturbed / "weights").read_text()
