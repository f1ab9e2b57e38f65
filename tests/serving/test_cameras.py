"""A policy that sees, over a real socket: what is sent, what is refused, and that all ways lead to the same actions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support import seeing, small
from tests.support.seeing import CAMERAS, SPEC, H, T
from tests.support.serving import Running, running, served
from vqbet.contract import Camera, ServingError
from vqbet.serving import wire
from vqbet.serving.client import OneRow, RemotePolicy, connect
from vqbet.serving.errands import Simulated
from vqbet.serving.handshake import KEY
from vqbet.serving.player import ChunkPlayer

STEPS = 11
STATES = small.observations(STEPS)[:, 0]
SHOWN = [{name: each[0] for name, each in seeing.pictures(1, seed=step).items()} for step in range(STEPS)]
SEED = 7


@pytest.fixture(scope="module", params=["first", "chunk", "average"])
def execute(request: Any) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(execute: str) -> Iterator[Running]:
    with running(served(seeing.actor(execute))) as found:
        yield found


def expected(execute: str) -> np.ndarray:
    """Return the actions of the policy in this process."""
    actor = seeing.actor(execute)
    actor.reset(np.array([SEED]))
    row = np.zeros(1, np.int64)
    return np.stack(
        [
            actor.act(state[None], row, {name: each[None] for name, each in shown.items()})[0]
            for state, shown in zip(STATES, SHOWN, strict=True)
        ]
    )


def test_served_step_by_step_it_acts_as_here(server: Running, execute: str) -> None:
    with connect(server.url, spec=SPEC) as remote:
        policy = OneRow(remote)
        policy.reset(np.array([SEED]))
        acted = [
            policy.act(state[None], np.zeros(1, np.int64), {name: each[None] for name, each in shown.items()})[0]
            for state, shown in zip(STATES, SHOWN, strict=True)
        ]
    np.testing.assert_array_equal(np.stack(acted), expected(execute))


def test_played_on_the_robots_clock_it_acts_as_here(server: Running, execute: str) -> None:
    """Bit for bit: what runs on the robot is what the gate judged. The driver fills one array again and again."""
    now = 100.0
    frame = {name: np.empty_like(each) for name, each in SHOWN[0].items()}
    with connect(server.url, spec=SPEC) as remote:
        player = ChunkPlayer(remote, errand=lambda policy: Simulated(policy, lambda: now), clock=lambda: now)
        player.guard.check = lambda action, *rest, **times: _passed(action)  # type: ignore[method-assign]
        acted = []
        for step, (state, shown) in enumerate(zip(STATES, SHOWN, strict=True)):
            for name, each in shown.items():
                frame[name][:] = each
            observation = {"state": state, **{f"camera/{name}": each for name, each in frame.items()}}
            if not step:
                player.start(observation, seed=SEED)
            acted.append(player.step(observation).action)
            now += 1 / SPEC.control_hz
    np.testing.assert_array_equal(np.stack(acted), expected(execute))


def _passed(action: np.ndarray) -> Any:
    from vqbet.serving.guard import Decision

    return Decision("pass", action)


class Counting(RemotePolicy):
    """A client that remembers how many pictures went over the wire, and what was said of their places."""

    sent: list[tuple[int, list[int]]]

    def _asked(self, question: Any, call: str) -> dict[str, Any]:
        if "pictures" in question:
            top = question.get("camera/top")
            self.sent.append((0 if top is None else len(top), question["pictures"]))
        return super()._asked(question, call)


def test_a_picture_is_sent_once() -> None:
    with running(served(seeing.actor("first"))) as server:
        remote = Counting(
            server.url, digest=None, spec=SPEC, robot="", token=None, tls=None, timeout_s=5.0
        )  # fmt: skip
        remote.sent = []
        remote.open()
        remote.start(SEED)
        whole = np.repeat(STATES[:1], T, axis=0)
        first = remote.plan(whole, 0, [SHOWN[0]] * T)
        again = remote.plan(whole, 0, [SHOWN[0]] * T)
        later = remote.plan(whole, 1, [SHOWN[0], SHOWN[0], SHOWN[1]])
        remote.start(SEED)
        anew = remote.plan(whole, 1, [dict(SHOWN[0]), dict(SHOWN[0]), SHOWN[1]])
        remote.close()
    assert remote.sent == [(1, [0, 0, 0]), (0, [-1, -1, -1]), (1, [-1, -1, 0]), (3, [0, 1, 2])]
    np.testing.assert_array_equal(first.chunk, again.chunk)
    np.testing.assert_array_equal(later.chunk, anew.chunk)
    assert not np.allclose(first.chunk, later.chunk)


def test_several_robots_are_answered_together_as_each_alone(execute: str) -> None:
    """The rows of one call have different numbers of new pictures."""
    from vqbet.serving.seats import Ask, Seats

    def plans(seats: Seats, rows: list[int], step: int) -> list[np.ndarray]:
        asks = []
        for row in rows:
            new = row % 3  # pictures; the others are those of the request before
            pictures = seeing.pictures(new, seed=10 * step + row) if new else {}
            if step == 0:
                pictures, new = seeing.pictures(T, seed=row), T
            places = (*range(-T, -new), *range(new)) if new < T else tuple(range(T))
            asks.append(Ask(row, np.repeat(STATES[step : step + 1], T, 0), "robot", step, pictures, places))
        answers = seats.act(asks)
        assert not [each for each in answers if isinstance(each, Exception)], answers
        return [each.actions for each in answers]

    together, alone = (Seats(served(seeing.actor(execute)), 4) for _ in range(2))
    for seats in (together, alone):
        for seed in range(4):
            seats.take(seed, None)
    for step in range(3):
        found = plans(together, [0, 1, 2, 3], step)
        for row in range(4):
            np.testing.assert_allclose(plans(alone, [row], step)[0], found[row], atol=1e-5)


def test_the_handshake_names_the_cameras(server: Running) -> None:
    with connect(server.url) as remote:
        assert remote.spec.cameras == CAMERAS
        said = remote.handshake.metadata()[KEY]
    assert said["cameras"] == {"top": [40, 48, 3], "wrist": [36, 36, 3]}
    assert said["frame_bytes"] == 1 << 20
    other = replace(SPEC, cameras=(CAMERAS[0], Camera("wrist", 40, 40)))
    with pytest.raises(ServingError, match=r"camera 'wrist': .*height=40, width=40.* here, .*height=36"):
        connect(server.url, spec=other)


def changed(**pictures: Any) -> dict[str, Any]:
    return {name: each for name, each in {**SHOWN[0], **pictures}.items() if each is not None}


WRONG = [
    (changed(wrist=None), r"camera/wrist: expected uint8 of shape \(36, 36, 3\), RGB, got none; send one of every"),
    (changed(wrist=SHOWN[0]["top"]), r"camera/wrist: expected .*\(36, 36, 3\), RGB, got uint8 of shape \(40, 48, 3\)"),
    (changed(wrist=SHOWN[0]["wrist"] / 255), r"camera/wrist: .* got float64 of shape \(36, 36, 3\)"),
    (changed(top=np.moveaxis(SHOWN[0]["top"], 2, 0)), r"camera/top: .* its channels come first; move them last"),
    (changed(top=b"jpeg"), "camera/top: expected uint8 .* got bytes"),
    (changed(chest=SHOWN[0]["top"]), "'camera/chest': this policy sees no such camera; it sees top, wrist"),
]


@pytest.mark.parametrize(("pictures", "sentence"), WRONG)
def test_other_pictures_are_refused_on_both_sides(server: Running, pictures: dict[str, Any], sentence: str) -> None:
    with connect(server.url) as remote:
        remote.start(SEED)
        with pytest.raises(ServingError, match=sentence):
            remote.act(STATES[0], pictures)
        with pytest.raises(ServingError, match=sentence):
            remote.plan(np.repeat(STATES[:1], T, 0), 0, [pictures] * T)
        with pytest.raises(ServingError, match="cameras: expected pictures of 3 steps, got 2"):
            remote.plan(np.repeat(STATES[:1], T, 0), 0, [SHOWN[0]] * 2)
        keyed = {f"camera/{name}": each for name, each in pictures.items()}
        if "chest" not in pictures:  # a camera beside those of the policy is recorded, and not sent
            with pytest.raises(ServingError, match=sentence):
                ChunkPlayer(remote).start({"state": STATES[0], **keyed}, seed=1)
        with pytest.raises(ServingError, match=f"the server refused: .*{sentence[-30:]}"):
            remote._asked({"state": STATES[0], **keyed}, "act")


def test_a_picture_of_the_request_before_the_first_is_refused(server: Running) -> None:
    with connect(server.url) as remote:
        remote.start(SEED)
        asked = {"state": np.repeat(STATES[:1], T, 0), "execute": "robot", "pictures": [-1] * T}
        with pytest.raises(ServingError, match="pictures: -1 is of the request before, and this is the first one"):
            remote._asked(asked, "plan")


def test_a_foreign_client_that_knows_nothing_of_windows(server: Running) -> None:
    """It sends state and pictures, and has a whole chunk as it would be executed."""
    from websockets.sync.client import connect as open_socket

    with open_socket(server.url, compression=None) as socket:
        socket.recv()
        for state, shown in zip(STATES[:2], SHOWN, strict=False):
            socket.send(wire.encode({"state": state, **{f"camera/{name}": each for name, each in shown.items()}}))
            answer = wire.decode(socket.recv(), most=1 << 20)
            assert answer["actions"].shape == (H, len(SPEC.action))


def test_a_plan_is_soon_there(server: Running) -> None:
    """A coarse bound: two pictures through the socket and the encoder take milliseconds."""
    with connect(server.url) as remote:
        remote.start(SEED)
        began = time.monotonic()
        for state, shown in zip(STATES, SHOWN, strict=True):
            remote.act(state, shown)
        assert time.monotonic() - began < 5.0
