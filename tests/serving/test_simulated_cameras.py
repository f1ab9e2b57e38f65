"""A simulated robot with a camera: what it sends is what the world shows, and its camera can fail to order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import seeing_pusht
from tests.support.homing import POLICY
from tests.support.point import POINT, PointMass
from tests.support.seeing_pusht import SPEC, TASK
from tests.support.serving import Running, running, served
from vqbet.commands import simrobot
from vqbet.commands.simrobot import Practice
from vqbet.contract import ServingError
from vqbet.evaluation.trials import trial_films
from vqbet.serving import recordings
from vqbet.serving.client import OneRow, connect
from vqbet.serving.recorder import Recorder
from vqbet.serving.simrobot import Drive, Faults, SimulatedRobot
from vqbet.stages.progress import Watch
from vqbet.tasks.pusht.world import PushT

STEPS = 12
ROW = np.zeros(1, np.int64)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(served(seeing_pusht.actor())) as found:
        yield found


def played(server: Running, folder: Path, *written: str, **options: Any) -> tuple[Drive, dict[str, np.ndarray]]:
    """Return an episode and its recorded arrays."""
    with connect(server.url, spec=SPEC) as policy:
        recorder = Recorder(folder, policy.handshake)
        robot = SimulatedRobot(
            PushT(max_steps=STEPS, camera=True), policy, Faults.of(written), recorder=recorder, **options
        )
        drive = robot.play(3)
        robot.close()
    found = recordings.read(folder, 1)
    return drive, {name: found.array(name) for name in found.arrays}


def test_without_faults_it_is_the_rollout(server: Running, tmp_path: Path) -> None:
    """Actions and pictures are those of the policy in its world, asked step by step."""
    drive, found = played(server, tmp_path, camera=True)
    assert (drive.steps, drive.holds, drive.stopped) == (STEPS, 0, "")
    assert found["camera/image"].shape == (STEPS, 96, 96, 3)
    assert found["camera/scene"].shape[0] == STEPS, "who looks on is recorded beside it"
    env = PushT(max_steps=STEPS, camera=True)
    with connect(server.url) as remote:
        policy = OneRow(remote)
        seen = env.reset(np.array([3]))
        policy.reset(np.array([3]))
        for step in range(STEPS):
            shown = env.cameras(ROW)
            np.testing.assert_array_equal(found["camera/image"][step], shown["image"][0])
            action = policy.act(seen, ROW, shown)
            np.testing.assert_array_equal(found["action"][step], action[0])
            seen, _ = env.step(action, ROW)


def test_a_trial_of_a_policy_that_sees_has_a_film_without_anybody_looking_on(server: Running, tmp_path: Path) -> None:
    """As in a scripted session, whose robot records no scene."""
    played(server, tmp_path)
    found = recordings.read(tmp_path, 1)
    assert trial_films.frames(tmp_path, 1, found.digest).shape == (STEPS, 96, 96, 3)


def test_a_camera_goes_black_or_freezes(server: Running, tmp_path: Path) -> None:
    _, black = played(server, tmp_path / "black", "black=1")
    first = next(step for step in range(STEPS) if not black["camera/image"][step].any())
    assert 0 < first < STEPS
    assert not black["camera/image"][first:].any()
    _, frozen = played(server, tmp_path / "frozen", "frozen=1")
    alike = (frozen["camera/image"][1:] == frozen["camera/image"][:-1]).all((1, 2, 3))
    assert alike[-1]


def test_a_world_without_cameras_cannot_lose_one() -> None:
    with running(POLICY) as server, connect(server.url, spec=POINT) as policy:
        robot = SimulatedRobot(PointMass(), policy, Faults.of(["black=1"]))
        with pytest.raises(ServingError, match=r"faults black and frozen: the world of .* has no camera"):
            robot.play(0)


def test_the_command_plays_it_at_the_control_rate(server: Running, tmp_path: Path, monkeypatch: Any) -> None:
    """By the thread that asks, on the machine's own clock."""
    monkeypatch.setattr(PushT.__init__, "__kwdefaults__", {**PushT.__init__.__kwdefaults__, "max_steps": STEPS})
    asked = Practice(server=server.url, episodes=1, seed=3, record=tmp_path / "recordings", realtime=True)
    rows = simrobot.run(tmp_path, TASK, asked, Watch())
    assert rows["episodes"] == f"1, {STEPS} steps"
    assert recordings.read(tmp_path / "recordings", 1).array("camera/image").shape == (STEPS, 96, 96, 3)
