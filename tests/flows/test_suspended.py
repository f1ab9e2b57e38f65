"""A promotion that waits: suspended without a process, kept over a crash of the server, resumed once all is there."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import living, started
from tests.support.project import Project
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # whoever comes first runs the demo
FIRST = (
    r"blockpush: not promoted yet; it waits for robot trials: candidate \w{12} against the floor has no plan yet: "
    r"vqbet trials plan blockpush, .*; and for the approval of 1 person, once .*: vqbet approve blockpush --why '...'"
)
SECOND = (
    r"blockpush: not promoted yet; it waits for the approval of 1 person for verdict \w{12}: vqbet approve blockpush "
    r"--why '...'"
)
LOGIN = "team:word"
UNDONE = {
    "ledger.db": ["DELETE FROM vqbet_ledger WHERE chain = 'blockpush'"],
    "mlflow.db": [
        "DELETE FROM registered_model_aliases WHERE alias = 'champion'",
        "DELETE FROM registered_model_tags WHERE key = 'ledger_head'",
    ],
}


class Team:
    """A project with a worker, and a Prefect server that may be killed: its port, password and database stay."""

    def __init__(self, project: Project) -> None:
        self.project = project
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        self.variables = {
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            "PREFECT_API_AUTH_STRING": LOGIN,
            "VQBET_ROOT": str(project.root),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }

    def server(self) -> started:
        command = [sys.executable, "-m", "vqbet", "flow", "ui", "--port", self.port]
        return started(self.project, command, PREFECT_SERVER_API_AUTH_STRING=LOGIN)

    def worker(self) -> started:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cpu", "--type", "process"]
        return started(self.project, command, **self.variables, PREFECT_WORKER_QUERY_SECONDS="1")

    def vqbet(self, *argv: str) -> str:
        return self.project.run("vqbet", *argv, **self.variables).stdout

    def prefect(self, *argv: str) -> str:
        return self.project.run("prefect", "--no-prompt", *argv, **self.variables).stdout

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(self.port)), timeout=5).close()
        except OSError:
            return False
        return True

    @property
    def pools(self) -> list[str]:
        return [name for (name,) in self._rows("SELECT name FROM work_pool")]

    @property
    def runs(self) -> list[tuple[str, str]]:
        """Name and message of the state of every run of `promote/by-hand`, by the server's own database."""
        return self._rows(
            "SELECT flow_run.state_name, flow_run_state.message FROM flow_run "
            "JOIN flow ON flow.id = flow_run.flow_id LEFT JOIN flow_run_state ON flow_run_state.id = flow_run.state_id "
            "WHERE flow.name = 'promote' AND flow_run.deployment_id IS NOT NULL"
        )

    @property
    def message(self) -> str:
        return self.runs[0][1]

    @property
    def page(self) -> str:
        """The newest artifact of the promotion, which the run's page shows."""
        found = self._rows("SELECT data FROM artifact WHERE key = 'blockpush-promotion' ORDER BY created DESC LIMIT 1")
        return str(json.loads(found[0][0])) if found else ""

    def _rows(self, query: str) -> list[Any]:
        path = self.project.root / ".vqbet" / "prefect" / "prefect.db"
        with closing(sqlite3.connect(path, timeout=30)) as database:
            return database.execute(query).fetchall()

    def is_in(self, state: str, worker: int) -> bool:
        """Whether the run is in a state, and the worker has no process left for it."""
        return [name for name, _ in self.runs] == [state] and not living(worker)


def asks(project: Project, evidence: list[str], approvals: int) -> None:
    """Commit what a promotion of blockpush asks."""

    def change(params: Any) -> None:
        params["blockpush"]["gate"]["evidence"] = evidence
        params["blockpush"]["promotion"]["approvals"] = approvals

    project.edit(change)
    project.commit("what a promotion asks")


@pytest.fixture(scope="module")
def team(project: Project) -> Team:
    """The demo's candidate as it was before its promotion, which now needs robot trials and an approval too."""
    for name, statements in UNDONE.items():
        with closing(sqlite3.connect(project.root / ".vqbet" / name)) as database, database:
            for statement in statements:
                database.execute(statement)
    asks(project, ["simulated", "robot"], approvals=1)
    return Team(project)


def test_without_a_deployment_the_command_says_it_and_ends(project: Project, team: Team) -> None:
    done = project.run("vqbet", "flow", "promote", "blockpush", check=False)
    assert done.returncode == 1
    assert re.search(f"^error: {FIRST}$", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
    assert "no champion yet" in project.here("history", "blockpush").stdout
    done = project.here("flow", "resume", check=False)
    assert done.returncode == 1
    assert "PREFECT_API_URL: is not set; only promotions by a deployment" in done.stderr


def test_a_promotion_waits_without_a_process_and_over_a_crash_of_the_server(project: Project, team: Team) -> None:
    with ExitStack() as stack:
        with team.server() as server:
            until(team.answers)
            worker = stack.enter_context(team.worker())  # makes the pool
            until(lambda: team.pools == ["cpu"])
            team.prefect("deploy", "--name", "by-hand", "--prefect-file", "infra/prefect.yaml")
            team.prefect("deployment", "run", "promote/by-hand")
            until(lambda: team.is_in("Suspended", worker.pid))
            assert re.fullmatch(FIRST, team.message)
            server.kill()
        assert not team.answers()
        server = stack.enter_context(team.server())
        until(team.answers)
        still_waits(team)
        asks(project, ["simulated"], approvals=1)
        assert "resumed, to say what it waits for now" in team.vqbet("flow", "resume")
        until(lambda: team.is_in("Suspended", worker.pid) and re.fullmatch(SECOND, team.message))
        assert "robot trials" not in team.page
        project.here("approve", "blockpush", "--why", "seen on the robot")
        assert re.search(r"promote blockpush \w{8} +resumed$", team.vqbet("flow", "resume"), re.MULTILINE)
        until(lambda: team.is_in("Completed", worker.pid))
        for process in (worker, server):
            process.kill()  # at once, since nothing is left to be done
    is_promoted(project, team)


def still_waits(team: Team) -> None:
    """The run is as it was before the crash, and its page says what is missing."""
    assert [name for name, _ in team.runs] == ["Suspended"]
    assert re.fullmatch(FIRST, team.message)
    assert team.page.startswith("# blockpush waits\n\n- robot trials: candidate ")
    for command in ("plan", "run", "judge"):
        assert f"vqbet trials {command} blockpush" in team.page
    assert "\n- the approval of 1 person, once the trials are judged: vqbet approve blockpush --why" in team.page


def is_promoted(project: Project, team: Team) -> None:
    """The ledger has the entry with its approval, and the run page says so."""
    shown = project.here("history", "blockpush").stdout
    assert re.search(r"entry +1 promote ", shown)
    assert re.search(r"approved by +\S+", shown)
    assert "| entry | 1 promote " in team.page
