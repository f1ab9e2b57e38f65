"""Approvals and forced promotions: bound to a verdict, to people and to time; loud where there was no verdict."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.shelf import registered, verdict
from vqbet import registry
from vqbet.contract import RegistryError
from vqbet.registry import LedgerEntry, approvals

ONE, TWO = "1" * 64, "2" * 64


def approve(who: str, evidence: str = ONE, hours: float = 1.0) -> None:
    registry.approve("tiny", evidence, who=who, why="watched all films", hours=hours)


def promote(version: int, digest: str, needed: int) -> LedgerEntry:
    return registry.promote(
        "tiny", version, verdict=verdict(digest), evidence=ONE, who="ann", why="w", approvals=needed
    )


@pytest.mark.slow
def test_a_promotion_waits_for_its_approvals(home: Path, tmp_path: Path) -> None:
    [(one, digest)] = registered(tmp_path, "one")
    with pytest.raises(RegistryError, match="verdict 111111111111 needs the approval of 1 person, it has 0"):
        promote(one, digest, 1)
    assert registry.champion("tiny") is None
    approve("bob")
    entry = promote(one, digest, 1)
    assert entry.approved == "bob"
    assert "approved by bob" in registry.show(f"tiny/{one}")["ledger 1"]


def test_two_people_are_two_people(home: Path, tmp_path: Path) -> None:
    [(one, digest)] = registered(tmp_path, "one")
    approve("bob")
    approve("bob")
    with pytest.raises(RegistryError, match=r"of 2 different people, it has 1; bob's holds until"):
        promote(one, digest, 2)
    approve("cleo")
    assert promote(one, digest, 2).approved == "bob, cleo"


def test_an_approval_expires(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [(one, digest)] = registered(tmp_path, "one")
    approve("bob", hours=2.0)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(hours=3)

    monkeypatch.setattr(approvals, "datetime", Later)
    with pytest.raises(RegistryError, match=r"it has 0; bob's expired "):
        promote(one, digest, 1)


def test_an_approval_of_another_verdict_is_none(home: Path, tmp_path: Path) -> None:
    [(one, digest)] = registered(tmp_path, "one")
    approve("bob", TWO)
    with pytest.raises(RegistryError, match=r"it has 0; bob's is of verdict 222222222222; approve it: "):
        promote(one, digest, 1)


@pytest.mark.slow
def test_a_forged_approval_is_noticed(home: Path, tmp_path: Path) -> None:
    """The planted fault: another name in the table."""
    [(one, digest)] = registered(tmp_path, "one")
    approve("bob")
    with closing(sqlite3.connect(home / "ledger.db")) as database, database:
        database.execute("UPDATE vqbet_ledger SET line = replace(line, 'bob', 'eve')")
    with pytest.raises(RegistryError, match=r"tiny\.approvals, entry 1: the chain is broken"):
        promote(one, digest, 1)


def test_an_approval_has_a_reason_and_a_verdict(home: Path) -> None:
    with pytest.raises(RegistryError, match="an approval needs a reason"):
        registry.approve("tiny", ONE, who="bob", why=" ", hours=1.0)
    with pytest.raises(RegistryError, match="expected the id of its evidence, got 'abc'"):
        registry.approve("tiny", "abc", who="bob", why="w", hours=1.0)


def test_a_forced_promotion_is_loud_for_ever(home: Path, tmp_path: Path) -> None:
    (one, first), (two, second) = registered(tmp_path, "one", "two")
    promote(one, first, 0)
    with pytest.raises(RegistryError, match="a forced promotion needs a reason"):
        registry.force("tiny", two, who="ann", why="")
    entry = registry.force("tiny", two, who="ann", why="the robot stands still")
    assert (entry.action, entry.version, entry.previous_version, entry.evidence) == ("force", two, one, "")
    assert registry.resolve("tiny@champion").digest == second
    assert "FORCED WITHOUT A VERDICT" in registry.show("tiny@champion")["ledger 2"]
    assert registry.rollback("tiny", why="it moved", who="bob").version == one
