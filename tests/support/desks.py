"""A desk of robot trials on loopback, with its real policy server, for tests that play the robot or let it play.

    with manned(tmp_path) as desk:
        desk.client.change("start", trial=desk.state["trial"])
        desk.play()                     # one trial, by the test's own robot
        desk.client.change("grade", trial=..., stage="placed")

`opened` opens the desk of a folder once more, as after a crash. Recordings are those that `trial_session_made` makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import trial_session_made
from tests.support.serving import Running
from tests.support.trial_server import DESK_TOKEN, server_key, trial_server
from tests.support.trial_session_made import RUBRIC, SALT, SessionMade
from vqbet.commands.trials import web
from vqbet.commands.trials.desk import Desk, Lines
from vqbet.commands.trials.desk_client import DeskClient
from vqbet.commands.trials.desk_doors import DeskKeys
from vqbet.commands.trials.web import Door
from vqbet.evaluation.trials import trial_log
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.serving.desk_calls import DeskCalls
from vqbet.serving.trial_line import TrialLine

PAGE_TOKEN, ROBOT_TOKEN = "page-secret", "robot-secret"
OPERATOR = "ada"


@dataclass
class MannedDesk:
    """A desk, its HTTP interface, and callers. made: its folder, plan and blinding."""

    made: SessionMade
    desk: Desk
    port: int
    client: DeskClient
    robot: DeskCalls

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def page(self) -> str:
        return f"{self.url}/#{PAGE_TOKEN}"

    @property
    def state(self) -> dict[str, Any]:
        return self.client.state()

    @property
    def events(self) -> list[Any]:
        return trial_log.read(self.made.log)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def start(self) -> str:
        """Start the next trial as the page does, and return its code."""
        return str(self.client.change("start", trial=self.state["trial"])["trial"])

    def begin(self) -> str:
        """Start a trial, and let the robot begin; return its code."""
        code = self.start()
        job = self.robot.asked("GET", "/robot/next?wait=5")
        assert job["trial"] == code, job
        self.robot.asked("POST", "/robot/began", {"trial": code})
        return code

    def end(self, code: str, *, by: str = "robot", **more: Any) -> dict[str, Any]:
        """Let the robot say that a trial has ended, with a recording; return what it has said."""
        trial = self.desk._session.progress.trials[code]
        said = {"trial": code, "by": by, **trial_session_made.record(self.made, trial, camera=False), **more}
        self.robot.asked("POST", "/robot/ended", said)
        return said

    def play(self, stage: str = RUBRIC[-1].name) -> str:
        """Run and grade one trial; return its code."""
        code = self.begin()
        self.end(code)
        self.client.change("grade", trial=code, stage=stage)
        return code

    def show(self, value: int) -> None:
        """Let the robot's camera show a grey picture."""
        self.robot.asked("POST", "/robot/picture?width=32&height=24", np.full((24, 32, 3), value, np.uint8))


def folder_of(root: Path, **plan: Any) -> SessionMade:
    """Return a folder with a plan that was never run, with pictures; its server's key is in `root`."""
    folder = root / "session"
    conditions = trial_session_made._conditions(_made(folder / "pictures"), trial_session_made.judged().most)
    locked, blinding = trial_session_made.by_hand(
        server_key(root).public, **{"conditions": conditions, "timeout_s": 60.0, **plan}
    )
    TrialFolder(folder).keep(locked, SALT)
    stages = trial_session_made._stages(locked, trial_session_made.CHANCES)
    return SessionMade(folder, locked, blinding, server_key(root), stages)


def short(pairs: int = 5) -> dict[str, Any]:
    """Return the fields of a plan that is complete after `pairs` pairs."""
    return {"judged": trial_session_made.judged(looks=(pairs,)), "block": min(pairs, 5)}


@contextmanager
def opened(
    made: SessionMade, server: Running | str, *, operator: str = OPERATOR, port: int = 0
) -> Iterator[MannedDesk]:
    """Open the desk of a folder, at a policy server."""
    url = server if isinstance(server, str) else server.url
    lines = Lines(url, TrialLine(url, DESK_TOKEN, timeout_s=2.0), TrialLine(url, DESK_TOKEN, timeout_s=2.0))
    with Desk(TrialFolder(made.folder), lines, operator=operator, user="lab") as desk:
        keys = DeskKeys(PAGE_TOKEN, ROBOT_TOKEN, made.plan.sha256)
        with web.listening(web.app(desk, keys, host="127.0.0.1"), Door(port=port)) as at:
            robot = DeskCalls(f"http://127.0.0.1:{at}", ROBOT_TOKEN, None, 5.0)
            robot.asked("POST", "/robot/hello", {"robot": made.plan.robot, "simulated": True})
            yield MannedDesk(made, desk, at, DeskClient(at, PAGE_TOKEN), robot)


@contextmanager
def served(made: SessionMade, *, port: int = 0) -> Iterator[Running]:
    """Serve the policies of a folder's plan."""
    plan = made.plan
    with trial_server(plan.sha256, plan.arms.values(), robot=plan.robot, key=made.key, port=port) as server:
        yield server


@contextmanager
def manned(root: Path, **plan: Any) -> Iterator[MannedDesk]:
    """A policy server, and a desk of a new folder."""
    made = folder_of(root, **plan)
    with served(made) as server, opened(made, server) as desk:
        yield desk


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
