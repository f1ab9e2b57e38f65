"""What the project stands on, and each way in which it can fail: GPU, clocks, remote, ledgers, locks, notices."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from tests.support.postgres import free_port
from tests.support.shelf import registered
from vqbet import config, registry
from vqbet.commands.doctor import surroundings
from vqbet.contract import ConfigError
from vqbet.registry import connection, models


@contextmanager
def server(ahead_s: float | None) -> Iterator[str]:
    """A server whose clock is ahead; None: one that does not say what time it is."""

    class Clock(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(404)
            if ahead_s is not None:
                self.send_header("Date", formatdate(time.time() + ahead_s, usegmt=True))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    running = HTTPServer(("127.0.0.1", 0), Clock)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*surroundings.SERVERS, "VQBET_NOTIFY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("ahead_s", "said", "wrong"),
    [
        (0.0, "answers, clocks agree within 1 s", False),
        (900.0, "the clock of 127.0.0.1 is ", True),
        (-900.0, " s behind this one; set both", True),
        (None, "does not say what time it is", False),
    ],
)
def test_clocks_of_servers(ahead_s: float | None, said: str, wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(ahead_s) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        ((variable, sentence, fault),) = surroundings.clocks()
    assert (variable, fault) == ("MLFLOW_TRACKING_URI", wrong)
    assert said in sentence


def test_a_server_that_is_down_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with server(0.0) as address:
        monkeypatch.setenv("PREFECT_API_URL", f"{address}/api")
        first, second = surroundings.clocks()
    assert first[2]
    assert "does not answer" in first[1]
    assert not second[2]


def test_an_embedded_registry_has_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////tmp/none.db")
    assert list(surroundings.clocks()) == []


def driver(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert surroundings.gpu() == ("no NVIDIA driver: trainings run on the processor", False)
    driver(tmp_path, "echo 'NVIDIA H200, 570.1, 143771 MiB'", monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said, wrong = surroundings.gpu()
    assert wrong
    assert said.startswith("NVIDIA H200, 570.1, 143771 MiB, but torch ")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert surroundings.gpu() == ("NVIDIA H200, 570.1, 143771 MiB", False)
    driver(tmp_path, "echo 'Failed to initialize NVML: Driver/library version mismatch' >&2; exit 18", monkeypatch)
    said, wrong = surroundings.gpu()
    assert wrong
    assert "version mismatch; see to the driver" in said


def test_locks_of_the_living_and_of_the_dead(tmp_path: Path) -> None:
    assert surroundings.locks(tmp_path) == ("none is held", False)
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        path.write_text(json.dumps({"write": {"/a": {"pid": child.pid, "cmd": "dvc repro"}}, "read": {}}))
        assert surroundings.locks(tmp_path) == (f"held by processes {child.pid}", False)
        child.communicate(b"\n")
    assert f"held by processes that have ended ({child.pid})" in surroundings.locks(tmp_path)[0]
    path.write_text("[")
    said, wrong = surroundings.locks(tmp_path)
    assert wrong
    assert "delete it while no DVC runs" in said


def test_data_without_a_version_or_without_dvc(tmp_path: Path) -> None:
    assert surroundings.remote(tmp_path) == ("no data.dvc yet; `vqbet ingest <task>` makes it", False)
    (tmp_path / "data.dvc").write_text("")
    assert surroundings.remote(tmp_path)[1]


def test_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert surroundings.notified()[0].startswith("nobody is named")
    monkeypatch.setenv("VQBET_NOTIFY", "http://hooks.lab/x")
    with pytest.raises(ConfigError, match="in the clear"):
        surroundings.notified()


@pytest.mark.slow
def test_a_ledger_and_a_registry_that_disagree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ".vqbet"
    home.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "sections", lambda path: ["tiny", "untouched"])
    (tmp_path / "params.yaml").write_text("")
    registered(tmp_path, "one", "two")
    registry.force("tiny", 1, who="bob", why="a test")
    ((what, said, wrong),) = surroundings.ledgers(tmp_path)
    assert (what, said, wrong) == ("ledger of tiny", "agrees with the registry, entries: 1", False)
    connection.client().set_registered_model_alias("tiny", models.CHAMPION, "2")
    ((_, said, wrong),) = surroundings.ledgers(tmp_path)
    assert wrong
    assert said.endswith("the ledger says version 1; vqbet audit tiny --repair")
