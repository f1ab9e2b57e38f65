"""Limits of the guard: of the spec, of a handshake, and of a robot's own file, which can only tighten."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import branches
from tests.support.guarded import handshake, spec
from vqbet.contract import SLACK, Camera, Channel, ServingError, Spec
from vqbet.policies.familiarity import LOOKS
from vqbet.serving import limits as module
from vqbet.serving.limits import Limits, listed, read

SHIPPED = {
    "rate": [0.5, 0.25],
    "acceleration": [0.5, 0.5],
    "start_low": [-0.25, -0.25],
    "start_high": [0.25, 0.25],
    "observation_low": [-0.5, -0.5, -1.25],
    "observation_high": [0.5, 0.5, 1.25],
}
SAID = handshake(spec(2, 3), SHIPPED)
OWN = """
patience = 2
max_age_s = 0.05

[action.a1]
high = 0.5
rate = 0.125
acceleration = 0.25
start_low = -0.125

[observation.o2]
low = -1
"""


def test_a_spec_alone_gives_the_widest() -> None:
    found = Limits.of(handshake(spec(2, 3)))
    assert (found.low.tolist(), found.high.tolist()) == ([-1, -1], [1, 1]) == (found.start_low.tolist(), [1, 1])
    assert (found.rate.tolist(), found.acceleration.tolist()) == ([2, 2], [4, 4])
    assert found.observation_high.tolist() == [1 + 2 * SLACK] * 3
    assert (found.max_age_s, found.patience) == (2 / 16, 3)


def test_limits_of_actions_are_float32_as_actions_are() -> None:
    """A policy clamps to the limit in float32, which may lie beyond it."""
    channel = Channel("a0", "m", -0.1, 0.1)
    found = Limits.of(handshake(replace(spec(1, 1), action=(channel,))))
    assert found.high[0] == float(np.float32(0.1)) > 0.1
    assert found.low.dtype == np.float64


def test_the_handshake_narrows_it() -> None:
    found = Limits.of(SAID)
    assert {name: getattr(found, name).tolist() for name in SHIPPED} == SHIPPED
    assert found.high.tolist() == [1, 1]


def test_a_robots_own_file_tightens(tmp_path: Path) -> None:
    path = tmp_path / "robot-3.toml"
    path.write_text(OWN, encoding="utf-8")
    own = read(path)
    found = Limits.of(SAID, own)
    assert (found.patience, found.max_age_s) == (2, 0.05)
    assert type(found.patience) is int
    assert (found.high.tolist(), found.low.tolist()) == ([1, 0.5], [-1, -1])
    assert (found.rate.tolist(), found.acceleration.tolist()) == ([0.5, 0.125], [0.5, 0.25])
    assert found.start_low.tolist() == [-0.25, -0.125]
    assert found.observation_low.tolist() == [-0.5, -0.5, -1]
    as_json = tmp_path / "robot-3.json"
    as_json.write_text(json.dumps(own), encoding="utf-8")
    assert read(as_json) == own
    assert SAID.limits == SHIPPED, "nothing given was changed"


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"action": {"a1": {"rate": 0.26}}},
        r"robot: action 'a1': rate: 0.26 is wider than 0.25; limits can only be tight",
    ),
    ({"action": {"a0": {"low": -1.1}}}, r"action 'a0': low: -1.1 is wider than -1;"),
    ({"action": {"a0": {"high": 1.1}}}, r"action 'a0': high: 1.1 is wider than 1;"),
    ({"observation": {"o0": {"high": 0.6}}}, r"observation 'o0': high: 0.6 is wider than 0.5;"),
    ({"max_age_s": 0.2}, r"max_age_s: 0.2 is wider than 0.125;"),
    ({"patience": 4}, r"patience: 4 is wider than 3;"),
    ({"patience": 1.5}, r"patience: expected a whole number from 1, got 1.5"),
    ({"patience": 0}, r"patience: expected a whole number from 1, got 0"),
    ({"max_age_s": 0.0}, r"max_age_s: expected a time above 0, got 0"),
    ({"max_age_s": "fast"}, r"max_age_s: expected a finite number, got 'fast'"),
    ({"action": {"a0": {"rate": True}}}, r"action 'a0': rate: expected a finite number, got True"),
    ({"action": {"a0": {"rate": math.nan}}}, r"action 'a0': rate: expected a finite number, got nan"),
    ({"action": {"a0": {"rate": 10**400}}}, r"action 'a0': rate: expected a finite number, got 1000"),
    ({"action": {"a0": {"rate": -0.1}}}, r"'a0': rate: expected 0 or more, got -0.1"),
    ({"action": {"a0": {"low": 0.5, "high": 0.25}}}, r"'a0': nothing lies between low 0.5 and high 0.25"),
    ({"action": {"a9": {"rate": 0.1}}}, r"robot: action: 'a9' is unknown; there are a0, a1"),
    ({"action": {"a0": {"speed": 0.1}}}, r"action 'a0': 'speed' is unknown; there are low, high, rate, acceleration"),
    ({"observation": {"o0": {"rate": 0.1}}}, r"observation 'o0': 'rate' is unknown; there are low, high"),
    ({"camera": {}}, r"robot: 'camera' is unknown; there are max_age_s, patience, action, observation"),
    ({"action": [1, 2]}, r"robot: action: expected limits by name, got \[1, 2\]"),
    ({"action": {"a0": 0.5}}, r"action 'a0': expected limits by name, got 0.5"),
]
SAID_WRONG: list[tuple[dict[str, list[float]], str]] = [
    ({"speed": [1.0, 1.0]}, r"limits of the policy: speed: expected one number for each channel of low, high, rate"),
    ({"rate": [0.5]}, r"limits of the policy: rate: expected one number for each channel .*, got 1"),
    ({"rate": [0.5, 2.5]}, r"limits of the policy: rate: 'a1': 2.5 is wider than 2;"),
    ({"observation_low": [-9, 0, 0]}, r"limits of the policy: observation_low: 'o0': -9 is wider than -1.5;"),
    ({"rate": [0.5, math.inf]}, r"limits of the policy: rate: 'a1': expected a finite number, got inf"),
]
LIMITLESS: list[tuple[Spec, str]] = [
    (replace(spec(1, 1), action=(Channel("a0", "m", -1.0, math.inf),)), "'a0': expected a finite number, got inf"),
    (replace(spec(1, 1), observation=(Channel("o0", "m", math.nan, 1.0),)), "'o0': expected a finite number, got nan"),
    (replace(spec(1, 1), action=(Channel("a0", "m", 1.0, -1.0),)), "'a0': nothing lies between 1 and -1"),
    (replace(spec(1, 1), control_hz=math.nan), "control_hz: expected a finite number, got nan"),
    (replace(spec(1, 1), control_hz=0.0), "control_hz: expected a rate above 0, got 0"),
]
FILES = [
    ("limits.toml", b"a = ", r"limits.toml: is not what it should be: .*; expected TOML"),
    ("limits.toml", b"\xff", "is not UTF-8 text"),
    ("limits.json", b"[1]", "limits.json: expected limits by name, got list"),
    ("limits.json", b'{"a": NaN}', "is not strict JSON"),
    ("limits.yaml", b"", r"limits.yaml: expected a file of limits whose name ends with .toml or .json"),
    ("missing.toml", None, "missing.toml: cannot be read"),
]


@pytest.mark.parametrize(("own", "sentence"), WRONG)
def test_what_does_not_tighten_is_refused(own: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ServingError, match=sentence):
        Limits.of(SAID, own)


@pytest.mark.parametrize(("said", "sentence"), SAID_WRONG)
def test_a_server_cannot_widen_the_spec(said: dict[str, list[float]], sentence: str) -> None:
    with pytest.raises(ServingError, match=sentence):
        Limits.of(handshake(spec(2, 3), said))


@pytest.mark.parametrize(("of", "sentence"), LIMITLESS)
def test_a_spec_without_limits_cannot_be_guarded(of: Spec, sentence: str) -> None:
    with pytest.raises(ServingError, match=f"limits of the spec: {sentence}"):
        Limits.of(handshake(of))


@pytest.mark.parametrize(("name", "content", "sentence"), FILES)
def test_a_file_that_is_none_is_a_sentence(tmp_path: Path, name: str, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ServingError, match=sentence):
        read(tmp_path / name)


def test_a_component_is_listed_as_a_handshake_says_it() -> None:
    component = {"limit.rate": np.array([0.5, 0.25]), "signal.entropy": np.array([1.0])}
    assert listed(component, module.LIMIT) == {"rate": [0.5, 0.25]}
    assert listed(component, module.SIGNAL) == {"entropy": [1.0]}


SEEN = replace(spec(2, 3), cameras=(Camera("top", 40, 40), Camera("wrist", 32, 32)))
BLIND: list[tuple[dict[str, Any], str]] = [
    ({"camera": {"chest": {"still": 1}}}, "robot: camera: 'chest' is unknown; there are top, wrist"),
    ({"camera": {"top": {"high": 1}}}, "robot: camera 'top': 'high' is unknown; there are distance, still"),
    ({"camera": {"wrist": {"distance": 1.5}}}, "robot: camera 'wrist': distance: 1.5 is wider than 1;"),
    ({"camera": {"wrist": {"still": 9}}}, "robot: camera 'wrist': still: 9 is wider than 8;"),
    ({"camera": {"top": {"still": -1}}}, "'top': camera_still: expected 0 or more, got -1"),
    ({"camera": {"top": {"low": 3}}}, "robot: camera 'top': 'low' is unknown; there are distance, still"),
]


def test_limits_of_cameras_come_with_the_policy_and_tighten() -> None:
    alone = Limits.of(handshake(SEEN))
    assert (alone.camera_distance.tolist(), alone.camera_still.tolist()) == ([1, 1], [math.inf, math.inf])
    said = handshake(SEEN, {"camera_still": [5.0, 8.0]})
    found = Limits.of(said, {"camera": {"wrist": {"distance": 0.5, "still": 3}}})
    assert (found.camera_distance.tolist(), found.camera_still.tolist()) == ([1, 0.5], [5, 3])
    for own, sentence in BLIND:
        with pytest.raises(ServingError, match=sentence):
            Limits.of(said, own)
    with pytest.raises(ServingError, match=r"limits of the policy: camera_high: 'wrist': 256 is wider than 255"):
        Limits.of(handshake(SEEN, {"camera_high": [255.0] * (2 * len(LOOKS) - 1) + [256.0]}))
    with pytest.raises(ServingError, match="limits of the policy: camera_still: expected one number for each channel"):
        Limits.of(handshake(SEEN, {"camera_still": [5.0]}))
    with pytest.raises(ServingError, match=r"limits of the policy: camera_distance: 'wrist': 2 is wider than 1"):
        Limits.of(handshake(SEEN, {"camera_distance": [1.0, 2.0]}))


def test_every_branch_of_the_limits_is_taken(tmp_path: Path) -> None:
    def everything() -> None:
        test_a_spec_alone_gives_the_widest()
        test_a_robots_own_file_tightens(tmp_path)
        test_a_component_is_listed_as_a_handshake_says_it()
        test_limits_of_cameras_come_with_the_policy_and_tighten()
        for own, sentence in WRONG:
            test_what_does_not_tighten_is_refused(own, sentence)
        for said, sentence in SAID_WRONG:
            test_a_server_cannot_widen_the_spec(said, sentence)
        for of, sentence in LIMITLESS:
            test_a_spec_without_limits_cannot_be_guarded(of, sentence)
        for each in FILES:
            test_a_file_that_is_none_is_a_sentence(tmp_path, *each)

    assert branches.untaken(module, everything) == []
