"""The desk of a session: orders, proofs, what robot and operator do, and what goes wrong with each of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.desks import folder_of, manned, opened, served, short
from tests.support.trial_server import DESK_TOKEN
from tests.support.trial_session_made import INVALID, RUBRIC, TAGS
from tests.support.waiting import until
from vqbet.commands.trials import desk as desk_module
from vqbet.commands.trials.desk import Desk, Lines
from vqbet.commands.trials.desk_client import DeskRefusal
from vqbet.contract import GateError, ServingError
from vqbet.evaluation.trials import judging
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.serving.trial_line import Arms, SignedStatement, TrialLine

LAST = RUBRIC[-1].name


def test_a_session_ends_with_a_verdict(tmp_path: Path) -> None:
    with manned(tmp_path, **short(2)) as desk:
        codes = [desk.play() for _ in range(4)]
        assert len(set(codes)) == 4
        assert desk.state["phase"] == "ready"
        assert desk.state["trial"] == ""
        state = desk.client.change("start", trial="")
        assert (state["phase"], state["closed"]) == ("closed", "complete")
        assert desk.robot.asked("GET", "/robot/next?wait=5") == {"do": "over"}
        judged = judging.stage(desk.made.folder, tmp_path / "staged")
    assert judged.verdict.outcome in ("PROMOTE", "HOLD", "REJECT", "NOT_COMPARABLE")
    assert len(judged.records) == 4


def test_the_robot_hears_its_trial(tmp_path: Path) -> None:
    with manned(tmp_path) as desk:
        assert desk.robot.asked("GET", "/robot/next?wait=0") == {"do": "wait"}
        code = desk.start()
        job = desk.robot.asked("GET", "/robot/next?wait=5")
        pair = desk.desk._session.now.slot.pair  # type: ignore[union-attr]
        assert job == {
            "do": "run",
            "trial": code,
            "seed": 3000 + pair,
            "timeout_s": 60.0,
            "operator": "ada",
            "server": job["server"],
        }
        assert desk.robot.asked("GET", f"/robot/running?trial={code}") == {"running": False}
        desk.robot.asked("POST", "/robot/began", {"trial": code})
        assert desk.robot.asked("GET", f"/robot/running?trial={code}") == {"running": True}
        assert desk.state["phase"] == "running"
        desk.client.change("stop", trial=code)
        assert desk.state["stopping"]
        assert desk.robot.asked("GET", f"/robot/running?trial={code}") == {"running": False}
        desk.end(code, by="operator")
        assert desk.state["ended"] == {"by": "operator", "duration_s": 2.4, "counts": True}
        stopped = desk.events[-1]
        assert (stopped["by"], stopped["operator"]) == ("operator", "ada")


def test_time_that_is_up_at_the_desk(tmp_path: Path) -> None:
    with manned(tmp_path, timeout_s=0.3) as desk:
        code = desk.begin()
        assert desk.robot.asked("GET", f"/robot/running?trial={code}") == {"running": True}
        time.sleep(0.35)
        assert desk.robot.asked("GET", f"/robot/running?trial={code}") == {"running": False}
        desk.end(code, by="operator")
        stopped = desk.events[-1]
        assert (stopped["by"], stopped["operator"]) == ("timeout", ""), "nobody has tapped Stop"


# --- everything twice


def test_a_change_happens_once(tmp_path: Path) -> None:
    """Each call is repeated under its key, as after a lost answer."""
    with manned(tmp_path) as desk:
        twice: Callable[..., None] = lambda verb, **said: [  # noqa: E731
            desk.client.change(verb, key=f"{verb}-12345678", **said) for _ in range(2)
        ]
        code = desk.state["trial"]
        twice("start", trial=code)
        for _ in range(2):
            desk.robot.asked("GET", "/robot/next?wait=0")
        for _ in range(2):
            desk.robot.asked("POST", "/robot/began", {"trial": code})
        twice("stop", trial=code)
        said = desk.end(code, by="operator")
        desk.robot.asked("POST", "/robot/ended", said)
        twice("grade", trial=code, stage=RUBRIC[1].name, tag=TAGS[0])
        twice("undo", trial=code)
        desk.client.change("grade", trial=code, stage=LAST)
        twice("pause", trial="")
        twice("resume", trial="")
        desk.robot.asked("POST", "/robot/ended", said)
        assert desk.kinds == [
            *("opened", "armed", "started", "stopped", "graded", "undone", "graded", "paused", "resumed"),
        ]


def test_two_tabs_start_one_trial(tmp_path: Path) -> None:
    with manned(tmp_path) as desk:
        code, results = desk.state["trial"], list[str]()

        def tap() -> None:
            with suppress(DeskRefusal):
                results.append(desk.client.change("start", trial=code)["trial"])

        threads = [threading.Thread(target=tap) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [code] * 8
        assert desk.kinds == ["opened", "armed"]


def test_a_page_that_is_behind(tmp_path: Path) -> None:
    with manned(tmp_path) as desk:
        code = desk.play()
        with pytest.raises(DeskRefusal, match="the page is behind: another trial is next"):
            desk.client.change("start", trial=code)
        assert desk.kinds[-1] == "graded"


# --- proofs


class Forger:
    """A line whose server answers with something else than was ordered."""

    def __init__(self, line: TrialLine, forge: Callable[[SignedStatement], SignedStatement]) -> None:
        self.line, self.forge = line, forge

    def arms(self) -> Arms:
        return self.line.arms()

    def arm(self, **order: str) -> SignedStatement:
        return self.forge(self.line.arm(**order))  # type: ignore[arg-type]

    def close(self) -> None:
        self.line.close()


def changed(**fields: str) -> Callable[[SignedStatement], SignedStatement]:
    return lambda signed: replace(signed, statement=replace(signed.statement, **fields))


@pytest.mark.parametrize(
    ("forge", "sentence"),
    [
        (changed(nonce="an older one"), "the server's statement is not about this trial and its policy: nonce differs"),
        (changed(commitment="0" * 64), "commitment differs"),
        (changed(trial="ABCDEFGH"), "trial differs"),
        (changed(plan="0" * 64), "plan differs"),
        (changed(robot="arm-4"), "robot differs"),
        (changed(when="yesterday"), "is not signed by the key that the plan names"),
        (lambda signed: replace(signed, signature=""), "is not signed by the key that the plan names"),
    ],
)
def test_a_statement_that_proves_nothing(forge: Any, sentence: str, tmp_path: Path) -> None:
    made = folder_of(tmp_path)
    with served(made) as server:
        line = TrialLine(server.url, DESK_TOKEN)
        lines = Lines(server.url, Forger(line, forge), TrialLine(server.url, DESK_TOKEN))
        with Desk(TrialFolder(made.folder), lines, operator="ada", user="lab") as desk:
            with pytest.raises(GateError, match=sentence):
                desk.start("key", desk.state()["trial"])
            assert desk.state()["phase"] == "ready"
            assert [event.kind for event in desk._log.events] == ["opened"]


def test_a_statement_of_another_policy(tmp_path: Path) -> None:
    """The server swaps the arms: it signs truly what it serves, and that is not what was ordered."""
    made = folder_of(tmp_path)
    one, two = made.plan.arms.values()
    with served(made) as server:

        class Swapping(Forger):
            def arm(self, **order: str) -> SignedStatement:
                return self.line.arm(**{**order, "digest": two if order["digest"] == one else one})  # type: ignore[arg-type]

        line = Swapping(TrialLine(server.url, DESK_TOKEN), changed())
        lines = Lines(server.url, line, TrialLine(server.url, DESK_TOKEN))
        with Desk(TrialFolder(made.folder), lines, operator="ada", user="lab") as desk:
            with pytest.raises(GateError, match="commitment differs") as caught:
                desk.start("key", desk.state()["trial"])
            assert one[:8] not in str(caught.value)
            assert two[:8] not in str(caught.value)


def test_what_a_server_must_have(tmp_path: Path) -> None:
    made = folder_of(tmp_path)
    with served(made) as server, TrialLine(server.url, DESK_TOKEN) as line:
        arms = line.arms()
    assert desk_module.unfit(made.plan, arms) == ""
    assert "serves plan 000000000000" in desk_module.unfit(made.plan, replace(arms, plan="0" * 64))
    assert "signs with another key" in desk_module.unfit(made.plan, replace(arms, public_key="A" * 44))
    assert "has other policies than the plan" in desk_module.unfit(made.plan, replace(arms, digests=("0" * 64,)))


# --- what is lost


def test_a_server_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    made = folder_of(tmp_path)
    with served(made) as first:
        port = first.port
        with opened(made, first) as desk:
            desk.play()
            until(lambda: not desk.state["server"], 20)
            first.end()
            until(lambda: desk.state["server"], 20)
            with pytest.raises(DeskRefusal, match=r"policy server ws://127\.0\.0\.1"):
                desk.start()
            assert desk.kinds[-1] == "graded", "nothing was written"
            with served(made, port=port):
                until(lambda: not desk.state["server"], 20)
                desk.play()
                assert desk.state["done"] == 2


@pytest.mark.slow
def test_a_server_that_was_started_again_before_the_robot_began(tmp_path: Path) -> None:
    """The robot asks for its trial again, and the new server is ordered; the log says that it was armed twice."""
    made = folder_of(tmp_path)
    with served(made) as first:
        port = first.port
        with opened(made, first) as desk:
            code = desk.start()
            assert desk.robot.asked("GET", "/robot/next?wait=0")["trial"] == code
            assert desk.robot.asked("GET", "/robot/next?wait=0")["trial"] == code, "an answer that was lost"
            assert desk.kinds == ["opened", "armed"]
            first.end()
            with served(made, port=port):
                time.sleep(desk_module.AGAIN_S)
                assert desk.robot.asked("GET", "/robot/next?wait=0")["trial"] == code
                assert desk.kinds == ["opened", "armed", "armed"]
                desk.robot.asked("POST", "/robot/began", {"trial": code})
                desk.end(code)
                desk.client.change("grade", trial=code, stage=LAST)


def test_a_robot_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "PRESENT_S", 0.3)
    with manned(tmp_path) as desk:
        code = desk.begin()
        with pytest.raises(DeskRefusal, match="the robot is there; stop the trial"):
            desk.client.change("lost", trial=code)
        until(lambda: not desk.state["robot"]["present"], 10)
        state = desk.client.change("lost", trial=code)
        assert state["phase"] == "stopped"
        assert state["ended"] == {"by": "lost", "duration_s": 0.0, "counts": False}
        with pytest.raises(DeskRefusal, match="there is no recording of it; declare it invalid"):
            desk.client.change("grade", trial=code, stage=LAST)
        state = desk.client.change("invalid", trial=code, reason=INVALID[2], remark="the cable")
        assert state["phase"] == "ready"
        assert state["trial"] != code
        desk.end(code), "a robot that was cut off says it later, and hears no error"
        assert desk.kinds[-1] == "invalid"


def test_a_robot_that_was_started_again_in_a_trial(tmp_path: Path) -> None:
    with manned(tmp_path) as desk:
        code = desk.begin()
        desk.robot.asked("POST", "/robot/hello", {"robot": "arm-3", "simulated": False})
        assert desk.robot.asked("GET", "/robot/next?wait=0") == {"do": "wait"}
        assert desk.state["ended"]["by"] == "lost"
        desk.client.change("invalid", trial=code, reason=INVALID[2])
        assert desk.play() != code


def test_another_robot(tmp_path: Path) -> None:
    with manned(tmp_path) as desk, pytest.raises(ServingError, match="robot 'arm-4': this session is for robot arm-3"):
        desk.robot.asked("POST", "/robot/hello", {"robot": "arm-4", "simulated": False})


def test_a_desk_that_is_killed_anywhere(tmp_path: Path) -> None:
    """In each phase; the robot repeats what was not answered, and the session goes on where it was."""
    made = folder_of(tmp_path)
    with served(made) as server:
        with opened(made, server) as desk:
            code = desk.start()
        with opened(made, server) as desk:
            assert (desk.state["phase"], desk.state["trial"]) == ("armed", code)
            assert desk.robot.asked("GET", "/robot/next?wait=0")["trial"] == code
            desk.robot.asked("POST", "/robot/began", {"trial": code})
        with opened(made, server) as desk:
            assert desk.state["phase"] == "running"
            assert desk.state["elapsed_s"] < 60
            desk.robot.asked("POST", "/robot/began", {"trial": code})
            assert desk.robot.asked("GET", f"/robot/running?trial={code}") == {"running": True}
            said = desk.end(code, seen={"score": 0.25, "success": False})
        with opened(made, server) as desk:
            assert desk.state["phase"] == "stopped"
            desk.robot.asked("POST", "/robot/ended", said)
            assert desk.client.seen(code) == {"score": 0.25, "success": False}
            desk.client.change("grade", key="a-key-of-the-page", trial=code, stage=LAST)
        with opened(made, server) as desk:
            desk.client.change("grade", key="a-key-of-the-page", trial=code, stage=LAST)
            assert desk.state["last"]["trial"] == code, "it can be undone still"
            desk.client.change("pause")
        with opened(made, server) as desk:
            assert desk.state["phase"] == "paused"
        kinds = [kind for kind in desk.kinds if kind != "opened"]
    assert kinds == ["armed", "started", "stopped", "graded", "paused"]


def test_a_line_that_a_crash_cut_off(tmp_path: Path) -> None:
    made = folder_of(tmp_path)
    with served(made) as server:
        with opened(made, server) as desk:
            desk.play()
        made.log.write_bytes(made.log.read_bytes()[:-20])
        with opened(made, server) as desk:
            assert desk.state["phase"] == "stopped", "the outcome was never acknowledged"


# --- operators


def test_a_second_desk_is_refused(tmp_path: Path) -> None:
    made = folder_of(tmp_path)
    with (
        served(made) as server,
        opened(made, server),
        pytest.raises(GateError, match="there is one desk for a session"),
        opened(made, server),
    ):
        pass


def test_two_operators_are_both_named(tmp_path: Path) -> None:
    made = folder_of(tmp_path)
    with served(made) as server:
        with opened(made, server) as desk:
            desk.play()
        with opened(made, server, operator="grace") as desk:
            assert desk.state["operator"] == "grace"
            desk.play()
            assert desk.desk._session.progress.operators == ("ada", "grace")


def test_a_plan_that_was_edited(tmp_path: Path) -> None:
    made = folder_of(tmp_path)
    with served(made) as server:
        with opened(made, server) as desk:
            desk.play()
        replace(made.plan, most_invalid=0.5).write(made.folder / "plan.json")
        with pytest.raises(GateError, match=f"event 1, opened: of plan {made.plan.sha256[:12]}"), opened(made, server):
            pass


def test_invalid_undo_and_what_cannot_be_undone(tmp_path: Path) -> None:
    with manned(tmp_path) as desk:
        code = desk.start()
        desk.client.change("invalid", trial=code, reason=INVALID[0])
        assert desk.client.change("undo", trial=code)["phase"] == "armed"
        desk.robot.asked("POST", "/robot/began", {"trial": code})
        assert desk.client.change("invalid", trial=code, reason=INVALID[1])["phase"] == "ready"
        assert desk.robot.asked("GET", f"/robot/running?trial={code}") == {"running": False}, "the robot is stopped"
        assert desk.state["last"]["trial"] == ""
        with pytest.raises(DeskRefusal, match="stays invalid: the robot has moved in it"):
            desk.client.change("undo", trial=code)
        with pytest.raises(DeskRefusal, match="reason: expected one of wrong condition"):
            desk.client.change("invalid", trial=desk.begin(), reason="did not like it")


def test_the_end_by_the_operator(tmp_path: Path) -> None:
    with manned(tmp_path) as desk:
        code = desk.begin()
        with pytest.raises(DeskRefusal, match="the session is running, so nobody can end the session now"):
            desk.client.change("end")
        desk.end(code)
        desk.client.change("grade", trial=code, stage=LAST)
        state = desk.client.change("end")
        assert (state["phase"], state["closed"]) == ("closed", "ended by the operator")
        with pytest.raises(DeskRefusal):
            desk.client.change("start", trial=state["trial"])


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"by": "magic"}, "by: expected one of robot, operator, timeout, guard, got 'magic'"),
        ({"steps": -1}, "steps: expected counts"),
        ({"recording": {"number": 1, "digest": "x"}}, "recording: expected counts"),
        ({"seen": {"score": "high", "success": True}}, "seen: is not what it should be"),
    ],
)
def test_a_report_that_is_none(said: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with manned(tmp_path) as desk:
        code = desk.begin()
        with pytest.raises(ServingError, match=sentence):
            desk.end(code, **said)
        assert desk.state["phase"] == "running"


def test_a_full_disk_is_tried_again(tmp_path: Path) -> None:
    """The robot gets a fault that may go away, and repeats its report."""
    with manned(tmp_path) as desk:
        code, log = desk.begin(), desk.desk._log
        full = open("/dev/full", "ab")  # noqa: SIM115
        kept, log._file = log._file, full
        with pytest.raises(ServingError, match=r"HTTP 503: .*nothing was written: No space left on device"):
            desk.end(code)
        log._file = kept
        desk.end(code)
        assert desk.state["phase"] == "stopped"
        with suppress(OSError):
            full.close()
