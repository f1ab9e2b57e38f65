"""`vqbet simrobot --desk`: the simulated robot plays trials of a desk at a server of blind trials, and records them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.support.fake_desk import TOKEN, FakeDesk, job
from tests.support.point import POINT, PointMass
from tests.support.serving import Running
from tests.support.trial_server import DESK_TOKEN, GOOD, PLAN, POOR, ROBOT, server_key, trial_server
from vqbet.__main__ import app
from vqbet.commands import simrobot
from vqbet.commands.simrobot import Practice
from vqbet.contract import ServingError
from vqbet.serving import recordings
from vqbet.serving.trial_line import TrialLine
from vqbet.signing.statements import commitment
from vqbet.stages import worlds
from vqbet.stages.progress import Watch

SECRET = "0f" * 32


class OrderingDesk(FakeDesk):
    """A desk that orders each trial at the policy server before the robot hears of it. arms: digest by code."""

    line: TrialLine
    arms: dict[str, str]

    def next(self, said: dict[str, Any], body: bytes) -> dict[str, Any]:
        job = super().next(said, body)
        if job["do"] == "run":
            code = job["trial"]
            order = {"plan": PLAN, "trial": code, "robot": ROBOT, "nonce": "n", "key": SECRET}
            self.line.arm(digest=self.arms[code], **order)
        return job


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the world of every task be the point of the tests."""
    monkeypatch.setattr(worlds, "make", lambda world, demos=None: PointMass())
    monkeypatch.setenv(simrobot.DESK_TOKEN, TOKEN)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with trial_server(PLAN, key=server_key(tmp_path)) as found:
        yield found


def desk_of(server: Running, arms: dict[str, str], jobs: list[dict[str, Any]], **more: Any) -> OrderingDesk:
    desk = OrderingDesk(server.url, robot=ROBOT, plan=PLAN, jobs=jobs, **more)
    desk.line, desk.arms = TrialLine(server.url, DESK_TOKEN), arms
    return desk


def practised(tmp_path: Path, url: str, said: list[str] | None = None, **more: Any) -> dict[str, str]:
    asked = Practice(server="", episodes=1, name=ROBOT, record=tmp_path / "recordings", desk=url, **more)
    return simrobot.run(tmp_path, "point", asked, Watch(say=(said if said is not None else []).append))


@pytest.mark.usefixtures("point")
def test_both_arms_of_a_pair_meet_the_same_world(server: Running, tmp_path: Path) -> None:
    arms = {"A1": POOR, "B2": GOOD}
    desk = desk_of(server, arms, [job("A1", 1005), job("B2", 1005)])
    with desk.serving() as url:
        rows = practised(tmp_path, url)
    assert rows["policy"] == f"trials {PLAN[:12]}, digest {PLAN[:12]}", "nobody hears which policy played"
    one, two = (recordings.read(tmp_path / "recordings", number) for number in (1, 2))
    assert np.array_equal(one.array("observation")[0], two.array("observation")[0])
    for recording, code in ((one, "A1"), (two, "B2")):
        facts = recording.facts
        assert facts.digest == commitment(SECRET, arms[code])
        assert (facts.session, facts.robot, facts.operator, facts.seed) == (f"trial {code}", ROBOT, "ada", 1005)
        assert facts.reference == f"trials {PLAN[:12]}"
    assert abs(two.array("action")).max() > abs(one.array("action")).max(), "the policies are those of the orders"
    first, second = desk.all_said("/robot/ended")
    assert first["recording"] == {"number": 1, "digest": one.digest}
    assert (first["steps"], first["by"]) == (one.steps, "robot")
    assert first["duration_s"] == pytest.approx(one.steps / POINT.control_hz)
    assert second["seen"] == {"score": pytest.approx(1, abs=0.06), "success": True}
    assert desk.all_said("/robot/hello") == [{"robot": ROBOT, "simulated": True}]


@pytest.mark.usefixtures("point")
def test_a_recording_tells_no_arm(server: Running, tmp_path: Path) -> None:
    desk = desk_of(server, {"A1": POOR, "B2": GOOD}, [job("A1", 1), job("B2", 2)])
    with desk.serving() as url:
        practised(tmp_path, url)
    names = [{path.name for path in folder.rglob("*")} for folder in sorted((tmp_path / "recordings").glob("0*"))]
    assert names[0] == names[1]
    for facts in (tmp_path / "recordings").rglob("episode.json"):
        assert GOOD not in facts.read_text()
        assert POOR not in facts.read_text()


@pytest.mark.usefixtures("point")
def test_a_camera_is_recorded_and_shown(server: Running, tmp_path: Path) -> None:
    desk = desk_of(server, {"A1": GOOD}, [job("A1", 1)])
    with desk.serving() as url:
        practised(tmp_path, url, camera=True, realtime=True)
    (folder,) = (tmp_path / "recordings").glob("0*")
    pictures = recordings.read(tmp_path / "recordings", int(folder.name)).array("camera/scene")
    assert pictures.shape[1:] == (24, 32, 3)
    assert (pictures == (200, 0, 0)).all(axis=-1).any(axis=(1, 2)).all(), "the point is in every picture"
    assert desk.pictures
    assert {(width, height, len(body)) for width, height, body in desk.pictures} == {(32, 24, 32 * 24 * 3)}


@pytest.mark.usefixtures("point")
def test_time_that_is_up_in_simulated_time(server: Running, tmp_path: Path) -> None:
    desk = desk_of(server, {"A1": POOR}, [job("A1", 1, timeout_s=0.55)])
    with desk.serving() as url:
        practised(tmp_path, url)
    (report,) = desk.all_said("/robot/ended")
    assert (report["by"], report["steps"]) == ("timeout", 5)


@pytest.mark.usefixtures("point")
def test_a_stop_of_the_operator(server: Running, tmp_path: Path) -> None:
    desk = desk_of(server, {"A1": POOR}, [job("A1", 1)], stop_after_s=0.3)
    with desk.serving() as url:
        practised(tmp_path, url, realtime=True)
    (report,) = desk.all_said("/robot/ended")
    assert report["by"] == "operator"
    assert 2 <= report["steps"] < PointMass.max_steps
    assert report["recording"] is not None


@pytest.mark.usefixtures("point")
def test_a_stop_of_the_guard(server: Running, tmp_path: Path) -> None:
    desk = desk_of(server, {"A1": GOOD}, [job("A1", 1)])
    with desk.serving() as url:
        practised(tmp_path, url, faults=("latency=2",))
    (report,) = desk.all_said("/robot/ended")
    assert (report["by"], report["seen"]["success"]) == ("guard", False)
    assert report["holds"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("point")
def test_a_trial_that_the_server_does_not_know_is_tried_again(server: Running, tmp_path: Path) -> None:
    """As after a restart of the server, until the desk has ordered it there."""
    desk = desk_of(server, {"A1": GOOD}, [job("A1", 1)])
    order, said = desk.line.arm, list[str]()
    calls: list[str] = []

    class Late:
        def arm(self, **fields: str) -> Any:
            calls.append(fields["trial"])
            return order(**fields) if len(calls) > 1 else None

    desk.line = Late()  # type: ignore[assignment]
    with desk.serving() as url:
        practised(tmp_path, url, said)
    assert len(calls) == 2
    assert len(said) == 1
    assert "trial 'A1': was not ordered by the desk" in said[0]
    assert [one["trial"] for one in desk.all_said("/robot/ended")] == ["A1"]
    assert [path.name for path in sorted((tmp_path / "recordings").iterdir())] == ["00001"]


@pytest.mark.slow
@pytest.mark.usefixtures("point")
def test_a_robot_that_may_not_begin_keeps_no_recording(server: Running, tmp_path: Path) -> None:
    desk = desk_of(server, {"A1": GOOD}, [job("A1", 1)], refuse={"/robot/began": "trial A1 is invalid"})

    def over(said: dict[str, Any], body: bytes) -> dict[str, Any]:
        return {"do": "over"} if desk.all_said("/robot/began") else OrderingDesk.next(desk, said, body)

    desk.next = over  # type: ignore[method-assign]
    said: list[str] = []
    with desk.serving() as url:
        practised(tmp_path, url, said)
    assert "HTTP 409: trial A1 is invalid" in said[0]
    assert list((tmp_path / "recordings").iterdir()) == []
    assert desk.all_said("/robot/ended") == []


@pytest.mark.slow
@pytest.mark.usefixtures("point")
def test_a_server_that_starts_later_and_is_killed_between_trials(tmp_path: Path) -> None:
    """The robot waits for it, and the desk orders the next trial at the new one."""
    key = server_key(tmp_path)
    with trial_server(PLAN, key=key) as first:
        port = first.port
    desk = FakeDesk(f"ws://127.0.0.1:{port}", robot=ROBOT, plan=PLAN, jobs=[job("A1", 1), job("B2", 2, later=40)])
    order = {"plan": PLAN, "robot": ROBOT, "nonce": "n", "key": SECRET, "digest": GOOD}

    def servers() -> None:
        time.sleep(0.7)
        for code in ("A1", "B2"):
            with trial_server(PLAN, key=key, port=port) as server, TrialLine(server.url, DESK_TOKEN) as line:
                line.arm(trial=code, **order)
                until = time.monotonic() + 20
                while not any(one["trial"] == code for one in desk.all_said("/robot/ended")):
                    assert time.monotonic() < until
                    time.sleep(0.02)

    thread = threading.Thread(target=servers)
    thread.start()
    with desk.serving() as url:
        rows = practised(tmp_path, url, wait_s=10.0)
    thread.join()
    assert rows["success"] == "2 of 2"


def test_a_trial_needs_a_recording(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="a trial without a recording cannot count; expected --record"):
        simrobot.run(tmp_path, "blockpush", Practice(server="", episodes=1, desk="http://127.0.0.1:1"), Watch())


@pytest.mark.usefixtures("point")
def test_from_the_command_line_at_a_desk(server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text("tasks: []\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    desk = desk_of(server, {"A1": GOOD}, [job("A1", 1)])
    with desk.serving() as url:
        words = ["simrobot", "point", "--desk", url, "--record", "recordings", "--name", ROBOT, "--camera"]
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "1 of 1" in done.output
