"""The operator that is a script: stages by simulated scores, and what it does when something is missing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.support.desks import MannedDesk, manned, short
from tests.support.trial_session_made import INVALID, RUBRIC, TAGS
from tests.support.waiting import until
from vqbet.commands.trials import desk as desk_module
from vqbet.commands.trials import script
from vqbet.contract import GateError


@pytest.mark.parametrize(
    ("score", "success", "stage"),
    [
        (0.0, False, "nothing"),
        (0.24, False, "nothing"),
        (0.25, False, "touched"),
        (0.99, False, "lifted"),
        (1.0, False, "lifted"),
        (0.95, True, "placed"),
    ],
)
def test_the_furthest_stage(score: float, success: bool, stage: str) -> None:
    assert script.stage(RUBRIC, score, success) == stage


def play(desk: MannedDesk) -> None:
    """Play trials as a robot whose third one is cut off, until the session is closed."""
    number = 0
    while (job := desk.robot.asked("GET", "/robot/next?wait=20"))["do"] != "over":
        if job["do"] != "run":
            continue
        number += 1
        desk.robot.asked("POST", "/robot/began", {"trial": job["trial"]})
        if number == 3:
            continue
        score = (number % 3) / 2
        desk.end(job["trial"], seen={"score": score, "success": score == 1})


def test_a_session_by_a_script(tmp_path: Path) -> None:
    with manned(tmp_path, **short(2)) as desk:
        robot = threading.Thread(target=play, args=(desk,))
        robot.start()
        done = list[tuple[int, int]]()
        why = script.run(desk.made.plan, desk.client, lambda *said: done.append(said))
        robot.join()
        assert why == "complete"
        assert done[-1] == (4, 4)
        graded = [event for event in desk.events if event.kind == "graded"]
        assert {event["stage"] for event in graded} == {"lifted", "placed"}
        assert {event["tag"] for event in graded} <= {"", *TAGS}
        (invalid,) = [event for event in desk.events if event.kind == "invalid"]
        assert invalid["reason"] == INVALID[-1], "the one that was cut off"


def test_nobody_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "PATIENCE_S", 0.2)
    monkeypatch.setattr(script, "WAIT_S", 0.1)
    monkeypatch.setattr(desk_module, "PRESENT_S", 0.1)
    with manned(tmp_path, timeout_s=0.1) as desk:
        until(lambda: not desk.state["server"])
        with pytest.raises(GateError, match=r"nothing has happened for 0 s; the robot is not there"):
            script.run(desk.made.plan, desk.client, lambda *_: None)
