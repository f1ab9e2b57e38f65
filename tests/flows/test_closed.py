"""Nobody but its own client and pages steers the Prefect server of a flow or of `vqbet flow ui`; it ends with its
parent.

Three servers for the file: that of a flow, that of the pages, and one as Prefect starts it, on which all the same
attacks succeed.
"""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

from tests.support import chromium
from tests.support.waiting import LONG_S, until
from vqbet import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parent.parent.parent
ATTACK = Path(__file__).with_name("attack.js").read_text(encoding="utf-8")
OPEN = ["-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port"]

# A flow on the embedded server: a task that fails once, an artifact, a result; then it waits to be killed.
FLOW = """
import json, os, sys
from flows import server
server.start()
from prefect import flow, settings, task
from prefect.artifacts import create_markdown_artifact

tries = []

@task(retries=1, retry_delay_seconds=0)
def second_time():
    tries.append(1)
    create_markdown_artifact("seen", key="seen")
    assert len(tries) == 2
    return {"tries": 2}

@flow(name="small", persist_result=True, result_serializer="json")
def small():
    return second_time()

found = {"result": small(), "inherited": sorted(name for name in os.environ if "AUTH_STRING" in name)}
found |= {"address": os.environ["PREFECT_API_URL"], "password": settings.PREFECT_API_AUTH_STRING.value()}
print(json.dumps(found), flush=True)
sys.stdin.read()
"""


@dataclass
class Server:
    """A server under attack. `ask` is its own client."""

    port: int
    password: str = ""
    process: subprocess.Popen[str] | None = None
    told: str = ""

    def status(self, path: str, headers: dict[str, str], content: Any = None) -> int:
        """The status of the answer to a request with no more than these headers."""
        try:
            self.open(path, headers, content).close()
        except HTTPError as refused:
            return refused.code
        return 200

    def ask(self, path: str, content: Any = None) -> Any:
        """The answer to its own client, which has the password."""
        with self.open("csrf-token?client=test", self.login) as answer:
            token = json.load(answer)["token"]
        own = {"Prefect-Csrf-Client": "test", "Prefect-Csrf-Token": token}
        with self.open(path, self.login | own, content) as answer:
            return json.load(answer)

    @property
    def login(self) -> dict[str, str]:
        return {"Authorization": f"Basic {base64.b64encode(self.password.encode()).decode()}"}

    def open(self, path: str, headers: dict[str, str], content: Any = None) -> Any:
        """The answer to a request with no more than these headers."""
        body = None if content is None else json.dumps(content).encode()
        sent = {"Content-Type": "application/json"} | headers if body else headers
        return urlopen(Request(f"http://127.0.0.1:{self.port}/api/{path}", body, sent), timeout=LONG_S)

    def ready(self) -> bool:
        try:
            return self.status("health", {}) == 200
        except OSError:
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(home: Path, argv: list[str], **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """Python in a project of its own at `home`."""
    (home / ".vqbet" / "prefect").mkdir(parents=True)
    (home / "params.yaml").touch()
    variables = os.environ | environment.embedded(home) | {"PYTHONPATH": str(ROOT)}
    quiet: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, *argv], cwd=home, env=variables, text=True, **quiet | streams) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """The three, started side by side."""
    home = tmp_path_factory.mktemp("closed")
    terminal, inside = pty.openpty()
    pages, unguarded = free_port(), free_port()
    with ExitStack() as stack:
        flow = stack.enter_context(running(home / "flow", ["-c", FLOW]))
        ui = [*("-m", "vqbet", "flow", "ui", "--port"), str(pages)]
        shown = stack.enter_context(running(home / "pages", ui, stdout=inside))
        stack.enter_context(running(home / "open", [*OPEN, str(unguarded)]))
        os.close(inside)
        told = read_until(terminal, "password")
        (password,) = re.findall(r"/enter#(\S+)", told)
        assert flow.stdout
        found = json.loads(flow.stdout.readline())
        servers = {
            "embedded": Server(int(found["address"].split(":")[2].split("/")[0]), found["password"], flow, str(found)),
            "pages": Server(pages, password, shown, told),
            "open": Server(unguarded),
        }
        for server in servers.values():
            until(server.ready)
        yield servers
    os.close(terminal)


def read_until(terminal: int, word: str) -> str:
    """All that came to a terminal until a word and the rest of its line did."""
    told = ""
    while not re.search(rf"{word}.*\n", told):
        told += os.read(terminal, 4096).decode()
    return told


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Chromium]:
    with chromium.started(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of somebody else's pages."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title><body></body>")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


# From where: a page on another port of this machine, one of another name, and one whose name was made to lead here.
PLACES: dict[str, Callable[[int, int], tuple[str, str]]] = {
    "another port": lambda own, other: (f"http://127.0.0.1:{other}/", f"127.0.0.1:{own}"),
    "another name": lambda own, other: (f"http://{chromium.FOREIGN}:{other}/", f"127.0.0.1:{own}"),
    "rebound": lambda own, other: (f"http://{chromium.FOREIGN}:{own}/api/health", f"{chromium.FOREIGN}:{own}"),
}


def attack(browser: chromium.Chromium, server: Server, elsewhere: int, place: str) -> tuple[dict[str, str], str]:
    """Every try of attack.js: what the page was shown, and how the names begin of what it may have made."""
    page_address, target = PLACES[place](server.port, elsewhere)
    mark = f"made-{place.replace(' ', '-')}"
    with browser.page(page_address) as page:
        return page.run(f"({ATTACK})({json.dumps(target)}, {json.dumps(mark)})"), mark


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["embedded", "pages"])
def test_a_page_reads_makes_and_runs_nothing(
    servers: dict[str, Server], browser: chromium.Chromium, elsewhere: int, name: str, place: str
) -> None:
    shown, _ = attack(browser, servers[name], elsewhere, place)
    assert shown == {}
    flows = servers[name].ask("flows/filter", {})
    assert [flow["name"] for flow in flows] == (["small"] if name == "embedded" else [])
    assert len(servers[name].ask("flow_runs/filter", {})) == len(flows)
    assert servers[name].ask("work_pools/filter", {}) == []


@pytest.mark.parametrize("place", PLACES)
def test_the_same_page_does_all_that_to_a_server_as_prefect_starts_it(
    servers: dict[str, Server], browser: chromium.Chromium, elsewhere: int, place: str
) -> None:
    """The planted fault."""
    shown, mark = attack(browser, servers["open"], elsewhere, place)
    assert {"version", "flows", "json", "run", "pool", "/events/in", "/events/out", "/logs/out"} <= shown.keys()
    with servers["open"].open("flows/filter", {}, {}) as answer:
        made = {flow["name"] for flow in json.load(answer)}
    assert {f"{mark}-{how}" for how in ("json", "guessed", "untyped")} <= made


def test_a_flow_works_as_before_and_its_stages_do_not_have_the_password(servers: dict[str, Server]) -> None:
    told = servers["embedded"].told
    assert "'result': {'tries': 2}" in told
    assert "'inherited': []" in told
    (run,) = servers["embedded"].ask("flow_runs/filter", {})
    assert run["state_type"] == "COMPLETED"
    (task,) = servers["embedded"].ask("task_runs/filter", {})
    assert (task["state_type"], task["run_count"]) == ("COMPLETED", 2)
    assert "seen" in {one["key"] for one in servers["embedded"].ask("artifacts/filter", {})}


@pytest.mark.parametrize("name", ["embedded", "pages"])
def test_each_door_is_shut_by_itself(servers: dict[str, Server], name: str) -> None:
    server = servers[name]
    assert server.status("admin/version", server.login) == 200
    assert server.status("admin/version", {}) == 401
    assert server.status("admin/version", server.login | {"Host": f"{chromium.FOREIGN}:{server.port}"}) == 400
    assert server.status("admin/version", server.login | {"Origin": f"http://127.0.0.1:{server.port + 1}"}) == 403
    assert server.status("admin/version", server.login | {"Origin": "null"}) == 403
    assert server.status("admin/version", server.login | {"Origin": f"http://127.0.0.1:{server.port}"}) == 200
    assert server.status("flows/", server.login, {"name": "no token"}) == 403
    with server.open("health", {}) as answer:
        assert answer.headers["X-Frame-Options"] == "DENY"


def test_the_password_is_on_no_command_line(servers: dict[str, Server]) -> None:
    passwords = [server.password for server in servers.values() if server.password]
    assert len(set(passwords)) == 2
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        assert not any(password in line for password in passwords), line


def test_the_link_opens_the_pages_and_a_false_one_does_not(
    servers: dict[str, Server], browser: chromium.Chromium
) -> None:
    address = f"http://127.0.0.1:{servers['pages'].port}"
    kept = "localStorage.getItem('prefect-password')"
    with browser.page(f"{address}/enter#vqbet:guessed") as page:
        until(lambda: "login" in page.run("location.pathname"))
        assert page.run(kept) is None
    with browser.page(f"{address}/enter#{servers['pages'].password}") as page:
        until(lambda: "dashboard" in page.run("location.pathname"))
        until(lambda: "Run a task or flow" in page.run("document.body.innerText"))
        assert page.run(kept) == servers["pages"].login["Authorization"].removeprefix("Basic ")


def test_a_new_password_is_not_written_into_a_file(tmp_path: Path) -> None:
    with running(
        tmp_path / "ui", ["-m", "vqbet", "flow", "ui", "--port", str(free_port())], stderr=subprocess.PIPE
    ) as ui:
        told, said = ui.communicate(timeout=240)
    assert ui.returncode == 1
    assert told == ""
    assert "PREFECT_SERVER_API_AUTH_STRING: is not set" in said


def test_prefect_opens_no_server_of_its_own(tmp_path: Path) -> None:
    code = "import flows; from prefect.client.orchestration import get_client; get_client(sync_client=True)"
    with running(tmp_path / "without", ["-c", code], stderr=subprocess.PIPE) as process:
        _, said = process.communicate(timeout=240)
    assert "No Prefect API URL provided" in said


def test_a_server_that_does_not_start_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{tmp_path}/no/folder.db")
    with running(
        tmp_path / "broken", ["-m", "vqbet", "flow", "promote", "blockpush"], stderr=subprocess.PIPE
    ) as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "error: the embedded Prefect server did not start: it ended; its own words are above" in said


def test_a_server_whose_parent_is_killed_while_it_starts_ends(tmp_path: Path) -> None:
    with running(tmp_path / "early", ["-c", FLOW]) as parent:
        until(lambda: psutil.Process(parent.pid).children())
        everybody = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        _, left = psutil.wait_procs(everybody, timeout=LONG_S)
    assert not left


def test_the_server_of_a_killed_flow_ends(servers: dict[str, Server]) -> None:
    """The last of the file: kill -9."""
    server = servers["embedded"]
    assert server.process
    everybody = psutil.Process(server.process.pid).children(recursive=True)
    assert [line for child in everybody for line in child.cmdline() if line == "flows.server"]
    server.process.send_signal(signal.SIGKILL)
    _, left = psutil.wait_procs(everybody, timeout=LONG_S)
    assert not left
    assert not server.ready()
