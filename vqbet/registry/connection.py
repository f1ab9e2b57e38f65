"""Where the registry is, whether it answers, and how its refusals become one sentence."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet import durable
from vqbet.contract import RegistryError
from vqbet.registry import relocation

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
CHECK_TIMEOUT_S = 5.0
QUIET = {  # and quick: by MLflow's defaults a stage waits for minutes when its server is gone
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def uri() -> str:
    """The store that MLFLOW_TRACKING_URI names. Raises RegistryError unless it is sqlite:///<file> or http(s)://."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address.startswith((SQLITE, "http://", "https://")):
        raise RegistryError(
            f"MLFLOW_TRACKING_URI: expected {SQLITE}<file> or the http(s) address of a server, got {address!r}; "
            "unset it to use the project's own store"
        )
    return address


def shown() -> str:
    """The address as it may be printed: without user and password."""
    return re.sub(r"//[^/@]*@", "//", uri())


def home() -> Path:
    """The folder of artefacts, ledgers and locks: beside the SQLite file, or $VQBET_HOME for a server."""
    address = uri()
    if address.startswith(SQLITE):
        return Path(address.removeprefix(SQLITE)).absolute().parent
    return Path(os.environ.get("VQBET_HOME", ".vqbet")).absolute()


def empty() -> bool:
    """Whether nothing can have been registered yet, since the SQLite file is not there. Makes none, asks no server."""
    address = uri()
    return address.startswith(SQLITE) and not Path(address.removeprefix(SQLITE)).is_file()


def check() -> None:
    """Raises RegistryError, within seconds, where the registry cannot be written or reached. Imports no MLflow."""
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
            store.execute(f"PRAGMA user_version = {number}")  # touches a page: a read-only folder shows here
            damage = store.execute("PRAGMA quick_check(1)").fetchone()[0]
            store.execute("ROLLBACK")
    except OSError as error:
        raise RegistryError(
            f"{path}: the registry's folder cannot be made: {error.strerror}; "
            f"{durable.advice(error) or 'free the path, or set MLFLOW_TRACKING_URI'}"
        ) from error
    except sqlite3.DatabaseError as error:
        raise RegistryError(f"{path}: the registry cannot be opened for writing: {error}; {_advice(error)}") from error
    if damage != "ok":
        reason = " ".join(damage.split())
        raise RegistryError(f"{path}: the registry is damaged: {reason}; restore a copy, or move the file away")


def _advice(error: sqlite3.DatabaseError) -> str:
    if room := durable.advice(str(error)):
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


def client() -> MlflowClient:
    """A client of the registry; opened once per process and address. Raises RegistryError where that fails.

    Paths in the project's own store follow the folder of its file when that was moved or copied.
    """
    address = uri()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with locked("mlflow"), refused("be opened"):  # two first users at once would both make its tables
        return _client(address)


@lru_cache(maxsize=4)
def _client(address: str) -> MlflowClient:
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    made = mlflow.MlflowClient(tracking_uri=address, registry_uri=address)
    if address.startswith(SQLITE):
        relocation.follow(Path(address.removeprefix(SQLITE)))
    return made


@contextmanager
def refused(action: str) -> Iterator[None]:
    """Whatever MLflow, its database or the network say becomes one RegistryError: "<store>: cannot <action>: ..."."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        reason = " ".join(str(error).split())[:400]
        room = durable.advice(reason)
        raise RegistryError(f"{shown()}: cannot {action}: {reason}{room and '; ' + room}") from error


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold this machine's lock `name`. Released by the kernel when the process dies, however it dies."""
    path = home() / "ledger" / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RegistryError(
            f"{path}: the registry's lock cannot be made: {error.strerror}; "
            f"{durable.advice(error) or 'give this user write access'}"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
