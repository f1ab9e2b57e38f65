"""Nobody waits for ever: locks that somebody holds, databases that are locked, forks of a process that has one open."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vqbet.contract import RegistryError
from vqbet.registry import connection, journal

HOLD = """
import fcntl, os, sys, time
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(handle, fcntl.LOCK_EX)
os.pwrite(handle, sys.argv[2].encode() or str(os.getpid()).encode(), 0)
print("held", flush=True)
time.sleep(600)
"""
FORK = """
import os
from vqbet.registry import journal
if {open_before_the_fork}:
    journal.opened().lines("raced")
child = os.fork()
if child == 0:
    try:
        journal.opened().lines("raced")
    except Exception as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
MLFLOW = """
import fcntl
from pathlib import Path
for name in ("mlflow", "raced"):
    path = Path({folder!r}) / f"{{name}}.lock"
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("imported while nobody is kept waiting", flush=True)
class MlflowClient:
    def __init__(self, **_):
        pass
"""


@pytest.fixture
def impatient(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(connection, "HELD_S", 0.2)
    return home / "ledger" / "raced.lock"


@contextmanager
def held(lock: Path, number: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock; `number`: what it says it is, itself where empty."""
    lock.parent.mkdir(exist_ok=True)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock), number], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_holder_of_a_lock_is_named(impatient: Path) -> None:
    with held(impatient) as holder:
        told = rf"raced\.lock: nothing was done: .* process {holder.pid} holds it; let it finish"
        with pytest.raises(RegistryError, match=told), connection.locked("raced"):
            pass
        holder.kill()  # the kernel releases what it held
        holder.wait()
        with connection.locked("raced"):
            assert impatient.read_text() == f"{os.getpid()}\n"


def test_a_stopped_holder_is_named_as_stopped(impatient: Path) -> None:
    with held(impatient) as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        os.waitpid(holder.pid, os.WUNTRACED)
        told = rf"process {holder.pid} holds it and is stopped; .*kill -CONT {holder.pid}"
        with pytest.raises(RegistryError, match=told), connection.locked("raced"):
            pass


@pytest.mark.parametrize("number", ["999999999999", "what", "-1"])
def test_a_holder_that_is_not_known_is_no_traceback(impatient: Path, number: str) -> None:
    with held(impatient, number), pytest.raises(RegistryError, match="other processes"), connection.locked("raced"):
        pass


@pytest.mark.slow
def test_a_lock_whose_holders_change_is_waited_for_longer(impatient: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HELD_S", 2.0)
    monkeypatch.setattr(connection, "LOCK_S", 3.0)

    def others() -> None:
        for number in itertools.count(1):
            if ended.wait(0.1):
                return
            impatient.write_text(f"{number}\n")  # as if another process had it now

    ended, began = threading.Event(), time.monotonic()
    changing = threading.Thread(target=others)
    with held(impatient):
        changing.start()
        try:
            with pytest.raises(RegistryError, match=r"waited \d+ s for the lock"), connection.locked("raced"):
                pass
        finally:
            ended.set()
            changing.join()
    assert time.monotonic() - began >= 3.0


def test_a_lock_is_waited_for(home: Path) -> None:
    with held(home / "ledger" / "raced.lock") as holder:
        subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {holder.pid}"])
        with connection.locked("raced"):
            holder.wait()
        assert holder.returncode == -signal.SIGKILL


def test_a_ledger_that_another_process_keeps_locked_is_a_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "WAIT_S", 0.1)
    monkeypatch.setenv(journal.VARIABLE, f"sqlite:///{home / 'other.db'}")
    assert journal.opened().lines("raced") == []
    with sqlite3.connect(home / "other.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RegistryError, match=r"other\.db: the ledger cannot be written: database is locked"):
            journal.opened().add("raced", 1, b"{}")
        other.execute("ROLLBACK")
    assert journal.opened().add("raced", 1, b"{}")


@pytest.mark.parametrize("before", [True, False])
def test_a_fork_of_a_process_with_an_open_ledger_is_refused(tmp_path: Path, before: bool) -> None:
    """SQLite hangs there, now and then, when the parent has threads: 6 of 120 did, and kept the others waiting."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    code = FORK.format(open_before_the_fork=before)
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert ("which had the registry open" in ended.stdout) == before, ended.stdout + ended.stderr
    assert before or not ended.stdout


def test_only_who_may_have_to_make_the_tables_waits_for_others_that_open(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HELD_S", 0.2)
    with held(home / "ledger" / "mlflow.lock"):
        copy = home / "copy.db"
        with sqlite3.connect(home / "mlflow.db") as source, sqlite3.connect(copy) as target:
            source.backup(target)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy}")
        assert connection.client().search_registered_models() == []
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'new.db'}")
        with pytest.raises(RegistryError, match=r"mlflow\.lock: nothing was done"):
            connection.client()
        with sqlite3.connect(copy) as older:  # as another version of MLflow left it
            older.execute("PRAGMA user_version = 7")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:////{copy}")
        with pytest.raises(RegistryError, match=r"mlflow\.lock: nothing was done"):
            connection.client()


def test_nobody_waits_while_mlflow_is_imported(tmp_path: Path) -> None:
    """It takes seconds of a core; eight processes that imported it one after the other took 40 s."""
    locks = tmp_path / "ledger"
    locks.mkdir()
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").write_text(MLFLOW.format(folder=str(locks)))
    (tmp_path / "mlflow" / "exceptions.py").write_text("class MlflowException(Exception): pass\n")
    code = "from vqbet.registry import connection\nwith connection.locked('raced'): print('locked')"
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "VQBET_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]),
    }
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ended.stdout == "imported while nobody is kept waiting\nlocked\n", ended.stderr
    with (locks / "raced.lock").open("a") as lock:  # and it was given back
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
