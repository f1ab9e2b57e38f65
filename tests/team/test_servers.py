"""A team's real servers and workers: up, status, down, logins, crashes. The tests build on one another, in order."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from tests.support.team import PARTS, StartedTeam, started_team

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartedTeam]:
    with started_team(tmp_path_factory.mktemp("team")) as started:
        yield started


def status_of(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_up_twice_starts_nothing_twice(team: StartedTeam) -> None:
    before = team.pids()
    assert all(before.values())
    told = team.vqbet("team", "up").stdout
    for name in PARTS:
        assert f"{name}: runs\n" in told
    assert team.pids() == before
    told = team.vqbet("team", "status").stdout
    assert told.count("  fine ") == len(PARTS)


def test_only_this_user_reads_what_holds_credentials(team: StartedTeam) -> None:
    for name in ("settings.json", "environment", "s3/keys.json", "mlflow/auth.ini", *(f"{part}/log" for part in PARTS)):
        assert stat.S_IMODE((team.folder / name).stat().st_mode) == 0o600, name
    assert not list(team.folder.glob("postgres/password*"))


def test_a_shell_that_sources_the_file_is_in_the_team(team: StartedTeam) -> None:
    joined, ports = team.joined, team.settings()["ports"]
    assert joined["PREFECT_API_URL"] == f"http://127.0.0.1:{ports['prefect']}/api"
    assert joined["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{ports['mlflow']}"
    assert joined["VQBET_DATA"] == "s3://vqbet-data/dvc"
    told = team.vqbet("history", "blockpush", joined=True).stdout
    assert "no champion yet" in told, "the ledger in Postgres answers, and the registry"


def test_nobody_enters_without_a_login(team: StartedTeam) -> None:
    ports = team.settings()["ports"]
    assert status_of(f"http://127.0.0.1:{ports['prefect']}/api/admin/version") == 401
    assert status_of(f"http://127.0.0.1:{ports['mlflow']}/api/2.0/mlflow/experiments/get?experiment_id=0") == 401
    assert status_of(f"http://127.0.0.1:{ports['s3']}/vqbet-data") == 403
    assert status_of(f"http://127.0.0.1:{ports['filer']}/buckets/") == 401


def test_a_role_of_the_database_sees_its_own_database_alone(team: StartedTeam) -> None:
    import pg8000.dbapi

    settings = team.settings()
    secret, port = settings["secrets"]["database_mlflow"], int(settings["ports"]["postgres"])

    def connect(database: str, password: str) -> None:
        pg8000.dbapi.connect("mlflow", host="127.0.0.1", port=port, database=database, password=password).close()

    connect("mlflow", secret)
    for database, password in (("prefect", secret), ("ledger", secret), ("mlflow", "guessed")):
        with pytest.raises(pg8000.dbapi.Error):
            connect(database, password)


def test_everything_listens_and_speaks_on_this_machine_alone(team: StartedTeam) -> None:
    found = []
    for process in team.everybody():
        with suppress(psutil.NoSuchProcess):
            found += process.net_connections(kind="inet")
    listening = {connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN}
    assert {int(port) for port in team.settings()["ports"].values()} <= listening
    for connection in found:
        assert connection.laddr.ip in ("127.0.0.1", "::1"), connection
        assert not connection.raddr or connection.raddr.ip in ("127.0.0.1", "::1"), connection


def test_what_was_killed_is_named_and_mended(team: StartedTeam) -> None:
    before, killed = team.pids(), ("postgres", "mlflow", "prefect", "worker-gpu")
    for name in killed:
        os.kill(before[name], 9)
    psutil.wait_procs([psutil.Process(before[name]) for name in killed if psutil.pid_exists(before[name])], timeout=10)
    done = team.vqbet("team", "status", check=False)
    assert done.returncode == 1
    for name in killed:
        assert f"  WRONG  {name}: does not run; see {team.folder / name / 'log'}" in done.stdout
    told = team.vqbet("team", "up").stdout
    for name in killed:
        assert f"  {name}: started in " in told
    after = team.pids()
    assert all(after.values())
    assert {name for name in PARTS if after[name] != before[name]} >= set(killed)
    assert after["s3"] == before["s3"]
    assert team.vqbet("team", "status").stdout.count("  fine ") == len(PARTS)
    assert "no champion yet" in team.vqbet("history", "blockpush", joined=True).stdout


def test_deployments_are_made_and_one_runs_in_a_clone_of_its_own(team: StartedTeam) -> None:
    told = team.vqbet("flow", "deploy", joined=True).stdout
    for name in ("ingest/new-data", "pipeline/nightly-retrain", "evaluation/weekly-full", "promote/by-hand"):
        assert f"  {name} " in told
    for name in ("no heartbeat", "not started", "crashed"):
        assert re.search(rf"^  vqbet: {name} +made: ", told, re.MULTILINE), told
    project, head = team.project, team.project.git("rev-parse", "HEAD")
    assert project.git("rev-parse", "runs") == head
    command = ("--no-prompt", "deployment", "run", "ingest/new-data", "--watch")
    done = project.run("prefect", *command, **team.joined)
    assert "'Completed'" in done.stdout
    assert project.git("diff", "--name-only", "HEAD", "runs") == "data.dvc"
    assert project.git("log", "-1", "--format=%s", "runs") == "blockpush: ingest/new-data"
    assert not (project.root / "data").exists(), "the project's own folder is left alone"
    again = team.vqbet("flow", "deploy", joined=True, check=False)
    assert again.returncode == 1
    assert "runs: cannot be moved to" in again.stderr
    assert "git pull" in again.stderr


ASKED = """
import json, sys, time
from prefect.client.orchestration import get_client
from prefect.states import Crashed
with get_client(sync_client=True) as client:
    deployment = client.read_deployment_by_name("promote/by-hand")
    lost = client.create_flow_run_from_deployment(deployment.id)
    client.set_flow_run_state(lost.id, Crashed(message="planted"))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        runs = client.read_flow_runs(limit=200)
        scheduled = {run.deployment_id for run in runs if run.auto_scheduled}
        revived = [run.parameters["run"] for run in runs if "run" in run.parameters]
        if len(scheduled) >= 4 and revived:
            break
        time.sleep(2)
    automations = [each.name for each in client.read_automations()]
    print(json.dumps([len(scheduled), revived == [f"prefect.flow-run.{lost.id}"], sorted(automations)]))
"""


def test_the_server_makes_the_runs_of_schedules_and_acts_on_a_crashed_run(team: StartedTeam) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        env=team.project.environment(**team.joined),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    automations = ["vqbet: crashed", "vqbet: no heartbeat", "vqbet: not started"]
    assert json.loads(done.stdout) == [4, True, automations], "ingest, pipeline, evaluation and resume have schedules"


def test_no_credential_is_printed_logged_or_seen_in_a_list_of_processes(team: StartedTeam) -> None:
    secrets = team.settings()["secrets"]
    places = {"printed": team.printed}
    places |= {str(path): path.read_text(errors="replace") for path in team.folder.glob("*/log*")}
    for process in team.everybody():
        with suppress(psutil.NoSuchProcess):
            places[f"process {process.pid}"] = " ".join(process.cmdline())
    for place, text in places.items():
        assert not [name for name, secret in secrets.items() if secret in text], place
    runs = team.folder / "runs"
    tracked = [path.read_bytes() for path in runs.glob("*/.dvc/config*")]
    assert tracked
    assert not [name for name, secret in secrets.items() if any(secret.encode() in text for text in tracked)]


def test_nobody_wanted_anything_from_outside(team: StartedTeam) -> None:
    assert not team.outside.exists(), team.outside.read_text(encoding="utf-8")


def test_down_leaves_no_process_and_keeps_what_was_stored(team: StartedTeam) -> None:
    assert len(team.everybody()) >= len(PARTS)
    assert "processes ended" in team.vqbet("team", "down").stdout
    assert team.everybody() == []
    assert "nothing runs" in team.vqbet("team", "down").stdout
    assert (team.folder / "s3" / "data").is_dir()
    done = team.vqbet("team", "status", check=False)
    assert done.returncode == 1
    assert done.stdout.count("does not run; see ") == len(PARTS)
