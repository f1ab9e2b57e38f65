"""A robot's computer at a desk: it plays what is ordered, says what became of it, and survives a desk that restarts."""

from __future__ import annotations

import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.fake_desk import TOKEN, FakeDesk, job
from tests.support.homing import POLICY
from vqbet.contract import ServingError
from vqbet.serving import recordings, station
from vqbet.serving.recorder import Recorder
from vqbet.serving.station import Station

PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def at(url: str, **options: Any) -> Station:
    return Station(url, **({"robot": "arm-3", "token": TOKEN, "patience_s": 5.0} | options))


def recorded(folder: Path) -> Path:
    recorder = Recorder(folder, POLICY.handshake)
    recorder.start(seed=1)
    zero = np.zeros(2, np.float32)
    recorder.step(observation={"state": zero}, asked=zero, sent=zero, time_s=0.0)
    return recorder.finish(success=None)


def test_trials_one_after_the_other(tmp_path: Path) -> None:
    desk = FakeDesk("ws://server:8000", jobs=[job("A1", 5, later=2), job("B2", 6, timeout_s=9.5)])
    folder = recorded(tmp_path)
    with desk.serving() as url:
        robot = at(url)
        assert (robot.plan, robot.server) == (desk.plan, "ws://server:8000")
        seen = []
        for trial in robot.trials():
            assert not trial.running, "it has not begun"
            seen.append((trial.code, trial.seed, trial.timeout_s, trial.operator, trial.session))
            trial.began()
            assert trial.running
            trial.ended(steps=3, holds=1, interventions=2, recording=folder, seen=(0.5, False))
            assert not trial.running
    assert seen == [("A1", 5, 60.0, "ada", "trial A1"), ("B2", 6, 9.5, "ada", "trial B2")]
    assert desk.all_said("/robot/hello") == [{"robot": "arm-3", "simulated": False}]
    assert [one["trial"] for one in desk.all_said("/robot/began")] == ["A1", "B2"]
    report = desk.all_said("/robot/ended")[0]
    assert 0 < report.pop("duration_s") < 5
    assert report == {
        "trial": "A1", "by": "robot", "steps": 3, "holds": 1, "interventions": 2,
        "recording": {"number": 1, "digest": recordings.digest(tmp_path, 1)}, "seen": {"score": 0.5, "success": False},
    }  # fmt: skip
    assert recordings.read(tmp_path, 1).digest == report["recording"]["digest"]


def test_the_operator_stops_a_trial_and_the_loop_never_waits() -> None:
    desk = FakeDesk("ws://a", jobs=[job("A1", 5)], stop_after_s=0.3, slow_s=0.4)
    with desk.serving() as url:
        for trial in at(url).trials():
            trial.began()
            longest, began = 0.0, time.monotonic()
            while trial.running:
                asked = time.perf_counter()
                assert trial.running in (True, False)
                longest = max(longest, time.perf_counter() - asked)
                time.sleep(0.01)
                assert time.monotonic() - began < 5
            trial.ended(steps=10)
    assert desk.all_said("/robot/ended")[0]["by"] == "operator"
    assert longest < 0.3, "no control loop waits for the desk"
    assert time.monotonic() - began > 0.25


def test_a_trial_ends_when_its_time_is_up_also_without_the_desk() -> None:
    desk = FakeDesk("ws://a", jobs=[job("A1", 5, timeout_s=0.2)])
    with desk.serving() as url:
        for trial in at(url).trials():
            trial.began()
            desk.broken["/robot/running"] = 1000
            while trial.running:
                time.sleep(0.01)
            trial.ended(steps=10)
    assert desk.all_said("/robot/ended")[0]["by"] == "timeout"


def test_a_stop_is_of_its_own_trial_only() -> None:
    desk = FakeDesk("ws://a", jobs=[job("A1", 5), job("B2", 6)], stop_after_s=0.0)
    with desk.serving() as url:
        for trial in at(url).trials():
            if trial.code == "B2":
                desk.stop_after_s = None
            trial.began()
            assert trial.running
            until = time.monotonic() + 0.4
            while trial.running and time.monotonic() < until:
                time.sleep(0.01)
            trial.ended()
    assert [one["by"] for one in desk.all_said("/robot/ended")] == ["operator", "robot"]


def test_a_desk_that_is_restarted_in_a_trial_hears_its_end() -> None:
    desk = FakeDesk("ws://a", jobs=[job("A1", 5), job("B2", 6)])
    with desk.serving() as url:
        port = int(url.rpartition(":")[2])
        trials = at(url).trials()
        trial = next(trials)
        trial.began()
    back = threading.Event()

    def restart() -> None:
        time.sleep(0.5)
        with desk.serving(port):
            back.wait(20)

    thread = threading.Thread(target=restart)
    thread.start()
    assert trial.running, "a desk that is gone stops nothing"
    trial.ended(steps=4)
    following = next(trials)
    assert following.code == "B2"
    trials.close()
    back.set()
    thread.join()
    assert [one["trial"] for one in desk.all_said("/robot/ended")] == ["A1"]
    assert len(desk.all_said("/robot/hello")) == 2, "a desk that comes back hears who is there"


def test_a_report_whose_answer_is_lost_is_repeated() -> None:
    desk = FakeDesk("ws://a", jobs=[job("A1", 5)], broken={"/robot/ended": 2, "/robot/next": 1, "/robot/began": 1})
    with desk.serving() as url:
        for trial in at(url).trials():
            trial.began()
            trial.ended(steps=4)
    assert [one["steps"] for one in desk.all_said("/robot/ended")] == [4, 4, 4]


def test_a_trial_that_was_left_is_reported() -> None:
    desk = FakeDesk("ws://a", jobs=[job("A1", 5)])
    with desk.serving() as url:
        for trial in at(url).trials():
            trial.began()
    (report,) = desk.all_said("/robot/ended")
    assert (report["by"], report["steps"], report["recording"]) == ("robot", 0, None)


@pytest.mark.slow
def test_a_trial_that_cannot_begin_is_ordered_again_after_a_while() -> None:
    desk = FakeDesk("ws://a", jobs=[job("A1", 5)])
    with desk.serving() as url:
        tries: list[float] = []
        for trial in at(url).trials():
            tries.append(time.monotonic())
            if len(tries) == 2:
                trial.began()
                trial.ended()
    assert tries[1] - tries[0] > 1


def test_pictures() -> None:
    """During a trial those that are shown, at most five per second; between trials those of the camera."""
    desk = FakeDesk("ws://a", jobs=[job("A1", 5), job("B2", 6, later=12)])
    with desk.serving() as url:
        robot = at(url)
        robot.look_through(lambda: PICTURE[:2])
        for trial in robot.trials():
            trial.began()
            before = len(desk.pictures)
            for _ in range(50):
                trial.show(PICTURE)
                time.sleep(0.01)
            time.sleep(0.15)
            assert 1 <= len(desk.pictures) - before <= 4
            trial.ended()
    assert {(width, height, body) for width, height, body in desk.pictures} == {
        (6, 4, PICTURE.tobytes()),
        (6, 2, PICTURE[:2].tobytes()),
    }


def test_a_camera_that_fails_stops_no_trial() -> None:
    calls: list[int] = []

    def camera() -> np.ndarray:
        calls.append(1)
        raise OSError("unplugged")

    desk = FakeDesk("ws://a", jobs=[job("A1", 5, later=6)])
    with desk.serving() as url:
        robot = at(url)
        robot.look_through(camera)
        for trial in robot.trials():
            trial.began()
            trial.ended()
    assert len(calls) == 1
    assert not desk.pictures


@pytest.mark.parametrize(
    ("options", "refuse", "sentence"),
    [
        ({"token": "x"}, {}, "refused with HTTP 401: expected the robot's token"),
        ({}, {"/robot/hello": "this session is of robot arm-3"}, "HTTP 409: this session is of robot arm-3"),
        ({"token": ""}, {}, "set VQBET_ROBOT_TOKEN, as the desk has it"),
    ],
)
def test_a_desk_that_refuses(options: dict[str, Any], refuse: dict[str, str], sentence: str) -> None:
    desk = FakeDesk("ws://a", refuse=refuse)
    with desk.serving() as url, pytest.raises(ServingError, match=sentence):
        at(url, **options)


@pytest.mark.parametrize("url", ["desk:8090", "ws://desk", "http://", "http://desk/page", "http://a:b"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ServingError, match="expected an address such as http://desk:8090"):
        at(url)


def test_a_desk_that_stays_away() -> None:
    with pytest.raises(ServingError, match=r"desk http://127.0.0.1:1: .*refused; see whether `vqbet trials run` runs"):
        at("http://127.0.0.1:1", patience_s=0.2)


def test_a_desk_that_fails_for_too_long() -> None:
    desk = FakeDesk("ws://a", broken={"/robot/hello": 1000})
    with desk.serving() as url, pytest.raises(ServingError, match="HTTP 500: out of order"):
        at(url, patience_s=0.2)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"do": "dance"}, "expected wait, run or over"),
        ({}, "desk: answer to next"),
        ({"do": "run", "trial": 5}, "desk: answer to next"),
        ({"do": "run", **job("x" * 300, 1), "server": ""}, "expected text of at most 200 characters"),
        ({"do": "run", **job("A", 1), "seed": "one", "server": ""}, "desk: answer to next"),
    ],
)
def test_answers_that_make_no_sense(answer: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = FakeDesk("ws://a")
    monkeypatch.setattr(desk, "next", lambda *_: answer)
    with desk.serving() as url, pytest.raises(ServingError, match=sentence):
        list(at(url).trials())


def test_a_recording_that_is_not_there(tmp_path: Path) -> None:
    desk = FakeDesk("ws://a", jobs=[job("A1", 5)])
    with desk.serving() as url:
        for trial in at(url).trials():
            trial.began()
            with pytest.raises(ServingError, match="no finished recording is there"):
                trial.ended(recording=tmp_path / "00007")
            with pytest.raises(ServingError, match="no folder of a finished recording"):
                trial.ended(recording=tmp_path / "00007.running")
            assert trial.phase == "running", "the end can still be said"
            trial.ended()


def test_the_robots_part_imports_little() -> None:
    text = Path(station.__file__).read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
    assert imported - set(sys.stdlib_module_names) == {"numpy", "jaxtyping", "vqbet"}
