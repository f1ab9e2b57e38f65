"""Connection to the registry: its address, health checks, locks, and translation of its errors to RegistryError."""

from __future__ import annotations

import fcntl
import logging
import os
import random
import re
import sqlite3
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet.contract import RegistryError
from vqbet.files import atomic
from vqbet.registry import relocation

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
CHECK_TIMEOUT_S = 5.0
HELD_S = 20.0  # longest wait for one holder of a lock; MLflow waits equally long for another transaction
LOCK_S = 40.0  # longest wait for a lock, whether or not its holder changes
PAUSE_S = (0.005, 0.05)  # range of the random pause between tries for a lock, so that no process always loses
QUIET = {  # also short timeouts: by default MLflow waits for minutes when its server is gone
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def uri() -> str:
    """Return MLFLOW_TRACKING_URI. Raises RegistryError unless it is sqlite:///<file> or http(s)://."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address.startswith((SQLITE, "http://", "https://")):
        raise RegistryError(
            f"MLFLOW_TRACKING_URI: expected {SQLITE}<file> or the http(s) address of a server, got {address!r}; "
            "unset it to use the project's own store"
        )
    return address


def shown() -> str:
    """Return the address without user and password, for messages."""
    return re.sub(r"//[^/@]*@", "//", uri())


def home() -> Path:
    """Return the folder of artefacts, ledgers and locks: that of the SQLite file, or $VQBET_HOME for a server."""
    address = uri()
    if address.startswith(SQLITE):
        return Path(address.removeprefix(SQLITE)).absolute().parent
    return Path(os.environ.get("VQBET_HOME", ".vqbet")).absolute()


def empty() -> bool:
    """Return whether the SQLite file does not exist yet. Creates no file and contacts no server."""
    address = uri()
    return address.startswith(SQLITE) and not Path(address.removeprefix(SQLITE)).is_file()


def check() -> None:
    """Raise RegistryError, within seconds, if the registry cannot be written or reached. Does not import MLflow."""
    address = uri()
    if address.startswith(SQLITE):
        _check_file(Path(address.removeprefix(SQLITE)))
    else:
        _check_server(address)


def _check_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=CHECK_TIMEOUT_S, isolation_level=None)) as store:
            store.execute("BEGIN IMMEDIATE")
            number = store.execute("PRAGMA user_version").fetchone()[0]
            store.execute(f"PRAGMA user_version = {number}")  # writes a page, which fails in a read-only folder
            damage = store.execute("PRAGMA quick_check(1)").fetchone()[0]
            store.execute("ROLLBACK")
    except OSError as error:
        raise RegistryError(
            f"{path}: the registry's folder cannot be made: {error.strerror}; "
            f"{atomic.advice(error) or 'free the path, or set MLFLOW_TRACKING_URI'}"
        ) from error
    except sqlite3.DatabaseError as error:
        raise RegistryError(f"{path}: the registry cannot be opened for writing: {error}; {_advice(error)}") from error
    if damage != "ok":
        reason = " ".join(damage.split())
        raise RegistryError(f"{path}: the registry is damaged: {reason}; restore a copy, or move the file away")


def _advice(error: sqlite3.DatabaseError) -> str:
    if room := atomic.advice(str(error)):
        return room
    if isinstance(error, sqlite3.OperationalError):
        return "give this user write access to the file and its folder, or wait for the process that holds it"
    return "restore a copy, or move the file away to start a new one"


def _check_server(address: str) -> None:
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=CHECK_TIMEOUT_S) as answer:
            body = answer.read(64)
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise RegistryError(
            f"{shown()}: no MLflow server answers: {reason}; start it, or unset MLFLOW_TRACKING_URI to use the "
            "project's own store"
        ) from error
    if body.strip() != b"OK":
        raise RegistryError(
            f"{shown()}: expected an MLflow server, got {body!r} from /health; correct MLFLOW_TRACKING_URI"
        )


_clients: dict[str, MlflowClient] = {}
_opened_by = 0  # id of the process that opened the registry or a ledger; 0: none


def client() -> MlflowClient:
    """Return a client of the registry, opened once per process and address. Raises RegistryError if that fails.

    If the project's own store was moved or copied, the artefact paths in its SQLite file are updated.
    """
    address = uri()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    claim()
    if address not in _clients:
        _import_mlflow(address)  # takes seconds, so outside of the lock
        # two first users of a file at the same time would both create its tables
        with nullcontext() if _has_tables(address) else _held("mlflow"), refused("be opened"):
            _clients[address] = _opened(address)
        _mark(address)
    return _clients[address]


def claim() -> None:
    """Record that this process opened the registry or a ledger. Raises RegistryError in a fork of such a process.

    SQLite must not be carried across a fork: a mutex that another thread of the parent held at the fork is never
    released in the child, which then blocks forever and blocks all other processes.
    """
    global _opened_by
    if _opened_by not in (0, os.getpid()):
        raise RegistryError(
            f"process {os.getpid()} was forked from process {_opened_by}, which had the registry open; SQLite cannot "
            "be used on both sides of a fork. Start the process anew (multiprocessing: spawn or forkserver)"
        )
    _opened_by = os.getpid()


def _import_mlflow(address: str) -> None:
    import mlflow

    if address.startswith(SQLITE):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _has_tables(address: str) -> bool:
    """Return whether no tables need to be created: for a server, or a file this version of MLflow has opened before."""
    if not address.startswith(SQLITE):
        return True
    path = Path(address.removeprefix(SQLITE))
    try:
        return path.is_file() and _pragma(path, "user_version") == _version_mark()
    except sqlite3.Error:  # locked, or not a database; opening it raises the error
        return False


def _mark(address: str) -> None:
    """Mark the file's tables as complete in SQLite's user_version, which MLflow does not use."""
    if address.startswith(SQLITE) and not _has_tables(address):
        with suppress(sqlite3.Error):  # then the next process takes the lock once more
            _pragma(Path(address.removeprefix(SQLITE)), f"user_version = {_version_mark()}")


def _version_mark() -> int:
    return zlib.crc32(metadata.version("mlflow").encode()) >> 1  # user_version holds 31 bits and a sign


def _pragma(path: Path, what: str) -> int:
    with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as store:
        answer = store.execute(f"PRAGMA {what}").fetchone()
    return int(answer[0]) if answer else 0


def _opened(address: str) -> MlflowClient:
    import mlflow

    made = mlflow.MlflowClient(tracking_uri=address, registry_uri=address)
    if address.startswith(SQLITE):
        relocation.follow(Path(address.removeprefix(SQLITE)))
    return made


@contextmanager
def refused(action: str) -> Iterator[None]:
    """Convert errors of MLflow, its database and the network to RegistryError("<store>: cannot <action>: ...")."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        reason = " ".join(str(error).split())[:400]
        room = atomic.advice(reason)
        raise RegistryError(f"{shown()}: cannot {action}: {reason}{room and '; ' + room}") from error


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold this machine's lock `name`. The kernel releases the lock when the process dies for any reason.

    The registry is opened first, so that the lock is not held while MLflow is imported. Raises RegistryError, naming
    the process that holds the lock, after HELD_S seconds with one holder or LOCK_S seconds in total.
    """
    client()
    with _held(name):
        yield


@contextmanager
def _held(name: str) -> Iterator[None]:
    path = home() / "ledger" / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RegistryError(
            f"{path}: the registry's lock cannot be made: {error.strerror}; "
            f"{atomic.advice(error) or 'give this user write access'}"
        ) from error
    try:
        _wait_for(handle, path)
        with suppress(OSError):  # a full disk; the number is only used in other processes' error messages
            os.ftruncate(handle, os.pwrite(handle, f"{os.getpid()}\n".encode(), 0))
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int, path: Path) -> None:
    began = since = time.monotonic()
    holder = ""
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now, number = time.monotonic(), os.pread(handle, 20, 0).decode(errors="replace").strip()
            if number != holder:
                holder, since = number, now
            if now - since >= HELD_S or now - began >= LOCK_S:
                raise RegistryError(
                    f"{path}: nothing was done: waited {now - began:.0f} s for the lock, but {_told(holder)}"
                ) from None
        time.sleep(random.uniform(*PAUSE_S))


def _told(holder: str) -> str:
    """Return advice on the process whose id is in the lock."""
    import psutil

    try:
        stopped = psutil.Process(int(holder)).status() == psutil.STATUS_STOPPED
    except (ValueError, OverflowError, psutil.Error):
        return "other processes held it; try again"
    if stopped:
        return f"process {holder} holds it and is stopped; let it go on (kill -CONT {holder}) or end it, then try again"
    return f"process {holder} holds it; let it finish or end it, then try again"
