"""MLflow's pages, as `vqbet ui` shows them, answer to their own address and to no page of somebody else's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import psutil
import pytest
from mlflow.server import security_utils

from vqbet import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parent.parent.parent
FOREIGN = "10.pages.example"  # a name that fits MLflow's own pattern for private addresses


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    home = tmp_path_factory.mktemp("pages")
    (home / "params.yaml").touch()
    (home / ".vqbet").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "vqbet", "ui", "--port", str(port)],
        cwd=home,
        env=os.environ | environment.embedded(home) | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 240
        while status(port, "health") != 200:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield port
    finally:
        everybody = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        os.killpg(process.pid, signal.SIGTERM)
        for left in psutil.wait_procs(everybody, timeout=30)[1]:
            left.kill()
        process.wait()


def status(port: int, path: str, **headers: str) -> int | None:
    """The status of the answer, to a POST where there is a path of the API; none where nobody answers."""
    body = json.dumps({"name": f"{headers}"}).encode() if path.endswith("create") else None
    sent = {"Content-Type": "application/json"} | headers
    try:
        with urlopen(Request(f"http://127.0.0.1:{port}/{path}", body, sent), timeout=240) as answer:
            return int(answer.status)
    except HTTPError as refused:
        return refused.code
    except (URLError, OSError):
        return None


def test_only_its_own_address_is_answered(port: int) -> None:
    create = "api/2.0/mlflow/experiments/create"
    assert status(port, create) == 200
    assert status(port, create, Origin=f"http://127.0.0.1:{port}") == 200
    assert status(port, create, Origin="http://pages.example") == 403
    assert status(port, create, Origin="null") == 403
    for host in (FOREIGN, f"{FOREIGN}:{port}", f"pages.example:{port}", "192.168.pages.example"):
        assert status(port, create, Host=host) == 403


ASSISTANT = "ajax-api/3.0/mlflow/assistant/config"


def test_nobody_is_assisted(port: int) -> None:
    for path in (ASSISTANT, "ajax-api/3.0/mlflow/%61ssistant/config"):
        assert status(port, path) == 404


def test_mlflow_by_itself_assists() -> None:
    """The planted fault."""
    from fastapi.testclient import TestClient
    from mlflow.server.fastapi_app import app

    with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        assert client.get(f"/{ASSISTANT}").status_code == 200


def test_mlflow_by_itself_answers_to_a_foreign_name() -> None:
    """The planted fault."""
    hosts = security_utils.get_default_allowed_hosts()
    assert security_utils.is_allowed_host_header(hosts, FOREIGN)
