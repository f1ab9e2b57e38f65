"""Broken frames over a real socket: an answer to each, no failure, and the server acts as before."""

from __future__ import annotations

import numpy as np
import pytest
from websockets.sync.client import connect

from bench import frames
from tests.support import small, untrained
from tests.support.serving import running, served
from vqbet.contract import VqbetError
from vqbet.serving import wire
from vqbet.serving.handshake import Handshake
from vqbet.serving.requests import VLLM_PATH
from vqbet.serving.server import ServerOptions

COUNT = 3000  # `python -m bench.serving --fuzz 1000000` sends more
STATE = small.observations(1, 1)[0, 0]
SEEDS = [
    wire.encode({"state": STATE, "session_id": "a", "endpoint": "infer", "prompt": "push"}),
    wire.encode({"endpoint": "reset", "session_id": "b", "seed": 3}),
    wire.encode({"observation.state": np.zeros((untrained.T, len(STATE))), "execute": "robot", "step": 4}),
]


@pytest.mark.slow
def test_every_broken_frame_is_answered() -> None:
    with running(served(untrained.build()), ServerOptions(robots=2, grace_s=0.2)) as own:
        acted = refused = 0
        with connect(own.url + VLLM_PATH, compression=None) as robot:
            robot.recv()
            for frame in frames.mutants(SEEDS, COUNT, 0):
                robot.send(frame)
                answer = wire.decode(robot.recv(timeout=60), most=1 << 20)  # type: ignore[arg-type]
                acted += "actions" in answer
                if answer.get("type") == "error":
                    refused += 1
                    assert "Traceback" not in answer["message"]
                    assert answer["message"] != "the server failed at this request; its log says why", frame
        assert refused > COUNT / 2
        assert acted > COUNT / 100, "mutants that are all refused at the door test nothing behind it"
        with connect(own.url, compression=None) as robot:
            robot.recv()
            robot.send(wire.encode({"state": STATE}))
            assert "actions" in wire.decode(robot.recv(), most=1 << 20)  # type: ignore[arg-type]


def test_broken_frames_of_a_server_end_in_sentences() -> None:
    metadata = wire.encode(served(untrained.build()).handshake.metadata())
    kept = 0
    for frame in frames.mutants([metadata], COUNT, 1):
        try:
            Handshake.of(wire.decode(frame, most=1 << 20))
            kept += 1
        except VqbetError as error:
            said = str(error)
            if len(said) > 600 or "\n" in said:
                pytest.fail(said)
    assert kept < COUNT


def test_mutants_are_the_same_for_a_seed() -> None:
    assert list(frames.mutants(SEEDS, 50, 4)) == list(frames.mutants(SEEDS, 50, 4))
    assert list(frames.mutants(SEEDS, 50, 4)) != list(frames.mutants(SEEDS, 50, 5))
