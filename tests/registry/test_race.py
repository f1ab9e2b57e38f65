"""Processes that promote at once, some of them killed: one champion, one entry for each effect. `bench.race`, short."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from bench import race
from tests.support.postgres import postgres
from vqbet import registry
from vqbet.registry import connection, journal, promotion

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "LATEST_S", 240.0)  # the machine may have other work


@pytest.mark.usefixtures("home", "patient")
def test_of_processes_on_one_machine_one_wins() -> None:
    tally = race.race(3, processes=4, kills=1)
    assert tally.clean, vars(tally)
    assert (tally.rounds, tally.promoted, tally.killed) == (3, 3, 3)
    assert 0 < tally.slowest_s < race.LATEST_S


@pytest.mark.usefixtures("patient")
def test_of_machines_that_share_a_ledger_one_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a lock; Postgres decides who was first."""
    with postgres() as address:
        monkeypatch.setenv(journal.VARIABLE, address)
        tally = race.race(3, processes=4, kills=1, machines=True)
    assert tally.clean, vars(tally)
    assert tally.promoted == 3


@pytest.mark.usefixtures("home")
def test_who_does_not_end_in_time_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: somebody holds the lock that all others wait for."""
    monkeypatch.setattr(race, "LATEST_S", 0.5)
    (version, digest), *_ = race.registered(2)
    rivals, tally = race.Rivals(2, machines=False), race.Tally()
    try:
        with connection.locked(race.TASK):
            race.one_round(rivals, [(version, digest)] * 2, "", 0, 0, random.Random(0), tally)
    finally:
        rivals.end()
    assert len(tally.late) == 2
    assert not tally.clean
    assert registry.history(race.TASK) == []


def test_the_judge_sees_what_must_not_happen(home: Path) -> None:
    """The planted faults: an entry that is gone, one too many, an alias elsewhere, nobody though all live."""
    versions = race.registered(3)
    verdict: dict[str, Any] = {"outcome": "PROMOTE", "candidate": versions[0][1], "champion": ""}
    made = registry.promote(race.TASK, versions[0][0], verdict=verdict, evidence="e" * 64, who="ann", why="w")

    def judged(before: int, answers: list[tuple[str, str]]) -> race.Tally:
        tally = race.Tally()
        race.judged(tally, 0, before, answers)
        return tally

    assert judged(0, [("promoted", made.hash), ("refused", "late")]).clean
    assert judged(0, [("promoted", "0" * 64)]).lost
    assert judged(0, [("promoted", made.hash), ("promoted", made.hash)]).doubled
    assert judged(1, [("refused", "late")]).idle
    with pytest.MonkeyPatch.context() as patch:
        connection.client().set_registered_model_alias(race.TASK, "champion", str(versions[1][0]))
        patch.setattr(registry, "repair", lambda _task: None)
        assert judged(0, [("promoted", made.hash)]).astray
    assert promotion.repair(race.TASK) is not None
