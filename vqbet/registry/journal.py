"""Storage of chains: append-only numbered lines. Of concurrent writers of one number, exactly one succeeds.

$VQBET_LEDGER names the storage:

    sqlite:///<file>                  the default, ledger.db beside the registry's own file: a transaction
    postgresql://user:secret@host/db  shared by all machines of a team: a transaction
    s3://bucket/prefix                likewise shared: one object per line, created with If-None-Match

The journal provides the compare-and-set that MLflow's alias lacks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vqbet import storage
from vqbet.contract import RegistryError, StorageError
from vqbet.registry import connection

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

VARIABLE = "VQBET_LEDGER"
POSTGRES = "postgresql://"
WAIT_S = connection.HELD_S  # for another process's transaction


class Journal(Protocol):
    """Numbered lines, by the name of their chain."""

    @property
    def where(self) -> str:
        """The address without user and password, for messages."""

    def lines(self, name: str) -> list[bytes]:
        """Return the lines in the order of their numbers. Raises RegistryError if the storage does not answer."""

    def add(self, name: str, number: int, line: bytes) -> bool:
        """Add `line` durably as number 1, 2, 3, ...; return False and write nothing if that number is taken."""


def opened() -> Journal:
    """Return the journal that VQBET_LEDGER names. Raises RegistryError for an address that is not listed above.

    Also raises RegistryError in a fork of a process that had the registry or a ledger open, see `connection.claim`.
    """
    connection.claim()
    address = os.environ.get(VARIABLE) or f"{connection.SQLITE}{connection.home() / 'ledger.db'}"
    where = re.sub(r"//[^/@]*@", "//", address)
    if address.startswith((connection.SQLITE, POSTGRES)):
        return _Tables(address, where.removeprefix(connection.SQLITE))
    if address.startswith("s3://"):
        return _Objects(address, where)
    raise RegistryError(
        f"{VARIABLE}: expected {connection.SQLITE}<file>, {POSTGRES}<user>@<host>/<database> or "
        f"s3://<bucket>/<prefix>, got {where!r}; unset it to keep the ledger beside the registry's own file"
    )


@dataclass(frozen=True)
class _Tables:
    """A table of SQLite or Postgres, whose primary key (chain, number) lets only one writer of a number succeed."""

    address: str
    where: str

    def lines(self, name: str) -> list[bytes]:
        from sqlalchemy import text

        with self._transaction("read") as database:
            found = database.execute(
                text("SELECT line FROM vqbet_ledger WHERE chain = :name ORDER BY number"), {"name": name}
            )
            return [str(line).encode() for (line,) in found]

    def add(self, name: str, number: int, line: bytes) -> bool:
        from sqlalchemy import text
        from sqlalchemy.exc import IntegrityError

        with self._transaction("written") as database:
            try:
                database.execute(
                    text("INSERT INTO vqbet_ledger (chain, number, line) VALUES (:name, :number, :line)"),
                    {"name": name, "number": number, "line": line.decode()},
                )
            except IntegrityError:
                return False
            database.commit()
        return True

    @contextmanager
    def _transaction(self, what: str) -> Iterator[Connection]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with _engine(self.address).connect() as database:
                yield database
        except (SQLAlchemyError, OSError) as error:
            reason = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
            raise RegistryError(
                f"{self.where}: the ledger cannot be {what}: {reason}; nothing was promoted. Check {VARIABLE}, free "
                "space and permissions"
            ) from error


@lru_cache(maxsize=4)
def _engine(address: str) -> Engine:
    """Return the database, creating its table if needed. Connections are not pooled, so a dying process leaves none."""
    from sqlalchemy import NullPool, create_engine, inspect, text
    from sqlalchemy.exc import DBAPIError

    if address.startswith(POSTGRES):
        engine = create_engine(address.replace(POSTGRES, "postgresql+pg8000://", 1), poolclass=NullPool)
    else:
        Path(address.removeprefix(connection.SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(address, poolclass=NullPool, connect_args={"timeout": WAIT_S})
    if inspect(engine).has_table("vqbet_ledger"):
        return engine
    try:
        with engine.begin() as database:
            database.execute(
                text(
                    "CREATE TABLE vqbet_ledger (chain VARCHAR(255) NOT NULL, number INTEGER NOT NULL, "
                    "line TEXT NOT NULL, PRIMARY KEY (chain, number))"
                )
            )
    except DBAPIError:
        if not inspect(engine).has_table("vqbet_ledger"):  # otherwise another process created the table in the meantime
            raise
    return engine


@dataclass(frozen=True)
class _Objects:
    """One object per line: `<prefix>/ledger/<chain>/<number>.json`."""

    address: str
    where: str

    def lines(self, name: str) -> list[bytes]:
        with self._refused("read"):
            bucket = _bucket(self.address)
            found = [bucket.read(key) for key in bucket.keys(f"ledger/{name}/")]
        return [line for line in found if line is not None]

    def add(self, name: str, number: int, line: bytes) -> bool:
        with self._refused("written"):
            return _bucket(self.address).create(f"ledger/{name}/{number:08d}.json", line)

    @contextmanager
    def _refused(self, what: str) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            raise RegistryError(f"the ledger cannot be {what}: {error}; nothing was promoted") from error


@lru_cache(maxsize=4)
def _bucket(address: str) -> storage.Bucket:
    return storage.Bucket.at(address)
