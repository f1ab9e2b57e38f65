"""A session by single keys, in a pseudo-terminal; the test plays the robot."""

from __future__ import annotations

import os
import pty
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.desks import MannedDesk, manned
from tests.support.trial_session_made import INVALID, RUBRIC, TAGS
from tests.support.waiting import until
from vqbet.commands.trials import desk as desk_module
from vqbet.commands.trials import terminal
from vqbet.commands.trials.desk_client import DeskClient
from vqbet.commands.trials.terminal import Keyboard
from vqbet.contract import GateError


class Typist:
    """Somebody at the terminal's other end. said: everything that was shown."""

    def __init__(self, desk: MannedDesk) -> None:
        self.desk, self.said = desk, list[str]()
        self._ours, theirs = pty.openpty()
        self._theirs = theirs
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        until(lambda: self.said, 20)  # what is typed before is not read

    def press(self, keys: str, kind: str = "") -> None:
        """Press keys; wait until the last event of the log is of this kind."""
        os.write(self._ours, keys.encode())
        if kind:
            until(lambda: self.desk.kinds[-1] == kind, 20)
            time.sleep(3 * terminal.LOOK_S)

    def shows(self, words: str) -> None:
        until(lambda: words in "\n".join(self.said), 20)

    def _run(self) -> None:
        with Keyboard(self._theirs) as keys:
            terminal.run(DeskClient(self.desk.port, "page-secret"), keys, self.said.append)


@pytest.fixture
def typist(tmp_path: Path) -> Iterator[Typist]:
    with manned(tmp_path) as desk:
        yield Typist(desk)


@contextmanager
def begun(typist: Typist) -> Iterator[str]:
    typist.press(" ", "armed")
    code = typist.desk.robot.asked("GET", "/robot/next?wait=5")["trial"]
    typist.desk.robot.asked("POST", "/robot/began", {"trial": code})
    typist.shows(f"trial {code}: [space] stop")
    yield code
    typist.desk.end(code)
    typist.shows(f"trial {code}: ended by")
    time.sleep(3 * terminal.LOOK_S)


@pytest.mark.slow
def test_a_session_by_keys(typist: Typist) -> None:
    desk = typist.desk
    with begun(typist) as code:
        typist.press(" ")
        until(lambda: not desk.robot.asked("GET", f"/robot/running?trial={code}")["running"], 20)
    typist.press("t2rtoo far left\x7f\n")
    typist.shows("remark: too far lef")
    typist.press("1", "graded")
    said = desk.events[-1]
    assert (said["stage"], said["tag"], said["remark"]) == (RUBRIC[0].name, TAGS[1], "too far lef")
    typist.press("u", "undone")
    typist.press("4", "graded")
    said = desk.events[-1]
    assert (said["stage"], said["tag"], said["remark"]) == (RUBRIC[3].name, "", "")
    with begun(typist):
        pass
    typist.press("i9")
    typist.press("i2", "invalid")
    assert desk.events[-1]["reason"] == INVALID[1]
    typist.press("p", "paused")
    typist.press(" ", "resumed")
    typist.press("eno\n")
    typist.press("eyes\n", "closed")
    typist.shows("the session is closed: ended by the operator")
    typist.thread.join(20)
    assert not typist.thread.is_alive()


@pytest.mark.slow
def test_a_robot_that_is_lost(typist: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    with begun(typist):
        monkeypatch.setattr(desk_module, "PRESENT_S", 0.1)
        typist.shows("[space] the robot is lost")
        typist.press(" ", "stopped")
        typist.shows("this trial cannot count: [i] invalid")
        typist.press("3")
        typist.press("i3", "invalid")
        typist.press("eyes\n", "closed")
    ended = [event for event in typist.desk.events if event.kind in ("stopped", "graded", "invalid")]
    assert [event.kind for event in ended] == ["stopped", "invalid"]
    assert ended[0]["by"] == "lost"


def test_without_a_terminal() -> None:
    reading, writing = os.pipe()
    with pytest.raises(GateError, match="expected a terminal to read keys from; use the page"):
        Keyboard(reading)
    os.close(reading)
    os.close(writing)
