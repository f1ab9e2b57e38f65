"""What a promotion waits for, from the committed parameters, the sealed attempts and the approvals."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.shelf import proof, registered, verdict
from vqbet import config, registry
from vqbet.commands import bounds, release, waiting
from vqbet.config import TaskParams
from vqbet.contract import ConfigError, RegistryError

ROOT = Path(__file__).resolve().parents[2]
PLAYED, TRIALS, MORE = proof("played"), proof("trials"), proof("more trials")
BOTH = ["simulated", "robot"]


@dataclass
class Team:
    """A registry with one candidate, and what the team's params.yaml asks."""

    folder: Path
    home: Path
    digest: str

    def seal(self, plan: str, outcome: str = "", *, robot: bool = False, champion: str = "") -> None:
        """Seal a plan and, with an outcome, its verdict, whose evidence is `plan` too."""
        content = {"champion": champion} | ({"protocol": proof("protocol"), "machine": "arm-3"} if robot else {})
        registry.Attempts("tiny").seal_plan(self.digest, plan, content)
        if outcome:
            self.judge(plan, outcome)

    def judge(self, plan: str, outcome: str) -> None:
        registry.Attempts("tiny").seal_verdict(plan, outcome=outcome, episodes=10, evidence=plan)

    def approve(self, who: str, evidence: str, hours: float = 1.0) -> None:
        registry.approve("tiny", evidence, who=who, why="watched all films", hours=hours)

    def missing(self, candidate: int = 0) -> list[str]:
        return waiting.missing(self.folder, "tiny", candidate)


@pytest.fixture
def asked() -> TaskParams:
    return config.task(ROOT / "params.yaml", "blockpush")


@pytest.fixture
def ask(asked: TaskParams, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set what the committed params.yaml asks of a promotion."""

    def set_(evidence: list[str], approvals: int = 0, four_eyes: bool = False) -> None:
        gate = asked.gate.model_copy(update={"evidence": evidence})
        promotion = asked.promotion.model_copy(update={"approvals": approvals, "four_eyes": four_eyes})
        found = asked.model_copy(update={"gate": gate, "promotion": promotion})
        monkeypatch.setattr(bounds, "committed", lambda root, task: found)

    return set_


@pytest.fixture
def team(home: Path, tmp_path: Path) -> Team:
    [(version, digest)] = registered(tmp_path, "one")
    registry.set_candidate("tiny", version)
    return Team(tmp_path, home, digest)


def test_nothing_where_the_verdict_is_enough(team: Team, ask: Callable[..., None]) -> None:
    ask(["simulated"])
    team.seal(PLAYED, "PROMOTE")
    assert team.missing() == team.missing(1) == []


def test_trials_then_their_verdict_then_people(team: Team, ask: Callable[..., None]) -> None:
    """Each step takes one sentence away or changes it; the approval is of the robot's verdict, not of the simulated."""
    ask(BOTH, approvals=2)
    team.seal(PLAYED, "PROMOTE")
    team.approve("ann", PLAYED)
    trials, people = team.missing()
    assert trials == (
        f"robot trials: candidate {team.digest[:12]} against the floor has no plan yet: vqbet trials plan tiny, then "
        "vqbet trials run tiny, then vqbet trials judge tiny"
    )
    assert people == "the approval of 2 people, once the trials are judged: vqbet approve tiny --why '...'"
    team.seal(TRIALS, robot=True)
    trials, _ = team.missing()
    assert f"plan {proof('protocol')[:12]} of " in trials
    assert trials.endswith("has no verdict yet: vqbet trials run tiny, then vqbet trials judge tiny")
    team.judge(TRIALS, "PROMOTE")
    assert team.missing() == [
        f"the approval of 2 people for verdict {TRIALS[:12]}: vqbet approve tiny --why '...'",
    ]
    team.approve("ann", TRIALS)
    team.approve("ann", TRIALS)
    assert team.missing() == [
        f"the approval of 1 person beside ann for verdict {TRIALS[:12]}: vqbet approve tiny --why '...'",
    ]
    team.approve("bob", TRIALS)
    assert team.missing() == []


@pytest.mark.parametrize("outcome", ["REJECT", "HOLD", "NOT_COMPARABLE"])
def test_a_verdict_other_than_promote_is_not_waited_for(team: Team, ask: Callable[..., None], outcome: str) -> None:
    ask(BOTH, approvals=1)
    team.seal(PLAYED, outcome)
    assert team.missing() == []
    ask(["robot"], approvals=1)
    team.seal(TRIALS, outcome, robot=True)
    assert team.missing() == []
    team.seal(MORE, robot=True)  # a second session, which may promote
    assert len(team.missing()) == 2


def test_without_a_simulated_verdict_the_promotion_refuses_at_once(team: Team, ask: Callable[..., None]) -> None:
    ask(BOTH, approvals=1)
    team.seal(TRIALS, "PROMOTE", robot=True)
    assert team.missing() == []


def test_the_robot_alone(team: Team, ask: Callable[..., None]) -> None:
    ask(["robot"])
    assert len(team.missing()) == 1
    team.seal(PLAYED, "PROMOTE")
    assert len(team.missing()) == 1, "a simulated verdict is none on the robot"
    team.seal(TRIALS, "PROMOTE", robot=True)
    assert team.missing() == []


def test_another_champion_needs_other_trials(team: Team, ask: Callable[..., None], tmp_path: Path) -> None:
    ask(["robot"])
    team.seal(TRIALS, "PROMOTE", robot=True)
    [(version, digest)] = registered(tmp_path, "two")
    registry.promote("tiny", version, verdict=verdict(digest), evidence=MORE, who="ann", why="w")
    (trials,) = team.missing()
    assert f"candidate {team.digest[:12]} against champion {digest[:12]} has no plan yet" in trials
    assert team.missing(version) == [], "the champion waits for nothing"


def test_an_approval_that_expires_is_waited_for_again(team: Team, ask: Callable[..., None]) -> None:
    ask(["simulated"], approvals=1)
    team.seal(PLAYED, "PROMOTE")
    team.approve("ann", PLAYED, hours=1e-9)
    assert len(team.missing()) == 1


def test_the_trainer_is_not_counted(team: Team, ask: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    ask(["simulated"], approvals=1, four_eyes=True)
    monkeypatch.setattr(release, "trainers", lambda root, task, digest: {"ann"})
    team.seal(PLAYED, "PROMOTE")
    team.approve("ann", PLAYED)
    assert len(team.missing()) == 1
    team.approve("bob", PLAYED)
    assert team.missing() == []


def test_the_line_and_the_page_name_everything() -> None:
    assert waiting.told("tiny", ["a: x", "b: y"]) == "tiny: not promoted yet; it waits for a: x; and for b: y"
    page = waiting.page("tiny", ["a: x", "b: y"])
    assert page.startswith("# tiny waits\n\n- a: x\n- b: y\n\n")
    assert "vqbet flow resume" in page


def test_a_task_or_a_candidate_that_is_not_there(team: Team, ask: Callable[..., None]) -> None:
    with pytest.raises(ConfigError):
        waiting.missing(ROOT, "tiny")
    ask(["robot"])
    with pytest.raises(RegistryError, match="tiny/7"):
        team.missing(7)


@pytest.mark.slow
def test_a_run_whose_wait_has_not_changed_is_not_resumed(team: Team, ask: Callable[..., None]) -> None:
    """Prefect is not asked at all; likewise where nobody can say what is missing."""
    from prefect.client.schemas.objects import FlowRun
    from prefect.states import Suspended

    from flows import resume

    ask(["robot"])
    message = waiting.told("tiny", team.missing())
    run = FlowRun(flow_id=uuid4(), parameters={"task_name": "tiny"}, state=Suspended(message=message))
    assert resume.resumed(run) == message
    registry.Attempts("tiny").seal_plan(team.digest, TRIALS, {})
    with closing(sqlite3.connect(team.home / "ledger.db")) as database, database:
        database.execute("UPDATE vqbet_ledger SET line = replace(line, 'plan', 'none')")
    assert resume.resumed(run).startswith("still suspended, since what it waits for cannot be read: ")
