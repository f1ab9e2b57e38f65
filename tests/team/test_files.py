"""A team's files and processes without its servers: what is refused, and with which sentence."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import until
from vqbet import versions
from vqbet.commands import team_init, worker
from vqbet.contract import ConfigError, TeamError
from vqbet.team import database, entry, parts, place, processes, run, settings
from vqbet.team.place import Place


def test_status_without_a_team_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(TeamError, match=r"settings.json: missing; start the team first: vqbet team up"):
        settings.read(tmp_path / "settings.json")


def test_ports_and_credentials_are_chosen_once_and_shown_by_no_repr(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    chosen = settings.made(path)
    assert settings.made(path) == chosen
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(set(chosen.ports.values())) == len(settings.PORTS)
    assert len(set(chosen.secrets.values())) == len(settings.SECRETS)
    assert not [secret for secret in chosen.secrets.values() if secret in repr(chosen) or len(secret) < 32]


@pytest.mark.parametrize("damage", ["", "[]", '{"ports": {}, "secrets": {}}', '{"ports": {"postgres": "x"}}'])
def test_damaged_settings_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(damage)
    with pytest.raises(TeamError, match="is not what `vqbet team up` writes"):
        settings.made(path)


def test_a_port_that_another_program_listens_on_is_not_free() -> None:
    with socket.create_server((settings.HOST, 0)) as listener:
        port = listener.getsockname()[1]
        assert not settings.is_free(port)
    assert settings.is_free(port)


def test_a_second_up_at_the_same_time_is_refused(tmp_path: Path) -> None:
    here = Place(tmp_path, tmp_path)
    with here.held(), pytest.raises(TeamError, match="another `vqbet team` is at work here"), here.held():
        pass


def test_a_folder_that_postgres_cannot_reach_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(place, "database_user", lambda: "postgres")
    with pytest.raises(TeamError, match=r"mode 0700; Postgres refuses to run as root, .* set VQBET_TEAM to a folder"):
        Place(closed / "team", tmp_path).make()


def test_the_environment_file_is_what_a_shell_reads_back(tmp_path: Path) -> None:
    values = {"ONE": "a b", "TWO": "it's $HOME `id` \\", "THREE": "postgresql://u:p@h/d?x=1&y=2"}
    path = entry.write_variables(tmp_path / "environment", values)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    script = f'. \'{path}\'; printf \'%s\\n\' "$ONE" "$TWO" "$THREE"'
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={}).stdout
    assert told.splitlines() == list(values.values())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"registry": "sqlite:///x"}, "--registry: expected http"),
        ({"data": "/tmp/remote"}, "--data: expected s3://<bucket>/<prefix>"),
        ({"ledger": "mysql://x"}, "--ledger: expected postgresql://"),
        ({"data": "s3://"}, "--data: expected"),
        ({"registry": "http://a\nexport X=1"}, "--registry: expected"),
    ],
)
def test_a_malformed_address_of_a_team_is_refused(change: dict[str, str], sentence: str) -> None:
    good = {"registry": "http://mlflow", "data": "s3://bucket/dvc", "ledger": "postgresql://a@b/c"}
    with pytest.raises(TeamError, match=sentence):
        entry.remote_variables(**{**good, **change}, given={})


def test_init_writes_environment_and_remote_and_takes_credentials_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setenv("VQBET_TEAM", str(tmp_path / "team"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-word")
    monkeypatch.setattr(place, "database_user", lambda: "")
    told = team_init.init(
        tmp_path, team_init.Membership(registry="https://mlflow.lab", data="s3://lab/dvc", ledger="s3://lab/ledger")
    )
    written = (tmp_path / "team" / "environment").read_text()
    assert "export MLFLOW_TRACKING_URI=https://mlflow.lab\n" in written
    assert "export AWS_SECRET_ACCESS_KEY=hidden-word\n" in written
    assert "hidden-word" not in str(told)
    config = (tmp_path / ".dvc" / "config.local").read_text()
    assert "remote = team" in config
    assert "url = s3://lab/dvc" in config
    assert "hidden-word" not in config


def test_a_worker_outside_a_team_is_refused(tmp_path: Path) -> None:
    joined = dict.fromkeys(worker.NEEDED, "http://x")
    for missing in worker.NEEDED:
        given = {name: value for name, value in joined.items() if name != missing}
        with pytest.raises(ConfigError, match=f"{missing}: is not set; .* Join a team first"):
            worker.variables(tmp_path, given)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        worker.variables(tmp_path, {**joined, "MLFLOW_TRACKING_URI": "sqlite:///x"})
    assert worker.variables(tmp_path, joined)["VQBET_REPOSITORY"] == str(tmp_path)


def test_no_part_inherits_what_belongs_to_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "VQBET_LEDGER", "PGPASSWORD"):
        monkeypatch.setenv(name, "foreign")
    found = parts.inherited()
    assert "foreign" not in found.values()
    assert found["DO_NOT_TRACK"] == "true"


def test_the_s3_server_speaks_to_nobody_and_shows_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings.made(tmp_path / "settings.json")
    monkeypatch.setattr("vqbet.team.objects.program", lambda: "weed")
    launch = parts.PARTS["s3"].launch(Place(tmp_path, tmp_path), chosen)
    assert "-master.telemetry=false" in launch.command
    assert "-ip.bind=127.0.0.1" in launch.command
    assert not [secret for secret in chosen.secrets.values() if secret in " ".join(launch.command) + repr(launch)]


def test_a_machine_without_postgres_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(database.VARIABLE, str(tmp_path))
    with pytest.raises(TeamError, match=r"postgres: found no program postgres in .*; install Postgres \(Debian: apt"):
        parts.PARTS["postgres"].launch(Place(tmp_path, tmp_path), settings.made(tmp_path / "settings.json"))


def sleeper(folder: Path, code: str) -> int:
    return processes.start(folder, processes.Launch([sys.executable, "-c", code], dict(os.environ), folder.parent))


def test_all_of_a_part_ends_though_its_first_process_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "part"
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    pid = sleeper(folder, f"{code} time.sleep(600)")
    until(lambda: len(processes.left(folder)) == 2)
    os.kill(pid, 9)
    until(lambda: processes.running(folder) == 0)
    assert len(processes.left(folder)) == 1, "the child that nobody waits for"
    processes.end(folder)
    assert processes.left(folder) == []


def test_a_process_number_of_another_program_is_not_the_part(tmp_path: Path) -> None:
    folder = tmp_path / "part"
    pid = sleeper(folder, "import time; time.sleep(600)")
    note = json.loads((folder / "process.json").read_text())
    for change in ({"boot": "another"}, {"started": note["started"] - 100.0}, {"pid": os.getpid()}):
        (folder / "process.json").write_text(json.dumps({**note, **change}))
        assert processes.running(folder) == 0
        assert [process.pid for process in processes.left(folder)] == [pid], "known by its mark alone"
    processes.end(folder)
    assert processes.left(folder) == []


def test_a_part_that_ends_at_once_leaves_its_last_words(tmp_path: Path) -> None:
    folder = tmp_path / "part"
    sleeper(folder, "print('cannot open the database'); print('---')")
    until(lambda: processes.running(folder) == 0)
    assert processes.last_words(folder) == "cannot open the database"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text("[core]\n")
    (folder / "code").write_text("one\n")
    for command in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-qm", "one"), ("branch", "team")):
        git(folder, *command)
    monkeypatch.setenv("VQBET_DATA", "s3://bucket/dvc")
    return folder


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    return subprocess.run(
        ["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_run_has_a_clone_with_the_teams_remote_and_gets_it_again(tmp_path: Path, repository: Path) -> None:
    runs, one = tmp_path / "runs", "00000000-0001"
    clone = run.prepared(runs, one, str(repository), "team")
    assert git(clone, "rev-parse", "HEAD") == git(repository, "rev-parse", "team")
    assert "url = s3://bucket/dvc" in (clone / ".dvc" / "config.local").read_text()
    with pytest.raises(TeamError, match=f"a process of run {one} is still at work on this machine"):
        run.prepared(runs, one, str(repository), "team")


@pytest.mark.parametrize("left", ["a lock", "a commit", "a pushed commit", "a rebase"])
def test_a_clone_that_a_kill_left_in_its_commit_commits_again(tmp_path: Path, repository: Path, left: str) -> None:
    clone = run.prepared(tmp_path / "runs", "00000000-0001", str(repository), "team")
    git(clone, "checkout", "-q", "-B", "team")
    (clone / "data.dvc").write_text("ours\n")
    git(clone, "add", "data.dvc")
    if left != "a lock":
        git(clone, "commit", "-qm", "ours")
    if left == "a pushed commit":
        git(clone, "push", "-q", "origin", "HEAD:refs/heads/team")
        git(clone, "update-ref", "-d", "refs/remotes/origin/team")
    if left == "a rebase":
        git(repository, "checkout", "-q", "team")
        (repository / "data.dvc").write_text("theirs\n")
        git(repository, "add", "-A")
        git(repository, "commit", "-qm", "theirs")
        git(repository, "checkout", "-q", "main")
        git(clone, "fetch", "-q", "origin", "team")
        with pytest.raises(subprocess.CalledProcessError):
            git(clone, "rebase", "-q", "FETCH_HEAD")
    (clone / ".git" / "index.lock").touch()
    run.settle(clone, "team")
    assert (clone / "data.dvc").read_text() == "ours\n"
    said = versions.commit(clone, "team", "ours", ["data.dvc"])
    assert said.startswith(
        {"a pushed commit": "nothing to commit", "a rebase": "team has changed"}.get(left, "committed")
    )
    assert len(git(repository, "log", "--format=%h", "main..team").splitlines()) == 1


def test_old_clones_go_and_those_at_work_stay(tmp_path: Path, repository: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for number in range(run.KEPT + 3):
        folder = runs / f"0000000{number}"
        folder.mkdir()
        (runs / f"{folder.name}.lock").touch()
        os.utime(folder, (number, number))
    run._hold(runs / "00000000.lock", "00000000")
    run.prepared(runs, "00000000-aaaa", str(repository), "team")
    there = sorted(path.name for path in runs.iterdir() if path.is_dir() and path.name != "cache")
    assert there == ["00000000", "00000000-aaaa", *(f"0000000{number}" for number in range(3, run.KEPT + 3))]


@pytest.mark.parametrize("one", ["", "../up", "a b", "x" * 50])
def test_what_is_no_run_makes_no_folder(tmp_path: Path, one: str) -> None:
    with pytest.raises(TeamError, match="expected the id of a run"):
        run.prepared(tmp_path / "runs", one, "/nowhere", "team")
    assert not (tmp_path / "runs").exists()


def test_a_missing_branch_says_how_it_comes(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(TeamError, match=r"git clone in .*nobody.*; if the branch is missing: vqbet flow deploy"):
        run.prepared(tmp_path / "runs", "00000000", str(repository), "nobody")


def test_the_launcher_of_runs_imports_nothing_heavy() -> None:
    code = "import sys, vqbet.team.run; print([name for name in ('torch', 'mlflow', 'prefect') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"
