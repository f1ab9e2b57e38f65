"""Requests in every dialect, what of them is refused, and answers as each dialect wants them.

frames.json: requests for a state of 8 numbers, as packed by openpi-client 0.1.2 and msgpack-numpy 0.4.8 (base64).
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic import synthetic_spec
from vqbet.contract import Camera, ServingError, VqbetError
from vqbet.serving import requests, wire
from vqbet.serving.handshake import KEY, Handshake
from vqbet.serving.requests import Answer, Dialect, Request

FRAMES = {
    name: base64.b64decode(value)
    for name, value in json.loads((Path(__file__).parent / "frames.json").read_text()).items()
}
STATE = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.5])
SEES = Handshake("d" * 64, "arm@champion", synthetic_spec(D=8, A=8), window=2, chunk=3, execute="first")
LOOKS = replace(SEES, spec=replace(SEES.spec, cameras=(Camera("wrist", 4, 6),)))
TWO, PICTURES = np.array([STATE, STATE]), np.zeros((2, 4, 6, 3), np.uint8)
ANSWER = Answer(np.ones((3, 8), np.float32), step=4, seed=7, codes=(1, 2), signals={"entropy": 0.5}, digest="d" * 64)


def read(message: dict[str, Any], handshake: Handshake = SEES, **about: Any) -> Request:
    return requests.understood(message, requests.spoken(message, **about), handshake)


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("openpi infer", Dialect.OPENPI),
        ("openpi infer, float64", Dialect.OPENPI),
        ("roboarena infer", Dialect.ROBOARENA),
        ("vllm infer", Dialect.VLLM),
        ("vllm infer, nd markers", Dialect.VLLM),
    ],
)
def test_recorded_requests_of_all_dialects_are_one_request(name: str, dialect: Dialect) -> None:
    request = read(wire.decode(FRAMES[name], most=1 << 20))
    assert request.dialect is dialect
    assert request.state is not None
    np.testing.assert_allclose(request.state, STATE, rtol=1e-6)
    assert not request.reset
    assert not request.own
    assert bool(request.session) is (dialect is not Dialect.OPENPI)


@pytest.mark.parametrize(
    ("name", "before", "dialect"),
    [
        ("roboarena reset", Dialect.ROBOARENA, Dialect.ROBOARENA),
        ("roboarena reset", None, Dialect.VLLM),
        ("vllm reset", None, Dialect.VLLM),
        ("vllm reset", Dialect.VLLM, Dialect.VLLM),
    ],
)
def test_recorded_resets(name: str, before: Dialect | None, dialect: Dialect) -> None:
    request = read(wire.decode(FRAMES[name], most=1 << 20), before=before)
    assert request.reset
    assert request.state is None
    assert request.dialect is dialect


def test_the_path_of_vllm_decides() -> None:
    arm = wire.decode(FRAMES["roboarena infer"], most=1 << 20)
    assert requests.spoken(arm, path="/v1/realtime/robot/openpi") is Dialect.VLLM
    assert requests.spoken(arm, path="/anything") is Dialect.ROBOARENA


def test_our_own_reset_is_no_foreign_dialect() -> None:
    request = read({"endpoint": "reset", "seed": 3})
    assert request.dialect is Dialect.OPENPI
    assert request.seed == 3
    assert request.own


def test_all_of_our_keys() -> None:
    picture = np.zeros((2, 4, 6, 3), np.uint8)
    message = {
        "state": np.zeros((2, 8), np.float32),
        "camera/wrist": picture,
        "goal": np.zeros(2, np.float32),
        "seed": np.int64(5),
        "step": 6,
        "execute": "robot",
        "digest": "d" * 64,
        "prompt": 3,
    }
    request = read(message, LOOKS)
    assert (request.seed, request.step, request.execute, request.own) == (5, 6, "robot", True)
    assert request.state.shape == (2, 8)
    assert request.cameras["wrist"] is picture


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({}, "expected the observation as `state`, .* got none of them"),
        ({"prompt": "push"}, "got none of them"),
        ({"state": STATE, "observation/state": STATE}, "got state, observation/state"),
        ({"observation/joint_position": STATE[:7]}, "got observation/joint_position"),
        ({"state": STATE, "observation/gripper_position": STATE[7:]}, "got state, observation/gripper_position"),
        ({"state": STATE, "velocity": STATE}, "key 'velocity' is unknown"),
        ({"state": STATE, "observation/wrist_image_left": STATE}, "key 'observation/wrist_image_left' is unknown"),
        ({"state": STATE.tolist()}, "state: expected an array of real numbers .* got list"),
        ({"state": "x" * 1000}, "state: expected an array"),
        ({"state": STATE.astype(bool)}, "got bool of shape"),
        ({"state": np.zeros((1, 2, 8))}, r"got float64 of shape \(1, 2, 8\)"),
        ({"state": np.zeros(())}, r"got float64 of shape \(\)"),
        ({"observation/joint_position": STATE[None, :7], "observation/gripper_position": STATE[7:]}, "shape"),
        ({"state": STATE, "camera/wrist": np.zeros((4, 6, 3), np.float32)}, r"expected uint8 of shape \(4, 6, 3\)"),
        ({"state": STATE, "camera/wrist": np.zeros((6, 4, 3), np.uint8)}, r"got uint8 of shape \(6, 4, 3\)"),
        ({"state": STATE, "camera/wrist": b"jpeg"}, "camera/wrist: expected uint8 .* got bytes"),
        ({"state": STATE, "camera/chest": np.zeros((4, 6, 3), np.uint8)}, "no such camera; it sees wrist"),
        ({"state": STATE, "camera/wrist": np.zeros((3, 4, 6), np.uint8)}, "its channels come first; move them last"),
        ({"state": STATE}, r"camera/wrist: expected uint8 of shape \(4, 6, 3\), RGB, got none; send one of every"),
        ({"state": STATE, "camera/wrist": PICTURES[0], "pictures": [0]}, "pictures: belongs to the last T steps"),
        ({"state": TWO, "camera/wrist": PICTURES[0]}, r"expected uint8 of shape \(2, 4, 6, 3\)"),
        ({"state": TWO, "camera/wrist": PICTURES[:1]}, r"expected uint8 of shape \(2, 4, 6, 3\)"),
        ({"state": TWO, "camera/wrist": PICTURES, "pictures": [0, 2]}, "expected 2 whole numbers from -2 to 1"),
        ({"state": TWO, "camera/wrist": PICTURES, "pictures": [0, -3]}, "expected 2 whole numbers from -2 to 1"),
        ({"state": TWO, "camera/wrist": PICTURES, "pictures": [0]}, "expected 2 whole numbers"),
        ({"state": TWO, "camera/wrist": PICTURES, "pictures": [0, True]}, "expected 2 whole numbers"),
        ({"state": TWO, "camera/wrist": PICTURES, "pictures": STATE}, "expected 2 whole numbers"),
        ({"state": TWO, "camera/wrist": 1, "pictures": [-1, -1]}, "camera/wrist: expected uint8 .* got int"),
        ({"state": TWO, "pictures": [-1, 0]}, "expected 2 whole numbers from -2 to -1"),
        ({"state": STATE, "endpoint": "stop"}, "endpoint: expected infer or reset, got 'stop'"),
        ({"state": STATE, "endpoint": np.zeros(3)}, "endpoint: expected"),
        ({"state": STATE, "session_id": 7}, "session_id: expected text"),
        ({"state": STATE, "session_id": "x" * 201}, "session_id: expected text of at most 200"),
        ({"state": STATE, "goal": [0.0]}, "goal: expected an array"),
        ({"state": STATE, "seed": -1}, "seed: expected a whole number"),
        ({"state": STATE, "seed": 2**63}, "seed: expected a whole number"),
        ({"state": STATE, "seed": True}, "seed: expected a whole number"),
        ({"state": STATE, "seed": 1.0}, "seed: expected a whole number"),
        ({"state": STATE, "seed": np.zeros(2)}, "seed: expected a whole number"),
        ({"state": STATE, "step": -1}, "step: expected a whole number"),
        ({"state": STATE, "step": "1"}, "step: expected a whole number"),
        ({"state": STATE, "execute": "me"}, "execute: expected server or robot, got 'me'"),
        ({"state": STATE, "execute": STATE}, "execute: expected server or robot"),
        ({"state": STATE, "digest": "e" * 64}, "digest: 'eeee.*' was asked for, dddd.* is served here"),
        ({"state": STATE, "digest": STATE}, "digest: .* was asked for"),
    ],
)
def test_what_is_no_request_is_refused(message: dict[str, Any], sentence: str) -> None:
    with pytest.raises(VqbetError, match=sentence):
        read(message, LOOKS)


def test_no_camera_is_taken_by_a_policy_without() -> None:
    with pytest.raises(ServingError, match="no such camera; it sees none"):
        read({"state": STATE, "camera/wrist": np.zeros((4, 6, 3), np.uint8)})


def test_a_reply_holds_no_array_but_chunks() -> None:
    """openpi's chunk broker slices every array of a reply at the step."""
    message = wire.decode(requests.reply(ANSWER, {"infer_ms": 1.5}), most=1 << 20)
    arrays = {key: value for key, value in message.items() if isinstance(value, np.ndarray)}
    assert arrays.keys() == {"actions"}
    np.testing.assert_array_equal(message["actions"], ANSWER.actions)
    assert message["server_timing"] == {"infer_ms": 1.5}
    said = {"step": 4, "seed": 7, "codes": [1, 2], "signals": {"entropy": 0.5}, "digest": "d" * 64}
    assert message[KEY] == said


def test_a_singular_reply_is_one_action() -> None:
    message = wire.decode(requests.reply(ANSWER, {}, singular=True), most=1 << 20)
    assert message["action"].shape == (8,)
    assert "actions" not in message


def test_resets_and_errors_are_answered_in_the_dialect() -> None:
    assert requests.restarted(Dialect.ROBOARENA, 3, "d") == "reset successful"
    for dialect in (Dialect.OPENPI, Dialect.VLLM):
        message = wire.decode(requests.restarted(dialect, 3, "d"), most=1000)  # type: ignore[arg-type]
        assert message == {"status": "reset successful", KEY: {"step": 0, "seed": 3, "digest": "d"}}
    for dialect in (Dialect.OPENPI, Dialect.ROBOARENA):
        assert requests.refused(dialect, "no such key") == "no such key"
    refused = wire.decode(requests.refused(Dialect.VLLM, "no such key"), most=1000)  # type: ignore[arg-type]
    assert refused == {"type": "error", "message": "no such key"}


def test_an_error_is_one_line_of_at_most_a_thousand_characters() -> None:
    said = requests.refused(Dialect.OPENPI, "a\nb " * 1000)
    assert isinstance(said, str)
    assert "\n" not in said
    assert len(said) <= 1000
