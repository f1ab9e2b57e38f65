"""docs/robot.md: its examples run from their own text, its tables name what there is, and the adapters drive."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.fake_desk import TOKEN, FakeDesk, job
from tests.support.fake_server import SPEC, Fake
from tests.support.homing import POLICY
from tests.support.point import PointMass
from tests.support.serving import running
from tests.support.trial_server import DESK_TOKEN, GOOD, PLAN, server_key, trial_server
from vqbet.serving import recordings
from vqbet.serving.client import connect
from vqbet.serving.guard import Reason
from vqbet.serving.player import ChunkPlayer
from vqbet.serving.requests import KNOWN
from vqbet.serving.simrobot import Faults
from vqbet.serving.trial_line import TrialLine

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "robot.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
EXAMPLES = ROOT / "docs" / "examples"


class Driver:
    """The robot of the page: a point in its world."""

    def __init__(self) -> None:
        self.world, self.ended, self.halted, self.sent = PointMass(), False, False, 0
        self.seen = self.world.reset(np.array([1]))[0]

    def observe(self) -> np.ndarray:
        return self.seen

    def send(self, action: np.ndarray) -> None:
        seen, ended = self.world.step(action[None], np.zeros(1, np.int64))
        self.seen, self.ended, self.sent = seen[0], bool(ended[0]), self.sent + 1

    def finished(self) -> bool:
        return self.ended

    def held(self) -> np.ndarray:
        return np.zeros(2, np.float32)

    def halt(self) -> None:
        self.halted = True


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block after block, in one namespace and an empty folder, against a server."""
    monkeypatch.chdir(tmp_path)
    robot = Driver()
    space: dict[str, Any] = {"robot": robot}
    with running(POLICY) as server:
        for block in BLOCKS:
            if "Station" not in block:
                text = block.replace("ws://127.0.0.1:8000", server.url)
                exec(compile(text, "docs/robot.md", "exec"), space)
        space["policy"].close()
    assert robot.finished()
    assert robot.sent > 3
    (recorded,) = [path for path in (tmp_path / "recordings").iterdir() if path.is_dir()]
    assert np.load(recorded / "intervention.npy").tolist() == [False] * 5 + [True]


@pytest.mark.slow
def test_the_loop_of_trials_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its own text, with the imports of the blocks before, against a desk and a server of blind trials."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQBET_ROBOT_TOKEN", TOKEN)
    imports = [line for block in BLOCKS for line in block.splitlines() if line.startswith(("import ", "from "))]
    (block,) = (block for block in BLOCKS if "Station" in block)
    robot = Driver()
    with trial_server(PLAN, key=server_key(tmp_path)) as server, TrialLine(server.url, DESK_TOKEN) as line:
        line.arm(plan=PLAN, trial="A1", robot="arm-3", nonce="n", digest=GOOD, key="0f" * 32)
        desk = FakeDesk(server.url, plan=PLAN, jobs=[job("A1", 1)])
        with desk.serving() as url:
            text = "\n".join(imports) + "\n" + block.replace("http://127.0.0.1:8090", url)
            space: dict[str, Any] = {"robot": robot}
            exec(compile(text, "docs/robot.md", "exec"), space)
            space["policy"].close()
    (report,) = desk.all_said("/robot/ended")
    assert (report["by"], report["steps"]) == ("robot", robot.sent)
    assert robot.finished()
    recorded = recordings.read(tmp_path / "trials", report["recording"]["number"])
    assert (recorded.digest, recorded.steps) == (report["recording"]["digest"], robot.sent)
    assert (recorded.facts.session, recorded.facts.operator) == ("trial A1", "ada")


def test_the_loop_is_fifteen_lines() -> None:
    lines = [line for line in BLOCKS[0].splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert 10 < len(lines) <= 15


def rows(title: str) -> set[str]:
    section = PAGE[PAGE.index(f"\n## {title}") :].split("\n## ")[1]
    first = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in first for name in re.findall(r"`([^`]+)`", cell)}


def test_the_tables_name_what_there_is() -> None:
    assert rows("Guard") == {reason.value for reason in Reason}
    assert rows("Rehearsal") == {field.name for field in fields(Faults)}
    assert {name for name in rows("Wire") if "<" not in name} <= set(KNOWN)


def loaded(name: str) -> ModuleType:
    described = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module


def test_every_example_is_on_the_page() -> None:
    assert set(re.findall(r"\]\(examples/(\w+)\.py\)", PAGE)) == {path.stem for path in EXAMPLES.glob("*.py")}


def test_lerobot() -> None:
    """A stand-in of LeRobot's Robot: a dictionary of floats by motor, both ways."""
    sent: list[dict[str, float]] = []
    robot = SimpleNamespace(get_observation=lambda: {"x": 0.0, "y": 0.0, "front": "a picture"}, send_action=sent.append)
    with Fake().serving() as url, connect(url) as policy:
        player = ChunkPlayer(policy, wait_s=5.0)
        assert loaded("lerobot_arm").drive(robot, player, SPEC, seed=7, most_s=0.2)
    assert sent[0] == {"episode": pytest.approx(0.007), "step": 0.0, "planned": 0.0}


def test_lerobot_ends_at_a_stop() -> None:
    sent: list[dict[str, float]] = []
    readings = iter([{"x": 0.0, "y": 0.0}, *[{"x": 0.0, "y": float("nan")}] * 9])
    robot = SimpleNamespace(get_observation=readings.__next__, send_action=sent.append)
    with Fake().serving() as url, connect(url) as policy:
        assert not loaded("lerobot_arm").drive(robot, ChunkPlayer(policy, wait_s=5.0), SPEC, seed=7)
    assert not sent, "nothing was sent before, so nothing is held"


def test_ur_rtde() -> None:
    servo: list[list[float]] = []
    stopped: list[bool] = []
    receive = SimpleNamespace(getActualQ=lambda: [0.0, 0.0])
    control = SimpleNamespace(
        servoJ=lambda target, speed, acceleration, period_s, lookahead_s, gain: servo.append([*target, period_s]),
        servoStop=lambda: stopped.append(True),
    )
    with Fake().serving() as url, connect(url) as policy:
        player = ChunkPlayer(policy, wait_s=5.0)
        assert loaded("ur_rtde_arm").drive(receive, control, player, SPEC, seed=7, most_s=0.2) == ""
    assert servo[0] == [pytest.approx(0.007), 0.0, 0.0, 1 / SPEC.control_hz]
    assert stopped == [True]


class FakeNode:
    """A stand-in of rclpy's Node, whose topics and timers a test calls."""

    def __init__(self, name: str) -> None:
        self.published: list[Any] = []

    def create_publisher(self, kind: type, topic: str, depth: int) -> Any:
        return SimpleNamespace(publish=self.published.append)

    def create_subscription(self, kind: type, topic: str, heard: Any, depth: int) -> None:
        return

    def create_timer(self, period_s: float, tick: Any) -> Any:
        return tick


def test_ros2(monkeypatch: pytest.MonkeyPatch) -> None:
    said = SimpleNamespace
    stand_ins: dict[str, dict[str, Any]] = {
        "rclpy": {},
        "rclpy.node": {"Node": FakeNode},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"JointState": said},
        "std_msgs": {},
        "std_msgs.msg": {"Float64MultiArray": said},
    }
    for name, content in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    with Fake().serving() as url, connect(url) as policy:
        node = loaded("ros2_node").PolicyNode(ChunkPlayer(policy, wait_s=5.0), SPEC, seed=7)
        node.tick()
        assert not node.started, "no joint state yet"
        for place in (0.0, 0.0, float("nan"), float("nan"), float("nan")):
            node.joints(said(name=["y", "x", "other"], position=[place, 0.0, 9.0]))
            node.tick()
        node.tick()
    assert node.published[0].data == [pytest.approx(0.007), 0.0, 0.0]
    assert "'y' (m) is nan" in node.stopped
