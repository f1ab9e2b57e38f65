"""Blind serving of two policies: what is proved is what answers, and a robot cannot tell the policies apart."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as open_websocket

from tests.support.homing import POLICY, H, Homing
from tests.support.point import POINT
from tests.support.serving import Running, running
from tests.support.trial_server import (
    DESK_TOKEN,
    GOOD,
    PLAN,
    POOR,
    ROBOT,
    SPEEDS,
    served_arms,
    server_key,
    trial_server,
)
from vqbet.contract import ServingError
from vqbet.policies.actor import Actor, Planned
from vqbet.serving import wire
from vqbet.serving.blind_arms import BlindArms
from vqbet.serving.client import RemotePolicy, connect
from vqbet.serving.desk_line import DeskLine
from vqbet.serving.handshake import KEY
from vqbet.serving.seats import Served
from vqbet.serving.server import ServerOptions
from vqbet.serving.trial_line import SignedStatement, TrialLine
from vqbet.signing.keys import Key, parse
from vqbet.signing.statements import Statement, commitment, genuine

TRIAL, SECRET = "AB23CD45", "0f" * 32
FAR = np.array([0.9, -0.9], np.float32)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return server_key(tmp_path_factory.mktemp("key"))


@pytest.fixture
def server(key: Key) -> Iterator[Running]:
    with trial_server(PLAN, key=key) as found:
        yield found


@pytest.fixture
def line(server: Running) -> Iterator[TrialLine]:
    with TrialLine(server.url, DESK_TOKEN) as found:
        yield found


def ordered(line: TrialLine, trial: str = TRIAL, digest: str = GOOD, **more: str) -> SignedStatement:
    order = {"plan": PLAN, "robot": ROBOT, "nonce": "n-1", "key": SECRET}
    return line.arm(trial=trial, digest=digest, **(order | more))


def robot(server: Running, **options: Any) -> RemotePolicy:
    return connect(server.url, **({"robot": ROBOT, "spec": POINT} | options))


def first_step(policy: RemotePolicy, trial: str) -> float:
    """Return the way of an episode's first step, by which the two policies differ."""
    policy.start(7, trial=trial)
    return float(np.abs(policy.plan(np.stack([FAR, FAR]), 0).chunk[0]).max())


def test_what_is_loaded(line: TrialLine, key: Key) -> None:
    arms = line.arms()
    assert (arms.digests, arms.plan, arms.spec) == ((GOOD, POOR), PLAN, POINT)
    assert arms.public_key == key.public


@pytest.mark.parametrize(("digest", "speed"), [(GOOD, SPEEDS[0]), (POOR, SPEEDS[1])])
def test_the_digest_proved_is_the_one_that_answers(
    server: Running, line: TrialLine, key: Key, digest: str, speed: float
) -> None:
    made = ordered(line, digest=digest, nonce="fresh")
    said = made.statement
    assert genuine(parse(key.public), made.signature, said)
    assert (said.plan, said.trial, said.robot, said.nonce) == (PLAN, TRIAL, ROBOT, "fresh")
    assert said.commitment == commitment(SECRET, digest)
    with robot(server) as policy:
        assert first_step(policy, TRIAL) == pytest.approx(speed)
        assert policy.handshake.digest == said.commitment


def test_arms_in_any_order_over_one_connection(server: Running, line: TrialLine) -> None:
    order = [GOOD, POOR, POOR, GOOD, POOR]
    with robot(server) as policy:
        for number, digest in enumerate(order):
            ordered(line, f"T{number}", digest)
            assert first_step(policy, f"T{number}") == pytest.approx(
                dict(zip((GOOD, POOR), SPEEDS, strict=True))[digest]
            )


def test_a_statement_with_any_byte_changed_is_refused(line: TrialLine, key: Key) -> None:
    made = ordered(line)
    public = parse(key.public)
    for name, value in made.statement.to_json().items():
        for place in range(len(value)):
            changed = value[:place] + ("x" if value[place] != "x" else "y") + value[place + 1 :]
            assert not genuine(public, made.signature, replace(made.statement, **{name: changed}))
    assert not genuine(public, made.signature[:-4] + "AAA=", made.statement)
    assert genuine(public, made.signature, Statement.from_json(made.statement.to_json()))


def test_a_statement_of_another_key_is_refused(line: TrialLine, tmp_path: Path) -> None:
    made = ordered(line)
    assert not genuine(parse(server_key(tmp_path).public), made.signature, made.statement)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"digest": "f" * 64}, f"is not loaded; this server has {GOOD} and {POOR}"),
        ({"plan": "f" * 64}, f"this server serves the trials of plan {PLAN}; start it again"),
        ({"robot": "arm-4"}, "robot 'arm-4': the plan is for robot arm-3"),
        ({"key": "secret"}, "key: expected 16 to 64 bytes as hexadecimal digits"),
        ({"nonce": ""}, "nonce: expected text"),
        ({"trial": "x" * 201}, "trial: expected text"),
    ],
)
def test_an_order_that_does_not_fit(line: TrialLine, change: dict[str, str], sentence: str) -> None:
    with pytest.raises(ServingError, match=sentence):
        ordered(line, **change)
    assert ordered(line).statement.trial == TRIAL, "the line goes on"


@pytest.mark.parametrize("order", [{"endpoint": "arms", "all": 1}, {"endpoint": "fire"}, {"endpoint": "arm"}, {}])
def test_what_is_no_order(server: Running, order: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {DESK_TOKEN}"}
    with open_websocket(server.url + "/desk", additional_headers=headers) as socket:
        for frame in (wire.encode(order), b"\xc1", "text"):
            socket.send(frame)
            answer = wire.decode(bytes(socket.recv(10)), most=1 << 16)  # type: ignore[arg-type]
            assert answer["status"] == "error"
            assert answer["message"]


def test_a_refused_order_leaves_the_trial_before(server: Running, line: TrialLine) -> None:
    ordered(line)
    with pytest.raises(ServingError, match="is not loaded"):
        ordered(line, "T2", "f" * 64)
    with robot(server) as policy:
        assert first_step(policy, TRIAL) == pytest.approx(SPEEDS[0])


def test_a_code_is_ordered_again_with_the_same_policy_only(line: TrialLine) -> None:
    one, two = ordered(line, nonce="n-1"), ordered(line, nonce="n-2")
    assert one.statement.commitment == two.statement.commitment
    assert one.statement.nonce != two.statement.nonce
    for change in ({"digest": POOR}, {"key": "1f" * 32}):
        with pytest.raises(ServingError, match="was ordered with another policy before; every trial has a new code"):
            ordered(line, **change)


def test_a_code_of_a_trial_before_is_over(server: Running, line: TrialLine) -> None:
    ordered(line)
    ordered(line, "T2", POOR)
    with pytest.raises(ServingError, match="is over: another one was ordered after it"):
        ordered(line)
    with (
        robot(server) as policy,
        pytest.raises(ServingError, match="'AB23CD45': is over; play the trial that the desk"),
    ):
        policy.start(7, trial=TRIAL)


@pytest.mark.parametrize(
    ("trial", "name", "sentence"),
    [
        ("", ROBOT, "this server serves trials only; let the desk order one"),
        ("T9", ROBOT, "trial 'T9': was not ordered by the desk"),
        (TRIAL, "arm-4", "is for robot arm-3, this connection is of robot arm-4"),
        (TRIAL, "", "this connection is of robot without a name"),
    ],
)
def test_a_reset_that_does_not_fit(server: Running, line: TrialLine, trial: str, name: str, sentence: str) -> None:
    ordered(line)
    with robot(server, robot=name) as policy, pytest.raises(ServingError, match=sentence):
        policy.start(7, trial=trial)


def test_an_observation_without_a_reset_begins_nothing(server: Running, line: TrialLine) -> None:
    ordered(line)
    with open_websocket(f"{server.url}/?robot={ROBOT}") as socket:
        socket.recv()
        socket.send(wire.encode({"state": FAR}))
        assert "this server serves trials only" in str(socket.recv(10))


def test_a_trial_is_played_once_and_again_after_a_new_order(server: Running, line: TrialLine) -> None:
    ordered(line)
    with robot(server) as policy:
        first_step(policy, TRIAL)
        first_step(policy, TRIAL)  # the first plan was lost on its way: the robot has not moved
        policy.plan(np.stack([FAR, FAR]), 1)
        with pytest.raises(ServingError, match="the robot has moved in it already"):
            policy.start(7, trial=TRIAL)
        ordered(line)
        assert first_step(policy, TRIAL) == pytest.approx(SPEEDS[0])


def test_a_server_of_one_policy_serves_no_trials() -> None:
    with running(POLICY) as server:
        with connect(server.url) as policy, pytest.raises(ServingError, match="serves one policy and no trials"):
            policy.start(7, trial=TRIAL)
        with pytest.raises(ServingError, match="HTTP 404: this server serves no trials; start it by vqbet trials"):
            TrialLine(server.url, DESK_TOKEN).arms()


def test_two_secrets(key: Key) -> None:
    with trial_server(PLAN, key=key, server_token="robots") as server:
        for token in ("robots", "another"):
            with pytest.raises(ServingError, match="HTTP 401: expected the header Authorization: Bearer with the desk"):
                TrialLine(server.url, token).arms()
        with pytest.raises(InvalidStatus, match="401"):
            open_websocket(server.url + "/desk")
        for token in (DESK_TOKEN, None):
            with pytest.raises(ServingError, match="HTTP 401"):
                robot(server, token=token)
        robot(server, token="robots").close()
        assert TrialLine(server.url, DESK_TOKEN).arms().plan == PLAN


def test_a_desk_needs_a_secret_of_its_own(key: Key) -> None:
    arms = BlindArms(served_arms(), plan=PLAN, robot=ROBOT, key=key)
    with pytest.raises(ServingError, match="expected the desk's secret in VQBET_DESK_TOKEN"):
        DeskLine(arms, "", robots="")
    with pytest.raises(ServingError, match="VQBET_DESK_TOKEN and VQBET_TOKEN are the same"):
        DeskLine(arms, "same", robots="same")
    with pytest.raises(ServingError, match="set VQBET_DESK_TOKEN"):
        TrialLine("ws://127.0.0.1:1", "")


def test_desks_are_counted(server: Running) -> None:
    lines = [TrialLine(server.url, DESK_TOKEN) for _ in range(5)]
    for one in lines[:4]:
        one.arms()
    with pytest.raises(ServingError, match="4 desks are connected, no more are taken"):
        lines[4].arms()
    for one in lines:
        one.close()


def test_a_server_that_is_killed_between_order_and_reset(key: Key) -> None:
    """It knows nothing of the trial afterwards; the desk orders it again, over the same line."""
    with trial_server(PLAN, key=key) as server:
        line, policy = TrialLine(server.url, DESK_TOKEN), robot(server)
        before = ordered(line, digest=POOR)
    with pytest.raises(ServingError, match="see whether the server runs there"):
        ordered(line, digest=POOR, nonce="n-2")
    with trial_server(PLAN, key=key, port=server.port):
        with pytest.raises(ServingError, match="was not ordered by the desk"):
            policy.start(7, trial=TRIAL)
        after = ordered(line, digest=POOR, nonce="n-3")
        assert first_step(policy, TRIAL) == pytest.approx(SPEEDS[1])
    assert after.statement.commitment == before.statement.commitment
    line.close()


def test_a_line_that_broke_is_opened_again(key: Key) -> None:
    with trial_server(PLAN, key=key) as server:
        line = TrialLine(server.url, DESK_TOKEN)
        line.arms()
    with trial_server(PLAN, key=key, port=server.port):
        assert line.arms().plan == PLAN
        line.close()


# --- nothing tells the arms apart ------------------------------------------------------------------------------------


def watched(digest: str, speed: float, **fields: Any) -> Served:
    """Return an arm whose handshake, codes, signals and guard are its own."""

    class Own(Homing):
        tags = 2 if digest == POOR else 1

        def plan(self, observation: np.ndarray, goal: Any, uniform: np.ndarray) -> Planned:
            made, rows = super().plan(observation, goal, uniform), len(observation)
            codes = np.full((rows, self.tags), 3 if digest == POOR else 4, np.int64)
            return made._replace(tags=codes, signals=np.full((rows, self.tags), speed))

    components = {"guard": {f"limit.{name}": np.full(2, value) for name, value in fields.items()}}
    return Served.of(Actor(POINT, Own(speed), execute="first"), digest, f"point@{speed}", components)


@pytest.fixture
def differing(key: Key) -> Iterator[Running]:
    limited = [watched(GOOD, 0.08, rate=0.1, low=-0.05), watched(POOR, 0.015, rate=0.05, low=-0.09, high=0.09)]
    arms = BlindArms(limited, plan=PLAN, robot=ROBOT, key=key)
    with running(DeskLine(arms, DESK_TOKEN, robots="")) as server:
        yield server


def frames(server: Running, line: TrialLine, trial: str, digest: str) -> list[dict[str, Any]]:
    """Return all that a robot gets in a trial, without the numbers of its plans."""
    secret = f"{trial:0<64}".encode().hex()[:64]
    commit = ordered(line, trial, digest, key=secret).statement.commitment
    found: list[dict[str, Any]] = []
    with open_websocket(f"{server.url}/?robot={ROBOT}") as socket:
        found.append(wire.decode(bytes(socket.recv(10)), most=1 << 20))  # type: ignore[arg-type]
        asked: list[dict[str, Any]] = [{"endpoint": "reset", "seed": 3, "trial": trial}]
        asked += [{"state": np.stack([FAR, FAR]), "step": step, "execute": "robot"} for step in range(5)]
        for question in asked:
            socket.send(wire.encode(question))
            answer = wire.decode(bytes(socket.recv(10)), most=1 << 20)  # type: ignore[arg-type]
            assert answer[KEY]["digest"] == commit
            del answer[KEY]["digest"]
            if "actions" in answer:
                answer["actions"] = (answer["actions"].shape, answer["actions"].dtype)
                assert len(answer[KEY].pop("codes")) == 1
            found.append(answer)
        socket.send(wire.encode({"state": FAR, "digest": "0" * 64}))
        found.append({"refused": str(socket.recv(10))})
    return found


def test_frames_of_both_arms_are_the_same(differing: Running) -> None:
    with TrialLine(differing.url, DESK_TOKEN) as line:
        one, two = (frames(differing, line, trial, digest) for trial, digest in (("T1", GOOD), ("T2", POOR)))
    assert one == two
    for said in (str(one), str(two)):
        assert GOOD not in said
        assert POOR not in said
    shown = one[0][KEY]
    assert (shown["digest"], shown["reference"], shown["signals"]) == (PLAN, f"trials {PLAN[:12]}", {})
    assert shown["limits"] == {"low": [-0.09] * 2, "rate": [0.1] * 2}, "the widest; one that an arm lacks is left out"
    assert one[1][KEY] == {"step": 0, "seed": 3}
    assert one[2]["server_timing"] == {}
    assert one[2][KEY]["signals"] == {}


def test_codes_tell_only_which_plans_are_alike(differing: Running) -> None:
    with TrialLine(differing.url, DESK_TOKEN) as line, robot(differing) as policy:
        seen = []
        for trial, digest, secret in (("T1", GOOD, "a1"), ("T2", GOOD, "b2"), ("T3", POOR, "c3")):
            ordered(line, trial, digest, key=secret * 32)
            policy.start(1, trial=trial)
            replies = [policy.plan(np.stack([FAR, FAR]), step) for step in range(3)]
            assert len({reply.codes for reply in replies}) == 1, "the same behaviour all through the trial"
            seen.append(replies[0].codes)
        assert len(set(seen)) == 3, "the same arm has other codes in another trial"


def test_a_plan_that_fails_does_not_tell_its_arm(key: Key) -> None:
    class Broken(Homing):
        def plan(self, observation: np.ndarray, goal: Any, uniform: np.ndarray) -> Planned:
            made = super().plan(observation, goal, uniform)
            return made._replace(chunk=np.full_like(made.chunk, np.nan)) if observation[0, -1, 0] > 0.8 else made

    broken = Served.of(Actor(POINT, Broken(), execute="first"), POOR, "point@broken")
    arms = BlindArms([served_arms()[0], broken], plan=PLAN, robot=ROBOT, key=key)
    with running(DeskLine(arms, DESK_TOKEN, robots="")) as server, TrialLine(server.url, DESK_TOKEN) as line:
        ordered(line, digest=POOR)
        with robot(server) as policy:
            policy.start(1, trial=TRIAL)
            with pytest.raises(ServingError, match="the policy of this trial made no plan; the server's log says why"):
                policy.plan(np.stack([FAR, FAR]), 0)


@pytest.mark.slow
def test_answers_of_a_slow_and_a_fast_arm_take_equally_long(key: Key) -> None:
    class Slow(Homing):
        def plan(self, observation: np.ndarray, goal: Any, uniform: np.ndarray) -> Planned:
            time.sleep(0.004)
            return super().plan(observation, goal, uniform)

    slow = Served.of(Actor(POINT, Slow(), execute="first"), POOR, "point@slow")
    arms = BlindArms([served_arms()[0], slow], plan=PLAN, robot=ROBOT, key=key)
    taken: dict[str, list[float]] = {GOOD: [], POOR: []}
    with running(DeskLine(arms, DESK_TOKEN, robots="")) as server, TrialLine(server.url, DESK_TOKEN) as line:
        with robot(server) as policy:
            for number, digest in enumerate([GOOD, POOR, POOR, GOOD] * 2):
                ordered(line, f"T{number}", digest)
                policy.start(1, trial=f"T{number}")
                for step in range(25):
                    began = time.perf_counter()
                    policy.plan(np.stack([FAR, FAR]), step)
                    taken[digest].append(time.perf_counter() - began)
        metrics = server.server.metrics.text({}, "", "")
    fast, slower = (statistics.median(taken[digest]) for digest in (GOOD, POOR))
    assert fast >= 0.004, "the fast arm waits for as long as the slow one needs"
    assert slower / fast == pytest.approx(1, abs=0.15)
    assert "vqbet_policy_seconds_count 0" in metrics, "nobody can read the times of plans"


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (Actor(POINT, Homing(), execute="chunk"), "execute"),
        (Actor(POINT, type("Long", (Homing,), {"window": 3})(), execute="first"), "window"),
        (Actor(replace(POINT, control_hz=20.0), Homing(), execute="first"), "spec"),
    ],
)
def test_arms_that_a_robot_could_tell_apart(key: Key, other: Actor, field: str) -> None:
    with pytest.raises(ServingError, match=f"differ in their {field}, by which a robot would know them apart"):
        BlindArms([served_arms()[0], Served.of(other, POOR, "")], plan=PLAN, robot=ROBOT, key=key)


def test_two_arms_of_one_digest(key: Key) -> None:
    with pytest.raises(ServingError, match="expected policies of different digests"):
        BlindArms(served_arms((GOOD, GOOD)), plan=PLAN, robot=ROBOT, key=key)


def test_a_candidate_alone(key: Key) -> None:
    with trial_server(PLAN, (GOOD,), key=key) as server, TrialLine(server.url, DESK_TOKEN) as line:
        assert line.arms().digests == (GOOD,)
        ordered(line)
        with robot(server) as policy:
            assert first_step(policy, TRIAL) == pytest.approx(SPEEDS[0])
            assert policy.handshake.chunk == H


def test_options_of_a_server_are_those_of_any(key: Key) -> None:
    """Health, robots' names and the drain are as with one policy."""
    arms = BlindArms(served_arms(), plan=PLAN, robot=ROBOT, key=key)
    with running(DeskLine(arms, DESK_TOKEN, robots=""), ServerOptions(grace_s=0.1)) as server:
        with robot(server, digest=PLAN), pytest.raises(ServingError, match="robot arm-3 is connected already"):
            robot(server)
        with pytest.raises(ServingError, match=f"this server serves trials {PLAN[:12]}, digest {PLAN}"):
            robot(server, digest=GOOD)
