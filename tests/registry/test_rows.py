"""Entries as no ledger can have them: each is refused by a sentence with chain, entry and field; audit lists all."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench import fuzz_ledger
from tests.support.people import repository
from tests.support.shelf import proof, registered, verdict
from vqbet import registry
from vqbet.commands import audit
from vqbet.contract import RegistryError
from vqbet.registry import approvals, journal, ledger, promotion, rows
from vqbet.stages.progress import Watch

TASK = fuzz_ledger.TASK
FIRST, SECOND, THIRD = proof("one"), proof("two"), proof("three")


@pytest.fixture
def root(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose ledger has four entries: two promotions, a rollback, a forced promotion; and one approval."""
    folder = repository(tmp_path / "project")
    monkeypatch.setenv("VQBET_PROJECT", str(folder))
    (one, first), (two, second), (three, _) = registered(tmp_path, "one", "two", "three", name=TASK)
    registry.approve(TASK, proof("e1"), who="bob", why="saw it", hours=1)
    registry.promote(TASK, one, verdict=verdict(first), evidence=proof("e1"), who="ann", why="w", approvals=1)
    registry.promote(TASK, two, verdict=verdict(second, first), evidence=proof("e2"), who="ann", why="w")
    registry.rollback(TASK, why="it dropped a cup", who="ann")
    registry.force(TASK, three, who="ann", why="the robot stands still")
    return folder


def forged(number: int, change: dict[str, Any], chain: str = TASK) -> None:
    """One entry rewritten by somebody who writes both databases: hashes recomputed, head and alias set."""
    chains = {name: fuzz_ledger.read(name) for name in fuzz_ledger.CHAINS}
    link = chains[chain][number - 1]
    link |= change
    for name in [name for name, value in change.items() if value is ...]:
        del link[name]
    fuzz_ledger.rehashed(chains[chain])
    fuzz_ledger.write(chains)


def wrong(root: Path) -> dict[str, str]:
    return {one.what: one.wrong for one in audit.run(root, TASK, Watch(), repair=False) if one.open}


ENTRIES: list[tuple[int, dict[str, Any], str]] = [
    (1, {"action": "blessed"}, "field 'action': expected one of promote, force, rollback, got 'blessed'"),
    (1, {"action": ["promote"]}, "field 'action': expected one of promote"),
    (1, {"task": "pusht"}, "field 'task': expected 'blockpush', got 'pusht'"),
    (2, {"version": "2"}, "field 'version': expected a whole number, 1 or more, got '2'"),
    (2, {"version": True}, "field 'version': expected a whole number"),
    (2, {"version": 0}, "field 'version': expected a whole number, 1 or more"),
    (2, {"version": 10**30}, "field 'version': expected a whole number"),
    (2, {"digest": None}, "field 'digest': expected a sha256 in hexadecimal, got None"),
    (2, {"digest": "F" * 64}, "field 'digest': expected a sha256"),
    (2, {"evidence": 5}, "field 'evidence': expected a sha256 in hexadecimal, got 5"),
    (2, {"evidence": ""}, "field 'evidence': expected a sha256 in hexadecimal, got ''"),
    (4, {"evidence": "1" * 64}, "field 'evidence': expected ''"),
    (1, {"when": "yesterday"}, "field 'when': expected a time with its offset"),
    (1, {"when": "2026-01-01T00:00:00"}, "field 'when': expected a time with its offset"),
    (1, {"when": "9999-01-01T00:00:00+00:00"}, "field 'when': expected a time with its offset"),
    (2, {"when": "2020-01-01T00:00:00+00:00"}, "field 'when': .* is before the entry before it"),
    (1, {"who": ""}, "field 'who': expected a name"),
    (4, {"why": " "}, "field 'why': expected a name"),
    (1, {"approved": None}, "field 'approved': expected a text"),
    (1, {"colour": "red"}, "field 'colour' is unknown to this version"),
    (2, {"who": ...}, "field 'who' is missing"),
    (2, {"action": ...}, "field 'action' is missing"),
    (1, {"action": "rollback", "evidence": "", "approved": ""}, "a rollback, and there was no champion to go back to"),
    (3, {"version": 3, "digest": THIRD}, "a rollback goes to version 1, digest .*, this one to version 3"),
    (1, {"previous_version": 1, "previous_digest": SECOND}, "expected the champion before, none, got version 1"),
    (2, {"previous_digest": THIRD}, "expected the champion before, version 1"),
    (2, {"previous_version": 0, "previous_digest": ""}, "expected the champion before, version 1, digest .*, got none"),
]


@pytest.mark.slow
@pytest.mark.usefixtures("root")
def test_a_malformed_entry_is_a_sentence_for_every_reader() -> None:
    honest = {name: fuzz_ledger.read(name) for name in fuzz_ledger.CHAINS}
    about = {"outcome": "PROMOTE", "candidate": SECOND, "champion": THIRD}
    readers = (
        lambda: registry.history(TASK),
        lambda: registry.show(f"{TASK}/1"),
        lambda: registry.rollback(TASK, why="w", who="ann"),
        lambda: registry.promote(TASK, 2, verdict=about, evidence=proof("e9"), who="ann", why="w"),
    )
    for turn, (number, change, says) in enumerate(ENTRIES):
        forged(number, change)
        for reader in (readers[0], readers[1 + turn % 3]):
            with pytest.raises(RegistryError, match=f"{TASK}, entry {number}: .*{says}") as caught:
                reader()
            assert len(str(caught.value)) < 600
        fuzz_ledger.write(honest)
    assert len(registry.history(TASK)) == 4


@pytest.mark.slow
def test_an_audit_lists_every_malformed_entry_and_all_else(root: Path) -> None:
    honest = set(wrong(root))
    assert honest == {f"{TASK}/1", f"{TASK}/2", f"{TASK}/3", "entry 1, evidence", "entry 2, evidence"}  # stand-ins
    forged(1, {"when": "yesterday"})
    forged(3, {"action": "blessed"})
    forged(1, {"until": 5}, f"{TASK}.approvals")
    found = wrong(root)
    assert "field 'when'" in found["ledger, entry 1"]
    assert "field 'action'" in found["ledger, entry 3"]
    assert "field 'until'" in found["approvals, entry 1"]
    assert "ledger, entry 2" not in found
    assert {f"{TASK}/2", f"{TASK}/3", "entry 2, evidence"} <= set(found)


APPROVALS: list[tuple[dict[str, Any], str]] = [
    ({"who": 5}, "field 'who': expected a name, got 5"),
    ({"evidence": "abc"}, "field 'evidence': expected a sha256"),
    ({"when": "2026-01-01T00:00:00"}, "field 'when': expected a time with its offset"),
    ({"until": None}, "field 'until': expected a time with its offset"),
    ({"until": "2001-01-01T00:00:00+00:00"}, "field 'until': .* is before 'when'"),
    ({"task": "pusht"}, "field 'task': expected 'blockpush'"),
    ({"why": ...}, "field 'why' is missing"),
    ({"more": 1}, "field 'more' is unknown"),
]


@pytest.mark.slow
@pytest.mark.usefixtures("root")
def test_a_malformed_approval_is_a_sentence() -> None:
    honest = {name: fuzz_ledger.read(name) for name in fuzz_ledger.CHAINS}
    for change, says in APPROVALS:
        forged(1, change, f"{TASK}.approvals")
        with pytest.raises(RegistryError, match=rf"{TASK}\.approvals, entry 1: {says}"):
            approvals.approved(TASK, proof("e1"), needed=1)
        fuzz_ledger.write(honest)
    assert approvals.approved(TASK, proof("e1"), needed=1)
    fuzz_ledger.doubled(honest, f"{TASK}.approvals", random.Random(0))
    fuzz_ledger.rehashed(honest[f"{TASK}.approvals"])
    fuzz_ledger.write(honest)
    with pytest.raises(RegistryError, match="entry 2: repeats an earlier approval"):
        approvals.approved(TASK, proof("e1"), needed=1)


@pytest.mark.usefixtures("home")
def test_what_would_be_malformed_is_not_written() -> None:
    entry = ledger.LedgerEntry(0, "promote", "tiny", 1, FIRST, 0, "", "ann", "w", rows.now(), proof("e1"))
    with pytest.raises(RegistryError, match="nothing was written to the ledger: field 'evidence'"):
        ledger.append(replace(entry, evidence="e"), [])
    with pytest.raises(RegistryError, match="nothing was written to the ledger: field 'action': a rollback"):
        ledger.append(replace(entry, action="rollback", evidence=""), [])
    assert ledger.read("tiny") == []


def test_a_spent_verdict_is_not_used_twice(home: Path, tmp_path: Path) -> None:
    (one, first), (two, second) = registered(tmp_path, "one", "two")
    registry.promote("tiny", one, verdict=verdict(first), evidence=proof("e1"), who="ann", why="w")
    registry.promote("tiny", two, verdict=verdict(second, first), evidence=proof("e2"), who="ann", why="w")
    registry.rollback("tiny", why="w", who="ann")
    entries = ledger.read("tiny")
    again = replace(entries[1], seq=0, when=rows.now(), previous_version=one, previous_digest=first)
    with pytest.raises(RegistryError, match="field 'evidence': this verdict was used by an earlier entry"):
        ledger.append(again, entries)


def test_a_clock_that_is_behind_does_not_run_the_ledger_backwards(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, first), (two, second) = registered(tmp_path, "one", "two")
    before = registry.promote("tiny", one, verdict=verdict(first), evidence=proof("e1"), who="ann", why="w")

    class Behind(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) - timedelta(days=2)

    monkeypatch.setattr(rows, "datetime", Behind)
    entry = registry.promote("tiny", two, verdict=verdict(second, first), evidence=proof("e2"), who="ann", why="w")
    assert entry.when == before.when
    assert len(promotion.history("tiny")) == 2


def test_clocks_of_two_machines_may_differ_by_minutes() -> None:
    assert not rows.backwards("2026-01-01T00:00:00+00:00", "2026-01-01T00:04:59+00:00")
    assert rows.backwards("2026-01-01T00:00:00+00:00", "2026-01-01T00:05:01+00:00")
    assert not rows.backwards("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00+00:00")


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"[" * 5000,
        b"9" * 5000,
        b'{"seq":1,"prev":"","hash":"' + b"0" * 64 + b'","x":NaN}',
        b'{"seq":1,"prev":"","hash":"x","who":"\\ud800"}',
        b'{"seq":1,"seq":1}',
        b"null",
    ],
)
def test_a_line_that_is_no_link(home: Path, monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    class Place:
        where = "here"

        def lines(self, _: str) -> list[bytes]:
            return [line]

    monkeypatch.setattr(journal, "opened", Place)
    with pytest.raises(RegistryError, match="here: tiny, entry 1: ") as caught:
        registry.history("tiny")
    assert len(str(caught.value)) < 400


@pytest.mark.slow
def test_of_many_forged_ledgers_none_is_believed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz_ledger.project(tmp_path / "own" / "project")
    monkeypatch.setenv("VQBET_PROJECT", str(tmp_path / "own" / "project"))
    tally = fuzz_ledger.fuzz(tmp_path / "own" / "project", 40)
    assert tally.clean, [*tally.tracebacks, *tally.believed]
    assert tally.mutants == 40
    assert tally.refused > 10
    assert tally.noticed > 5
