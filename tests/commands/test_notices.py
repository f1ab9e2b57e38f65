"""Notices of what a team must hear at once: to a command, to an address, and what is said where nobody hears them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import notices as given
from tests.commands.test_canary import TASK, bare, forced, template
from tests.support.postgres import free_port
from vqbet.commands import notices, release
from vqbet.contract import ConfigError

__all__ = ["bare", "template"]  # fixtures
DIGEST = "ab" * 32


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Notify a command that writes a line for each notice; return what it has heard."""
    book = tmp_path / "a book.jsonl"
    program = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))"
    monkeypatch.setenv(notices.VARIABLE, f"{sys.executable} -c \"{program}\" '{book}'")
    return lambda: [json.loads(line) for line in book.read_text().splitlines()] if book.exists() else []


class Post(BaseHTTPRequestHandler):
    """Answers 500 to paths with `bad`, and keeps what was posted elsewhere."""

    posted: list[tuple[str, dict[str, Any]]]

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.posted.append((self.headers["Content-Type"], json.loads(content)))
        self.send_response(500 if "bad" in self.path else 204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def web() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    Post.posted = []
    server = HTTPServer(("127.0.0.1", 0), Post)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", Post.posted
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_command_hears_it_and_no_shell_reads_it(heard: Callable[[], list[dict[str, Any]]]) -> None:
    assert notices.tell(notices.JUDGED, "arm", "HOLD: $(touch x) needs 40 more", verdict="HOLD") == {}
    (said,) = heard()
    assert said.pop("when").endswith("+00:00")
    assert said == {
        "event": "verdict", "task": "arm", "sentence": "HOLD: $(touch x) needs 40 more", "verdict": "HOLD"
    }  # fmt: skip


def test_nobody_is_told_unless_somebody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(notices.VARIABLE, raising=False)
    assert notices.tell(notices.MOVED, "arm", "a sentence") == {}


def test_an_address_hears_it(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address, posted = web
    monkeypatch.setenv(notices.VARIABLE, f"{address}/hook/secret")
    assert notices.tell(notices.MOVED, "arm", "champion is version 2", digest=DIGEST) == {}
    ((kind, said),) = posted
    assert (kind, said["event"], said["digest"]) == ("application/json", "champion moved", DIGEST)
    monkeypatch.setenv(notices.VARIABLE, f"{address}/bad/secret")
    fault = notices.tell(notices.MOVED, "arm", "x")["notice"]
    assert fault == f"VQBET_NOTIFY: not delivered: {address} answers 500 Internal Server Error"
    monkeypatch.setenv(notices.VARIABLE, f"http://127.0.0.1:{free_port()}/secret")
    fault = notices.tell(notices.MOVED, "arm", "x")["notice"]
    assert "refused" in fault
    assert "secret" not in fault


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no-such-program --now", "No such file or directory: no-such-program"),
        (f"{sys.executable} -c 'import sys; sys.exit(\"the bell is broken\")'", "ended with 1: the bell is broken"),
        (f"{sys.executable} -c 'import time; time.sleep(60)'", "ran longer than 0.5 s"),
        ("http://hooks.lab/x", "http://hooks.lab is in the clear; expected https:// or this machine"),
        ("say 'it", "expected a command or an address"),
    ],
)
def test_what_cannot_be_delivered_is_said(target: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "TIMEOUT_S", 0.5 if "sleep" in target else 30.0)
    monkeypatch.setenv(notices.VARIABLE, target)
    assert said in notices.tell(notices.FAILED, "arm", "x")["notice"]


@pytest.mark.slow
def test_a_champion_that_moves_is_told_and_stays_where_it_is_if_nobody_hears(
    bare: Path, heard: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = forced(bare, 1), forced(bare, 2)
    release.rollback(bare, TASK, why="hit the table")
    assert [(said["event"], said["digest"], said["before"]) for said in heard()] == [
        ("champion moved", first, ""),
        ("champion moved", second, first),
        ("champion moved", first, second),
    ]
    assert heard()[2]["sentence"].endswith(": hit the table")
    monkeypatch.setenv(notices.VARIABLE, "no-such-program")
    result = release.force(bare, TASK, candidate=3, why="a test")
    assert result["notice"].startswith("VQBET_NOTIFY: not delivered: ")
    assert result["champion"].startswith(f"{TASK}/3")
    monkeypatch.setenv(notices.VARIABLE, "http://hooks.lab/x")
    with pytest.raises(ConfigError, match="in the clear"):
        release.rollback(bare, TASK, why="refused before anything moves")
    assert len(release.history(TASK)) == 4


def test_flows_tell_of_failures_verdicts_waits_and_drift(heard: Callable[[], list[dict[str, Any]]]) -> None:
    run: Any = SimpleNamespace(name="calm-otter", id="7", parameters={"task_name": "arm"})
    flow: Any = SimpleNamespace(name="pipeline")
    crashed: Any = SimpleNamespace(name="Crashed", message="no memory")
    given.failed(flow=flow, flow_run=run, state=crashed)  # as a worker calls it
    held = {"promoted": "no", "verdict": "HOLD", "why": "needs 40 more"}
    given.not_promoted("arm", {"gate": {"ran": False}, "promote": held})  # judged another day
    given.not_promoted("arm", {"gate": {"ran": True}, "promote": held})
    given.not_promoted("arm", {"gate": {"ran": True}, "promote": {"promoted": "no", "why": "waits for people"}})
    given.not_promoted("arm", {"gate": {"ran": True}, "promote": {"champion": "arm/2"}})
    given.waits("arm", "waits for trials")
    given.drifted("arm", {"exceeded": False, "conclusion": "the same"})
    given.drifted("arm", {"exceeded": True, "conclusion": "the shoulder moved"})
    assert [(said["event"], said["sentence"]) for said in heard()] == [
        ("failed", "pipeline, run calm-otter: Crashed: no memory"),
        ("verdict", "arm: not promoted: needs 40 more"),
        ("waits", "arm: not promoted: waits for people"),
        ("waits", "waits for trials"),
        ("drift", "the shoulder moved"),
    ]


def test_every_notice_is_an_event_on_which_automations_can_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(notices.VARIABLE, raising=False)
    emitted: list[tuple[str, str, str]] = []
    monkeypatch.setattr(
        given,
        "emit_event",
        lambda name, of, payload: emitted.append((name, of["prefect.resource.id"], payload["event"])),
    )
    notices.tell(notices.MOVED, "arm", "nobody is there")
    with temporary_settings({PREFECT_API_URL: "https://prefect.lab/api"}):
        for event in notices.EVENTS:
            notices.tell(event, "arm", "a sentence")
    assert emitted == [
        (f"vqbet.{event}", "vqbet.task.arm", event.replace("-", " "))
        for event in ("champion-moved", "verdict", "waits", "drift", "failed")
    ]
