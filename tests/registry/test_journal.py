"""Chains in SQLite, in a real Postgres and in S3: each number once, whoever tries, and no link changes unnoticed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from tests.support.postgres import postgres
from tests.support.shelf import proof, registered, verdict
from vqbet import registry
from vqbet.contract import RegistryError
from vqbet.registry import chain, connection, journal, ledger, promotion

ENTRY = ledger.LedgerEntry(
    0, "promote", "tiny", 1, proof("1"), 0, "", "ann", "why", "2026-01-01T00:00:00+00:00", proof("e1")
)


def later(before: ledger.LedgerEntry, version: int, who: str = "ann") -> ledger.LedgerEntry:
    """The promotion of another version after `before`."""
    return replace(
        before,
        version=version,
        digest=proof(str(version)),
        previous_version=before.version,
        previous_digest=before.digest,
        who=who,
        evidence=proof(f"e{version}"),
    )


@pytest.fixture(scope="module")
def databases() -> Iterator[Iterator[str]]:
    """Addresses of fresh databases of one Postgres server."""

    def fresh(server: str) -> Iterator[str]:
        engine = create_engine(server.replace("postgresql", "postgresql+pg8000"), isolation_level="AUTOCOMMIT")
        for number in count():
            with engine.connect() as connected:
                connected.execute(text(f"CREATE DATABASE ledger{number}"))
            yield server.removesuffix("postgres") + f"ledger{number}"

    with postgres() as server:
        yield fresh(server)


@pytest.fixture(params=["sqlite", "postgres", "s3"])
def place(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ledger's address. SQLite's is the default, and none."""
    address = ""
    if request.param == "postgres":
        address = next(request.getfixturevalue("databases"))
    elif request.param == "s3":
        address = f"s3://{request.getfixturevalue('s3').bucket}/team"
    monkeypatch.setenv(journal.VARIABLE, address)
    return address


class TestEverywhere:
    @pytest.mark.slow
    @pytest.mark.usefixtures("place")
    def test_a_number_is_taken_once(self) -> None:
        kept = journal.opened()
        assert kept.lines("tiny") == []
        assert kept.add("tiny", 1, b'{"who":"\xc3\xa4nn"}')
        assert not kept.add("tiny", 1, b"{}")
        assert kept.add("tiny", 2, b"{}")
        assert kept.add("other", 1, b"{}")
        assert kept.lines("tiny") == [b'{"who":"\xc3\xa4nn"}', b"{}"]

    @pytest.mark.slow
    @pytest.mark.usefixtures("place")
    def test_of_many_writers_one_is_first(self) -> None:
        won: list[int] = []
        start = threading.Barrier(8)

        def write(number: int) -> None:
            start.wait()
            if journal.opened().add("tiny", 1, f'{{"n":{number}}}'.encode()):
                won.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert journal.opened().lines("tiny") == [f'{{"n":{number}}}'.encode() for number in won]

    @pytest.mark.slow
    @pytest.mark.usefixtures("place")
    def test_the_whole_story(self, tmp_path: Path) -> None:
        (one, first), (two, second) = registered(tmp_path, "one", "two")
        registry.promote("tiny", one, verdict=verdict(first), evidence="1" * 64, who="ann", why="w")
        registry.approve("tiny", "2" * 64, who="bob", why="saw it", hours=1)
        registry.promote(
            "tiny", two, verdict=verdict(second, first), evidence="2" * 64, who="ann", why="w", approvals=1
        )
        registry.rollback("tiny", why="it dropped a cup", who="bob")
        assert [entry.action for entry in registry.history("tiny")] == ["promote", "promote", "rollback"]
        assert registry.resolve("tiny@champion").version == one

    @pytest.mark.usefixtures("place")
    def test_who_read_too_early_writes_nothing(self, tmp_path: Path) -> None:
        """Two machines that share a ledger and no lock: both read, one writes, the other's entry is refused."""
        before = [ledger.append(ENTRY, [])]
        ledger.append(later(ENTRY, 2), before)
        with pytest.raises(chain.OvertakenError, match="somebody else wrote entry 2 at the same moment"):
            ledger.append(later(ENTRY, 2, "bob"), before)
        assert [entry.who for entry in ledger.read("tiny")] == ["ann", "ann"]

    @pytest.mark.slow
    @pytest.mark.usefixtures("place")
    def test_who_moves_the_alias_late_leaves_the_newest(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another machine promotes a third version between our entry and our move of the alias."""
        (one, first), (two, second), (three, third) = registered(tmp_path, "one", "two", "three")
        registry.promote("tiny", one, verdict=verdict(first), evidence=proof("1"), who="ann", why="w")
        client, moves = connection.client(), []

        def late(name: str, alias: str, version: str) -> None:
            moves.append(version)
            if len(moves) == 1:
                other = promotion.history("tiny")
                ledger.append(replace(later(other[-1], three, "bob"), digest=third), other)
            type(client).set_registered_model_alias(client, name, alias, version)

        monkeypatch.setattr(client, "set_registered_model_alias", late)
        registry.promote("tiny", two, verdict=verdict(second, first), evidence=proof("2"), who="ann", why="w")
        assert moves == [str(two), str(three)]
        assert registry.resolve("tiny@champion").version == three
        assert registry.repair("tiny") is None


class TestChain:
    @pytest.fixture
    def path(self, home: Path) -> Path:
        found = [ledger.append(ENTRY, [])]
        for version in (2, 3):
            found.append(ledger.append(later(found[-1], version), found))
        return home / "ledger.db"

    def test_entries_are_chained(self, path: Path) -> None:
        entries = ledger.read("tiny")
        assert [entry.seq for entry in entries] == [1, 2, 3]
        assert [entry.prev for entry in entries] == ["", entries[0].hash, entries[1].hash]

    @pytest.mark.parametrize(
        "fault",
        [
            "UPDATE vqbet_ledger SET line = replace(line, 'ann', 'bob') WHERE number = 1",
            "DELETE FROM vqbet_ledger WHERE number = 1",
            "DELETE FROM vqbet_ledger WHERE number = 2",
            "UPDATE vqbet_ledger SET number = 4 - number + 10; UPDATE vqbet_ledger SET number = number - 10",
            "UPDATE vqbet_ledger SET line = '{' WHERE number = 1",
            "UPDATE vqbet_ledger SET line = '[]' WHERE number = 2",
            "UPDATE vqbet_ledger SET line = '{\"seq\":1}' WHERE number = 1",
        ],
        ids=["edited", "first dropped", "middle dropped", "turned round", "no JSON", "no object", "fields missing"],
    )
    def test_any_change_is_named(self, path: Path, fault: str) -> None:
        with closing(sqlite3.connect(path)) as database:
            database.executescript(fault)
        with pytest.raises(RegistryError, match=rf"{path}: tiny, entry [123]: .*restore"):
            ledger.read("tiny")

    def test_reigns_undo_rollbacks(self) -> None:
        story = ["promote", "promote", "rollback", "promote"]
        entries = [replace(ENTRY, seq=i, action=act) for i, act in enumerate(story)]  # type: ignore[arg-type]
        assert [entry.seq for entry in ledger.reigns(entries)] == [0, 3]

    def test_an_approval_waits_behind_another(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read, overtaken = chain.read, []

        def slow(name: str) -> list[chain.Link]:
            found = read(name)
            if not overtaken:
                overtaken.append(chain.append(name, {"task": "tiny"}, found))
            return found

        monkeypatch.setattr(chain, "read", slow)
        registry.approve("tiny", "1" * 64, who="ann", why="saw it", hours=1)
        assert [link.get("who") for link in read("tiny.approvals")] == [None, "ann"]


class TestRefused:
    def test_a_full_disk_promotes_nothing(self, home: Path, tmp_path: Path) -> None:
        [(one, digest)] = registered(tmp_path, "one")
        assert registry.history("tiny") == []  # makes the table
        with closing(sqlite3.connect(home / "ledger.db")) as database:
            pages = database.execute("PRAGMA page_count").fetchone()[0]
        who = "a" * 20_000  # needs more pages than there may be
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal, "_engine", lambda address: limited(address, pages))
            with pytest.raises(
                RegistryError, match="cannot be written: database or disk is full; nothing was promoted"
            ):
                registry.promote("tiny", one, verdict=verdict(digest), evidence=proof("e"), who=who, why="w")
        assert registry.champion("tiny") is None
        assert registry.history("tiny") == []

    @pytest.mark.parametrize("address", ["mysql://host/db", "ledger.db", "file:///x", "s3:bucket"])
    def test_an_address_of_another_kind(self, home: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        monkeypatch.setenv(journal.VARIABLE, address)
        with pytest.raises(RegistryError, match=rf"{journal.VARIABLE}: expected sqlite.*got '{address}'"):
            registry.history("tiny")

    def test_a_database_that_is_gone_is_said_without_its_password(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(journal.VARIABLE, "postgresql://ann:secret@127.0.0.1:9/ledger")
        with pytest.raises(
            RegistryError, match=r"postgresql://127.0.0.1:9/ledger: the ledger cannot be read"
        ) as caught:
            registry.history("tiny")
        assert "secret" not in str(caught.value)

    def test_a_file_that_is_no_database(self, home: Path) -> None:
        (home / "ledger.db").write_bytes(b"not a database" * 100)
        with pytest.raises(RegistryError, match=r"ledger\.db: the ledger cannot be read: file is not a database"):
            registry.history("tiny")


def limited(address: str, pages: int) -> Any:
    """An engine whose database may not grow: what a full disk is to SQLite."""
    from sqlalchemy import NullPool, event

    engine = create_engine(address, poolclass=NullPool)
    event.listen(engine, "connect", lambda opened, _: opened.execute(f"PRAGMA max_page_count = {pages}"))
    return engine
