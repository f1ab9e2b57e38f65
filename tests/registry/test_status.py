"""`vqbet status`: champion and why, what waits, what robots proved, what cannot be read; and its page."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.runs import unfinished
from tests.registry.test_waited_for import PLAYED, TRIALS, Team, ask, asked, team
from tests.support.postgres import free_port
from tests.support.shelf import registered, verdict
from vqbet import config, registry
from vqbet.commands import status
from vqbet.registry import journal

__all__ = ["ask", "asked", "team"]  # fixtures


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(config, "sections", lambda path: ["tiny", "other"])


def rows(team: Team, task: str = "") -> dict[str, str]:
    return status.run(team.folder, task, unfinished).rows()


def test_a_task_without_anything_is_left_out_unless_it_is_asked_for(team: Team) -> None:
    assert rows(team).keys() == {"registry", "runs"}
    assert rows(team, "tiny")["tiny"] == "no champion"
    assert rows(team)["runs"] == "no team's Prefect server here (PREFECT_API_URL is not set)"


def test_from_a_verdict_to_a_champion_and_its_robot(team: Team, ask) -> None:
    ask(["simulated"], approvals=1)
    team.seal(PLAYED, "PROMOTE")
    found = rows(team)
    assert found["tiny"] == "no champion"
    assert found["tiny verdict"].startswith(f"PROMOTE for {team.digest[:12]}, ")
    assert found["tiny waits"].startswith("the approval of 1 person")
    registry.promote("tiny", 1, verdict=verdict(team.digest), evidence=PLAYED, who="ann", why="better in 200 episodes")
    team.seal(TRIALS, "PROMOTE", robot=True)
    found = rows(team)
    assert found["tiny"].startswith(f"version 1, {team.digest[:12]}, since ")
    assert found["tiny"].endswith("by ann (promote): better in 200 episodes")
    assert "tiny waits" not in found
    assert found["tiny robot arm-3"].startswith(f"{team.digest[:12]}, ")
    assert found["tiny robot arm-3"].endswith("trials: PROMOTE")
    assert found["tiny costs"].startswith(
        "0.00 GPU hours, 10 simulated episodes, 0 trials in 0.0 robot minutes, 0.0 MiB"
    )


def test_the_bytes_of_a_version_are_those_of_its_files(team: Team) -> None:
    files = [path.stat().st_size for path in (team.folder / "one").iterdir()]
    assert registry.size(registry.resolve("tiny/1")) >= sum(files) > 0


def test_a_forced_champion_is_told_as_such(team: Team) -> None:
    registry.force("tiny", 1, who="bob", why="no simulator")
    assert "by bob (FORCED WITHOUT A VERDICT): no simulator" in rows(team)["tiny"]


def test_a_broken_ledger_hides_no_other_task(team: Team, tmp_path: Path) -> None:
    registered(tmp_path, "two", name="other")
    registry.force("other", 1, who="bob", why="a test")
    registry.force("tiny", 1, who="bob", why="a test")
    book = journal.opened()
    assert book.add("tiny", len(book.lines("tiny")) + 1, b"{}")
    found = rows(team)
    assert found["other"].startswith("version 1, ")
    assert "tiny" in found["tiny WRONG"]
    assert "Traceback" not in found["tiny WRONG"]


def test_a_server_that_does_not_answer_is_a_sentence(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", address)
    with temporary_settings({PREFECT_API_URL: address, PREFECT_CLIENT_MAX_RETRIES: 0}):  # read once in a process
        assert "does not answer: " in rows(team)["runs"]


def test_the_page_holds_what_the_terminal_shows_and_loads_nothing(team: Team, ask) -> None:
    ask(["simulated"], approvals=1)
    team.seal(PLAYED, "PROMOTE")
    registry.force("tiny", 1, who="bob <b>", why="a test")
    drift = team.folder / "artifacts" / "tiny" / "drift"
    drift.mkdir(parents=True)
    (drift / "drift.json").write_text('{"conclusion": "shoulder moved", "exceeded": [1]}')
    (drift / "index.html").write_text("")
    text = status.write(team.folder, status.run(team.folder, "", unfinished)).read_text()
    assert "by bob &lt;b&gt; (FORCED WITHOUT A VERDICT): a test" in text
    assert "shoulder moved" in text
    assert 'href="../../artifacts/tiny/drift/index.html"' in text
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text
