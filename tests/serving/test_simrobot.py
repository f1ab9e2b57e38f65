"""A simulated robot: each fault to order and by seed, met by the guard; records of all that ran."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.fake_server import Fake
from tests.support.homing import POLICY, H
from tests.support.point import POINT, PointMass
from tests.support.serving import running
from vqbet.contract import ServingError
from vqbet.serving.client import OneRow, connect
from vqbet.serving.guard import Reason
from vqbet.serving.handshake import Handshake
from vqbet.serving.recorder import Recorder
from vqbet.serving.simrobot import Drive, Faults, SimulatedRobot, summary


@pytest.fixture(scope="module")
def url() -> Any:
    with running(POLICY) as server:
        yield server.url


def played(url: str, *written: str, seeds: range = range(5), **options: Any) -> list[Drive]:
    with connect(url, spec=POINT) as policy:
        robot = SimulatedRobot(PointMass(), policy, Faults.of(written), **options)
        return [robot.play(seed) for seed in seeds]


def test_without_faults_it_is_the_rollout(url: str) -> None:
    """The same steps and outcomes as the policy has in its world, asked step by step."""
    found = played(url)
    assert all(one.success and not one.holds and not one.reasons and not one.stopped for one in found)
    with connect(url) as remote:
        for one in found:
            env, policy, steps, ended = PointMass(), OneRow(remote), 0, np.zeros(1, bool)
            seen = env.reset(np.array([one.seed]))
            policy.reset(np.array([one.seed]))
            while not ended[0]:
                seen, ended = env.step(policy.act(seen, np.zeros(1, np.int64)), np.zeros(1, np.int64))
                steps += 1
            assert steps == one.steps


@pytest.mark.parametrize("execute", ["first", "chunk", "average"])
def test_latency_is_met_by_asking_in_time(url: str, execute: str) -> None:
    """Answers take a little more than a period; the point still arrives, and nothing is refused after the start."""
    found = played(url, "latency=0.09", "jitter=0.2", execute=execute)
    assert all(one.success and not one.stopped for one in found), found
    assert sum(one.holds for one in found) <= 2 * len(found)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("drop=0.3", Reason.STALE_OBSERVATION),
        ("beyond=0.2", Reason.OBSERVATION_LIMIT),
        ("latency=1.5", Reason.DEADLINE),
    ],
)
def test_each_fault_is_met_by_its_reason(url: str, fault: str, reason: Reason) -> None:
    found = played(url, fault)
    assert sum(one.reasons.get(reason, 0) for one in found) > 0
    assert {name for one in found for name in one.reasons} == {str(reason)}


def test_answers_that_never_come_in_time_stop_the_robot(url: str) -> None:
    found = played(url, "latency=1.5")
    assert all(one.stopped and not one.success for one in found)


def test_a_stuck_joint_and_noise_let_it_fail_safely(url: str) -> None:
    free, stuck = played(url), played(url, "stuck=1", "noise=0.002")
    assert sum(one.success for one in stuck) < sum(one.success for one in free)
    assert all(one.steps <= PointMass.max_steps for one in stuck)


def test_a_person_drives_for_a_second(url: str) -> None:
    found = played(url, "person=1", seeds=range(8))
    assert sum(one.driven for one in found) > 0
    assert all(one.driven <= 10 for one in found)
    assert all(one.success for one in found if one.steps < PointMass.max_steps and not one.stopped)


def test_the_same_seed_is_the_same_run(url: str) -> None:
    faults = ("jitter=0.3", "latency=0.05", "drop=0.1", "noise=0.01", "beyond=0.05", "stuck=0.5", "person=0.5")
    assert played(url, *faults) == played(url, *faults)
    assert played(url, *faults) != played(url, *faults, seeds=range(5, 10))


def test_everything_that_ran_is_recorded(url: str, tmp_path: Any) -> None:
    with connect(url) as policy:
        recorder = Recorder(tmp_path / "recordings", policy.handshake, robot="sim")
        robot = SimulatedRobot(PointMass(), policy, Faults(person=1.0, beyond=0.1), recorder=recorder)
        found = [robot.play(seed) for seed in range(3)]
    folders = sorted(path for path in (tmp_path / "recordings").iterdir() if path.is_dir())
    assert len(folders) == 3
    for one, folder in zip(found, folders, strict=True):
        assert len(np.load(folder / "observation.npy")) == one.steps
        assert int(np.load(folder / "intervention.npy").sum()) == one.driven


def test_at_the_control_rate(url: str) -> None:
    """A second of the machine's own clock, thread and all."""
    fast = replace(POLICY, handshake=replace(POLICY.handshake, spec=replace(POINT, control_hz=50.0)))
    env = PointMass()
    env.spec = fast.handshake.spec
    with running(fast) as server, connect(server.url, spec=env.spec) as policy:
        robot = SimulatedRobot(env, policy, Faults(latency=0.002), realtime=True)
        one = robot.play(0)
        robot.close()
    assert one.steps > 0


def test_it_waits_for_a_server_that_is_gone() -> None:
    """The next episode runs once the server is back."""
    fake = Fake(handshake=Handshake(digest="ab" * 32, reference="", spec=POINT, window=1, chunk=H, execute="first"))
    with fake.serving() as address:
        port = int(address.rpartition(":")[2])
        policy = connect(address, timeout_s=1.0)
        robot = SimulatedRobot(PointMass(), policy, Faults())
        robot.play(0)
    with pytest.raises(ServingError, match="see whether the server runs there"):
        robot.play(1)
    patient = SimulatedRobot(PointMass(), policy, Faults(), wait_s=60.0)
    with fake.serving(port):
        assert patient.play(1).seed == 1
    policy.close()


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("storm=1", "fault 'storm=1': expected one of jitter, latency, drop, noise, beyond, stuck, person"),
        ("drop", "fault drop: expected a number from 0 to 1, got ''"),
        ("drop=2", "got '2'"),
        ("drop=nan", "got 'nan'"),
        ("jitter=0.5", "from 0 to 0.45"),
    ],
)
def test_what_is_no_fault(written: str, sentence: str) -> None:
    with pytest.raises(ServingError, match=sentence):
        Faults.of([written])


def test_the_summary_counts() -> None:
    good = Drive(0, 10, True, 1.0, 0, "", {}, 0, 0)
    bad = Drive(1, 5, False, 0.5, 2, "no action arrived", {"deadline": 3}, 4, 1)
    rows = summary([good, bad])
    assert (rows["episodes"], rows["success"], rows["score"]) == ("2, 15 steps", "1 of 2", "0.750")
    assert (rows["holds"], rows["stops"], rows["reasons"]) == ("2 of 15 steps", "1 of 2 episodes", "deadline 3")
    assert (rows["driven by a person"], rows["last stop"]) == ("4 steps", "seed 1: no action arrived")
    assert "driven by a person" not in summary([good])
