"""The recorder: what is recorded is what ran; trouble is a sentence; what was finished stays, whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.recording import DIGEST, handshake, numbers, record
from vqbet.contract import ServingError
from vqbet.serving import recorder as recording_module
from vqbet.serving import recordings
from vqbet.serving.recorder import Recorder

SPEC = handshake().spec


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path, handshake(), robot="robot-3", operator="ada", session="monday")


def step(recorder: Recorder, **fields: Any) -> None:
    said: dict[str, Any] = {
        "observation": {"state": np.zeros(len(SPEC.observation))},
        "asked": np.zeros(len(SPEC.action)),
        "sent": np.zeros(len(SPEC.action)),
        "time_s": 0.0,
    }
    recorder.step(**{**said, **fields})


def test_what_ran_is_what_is_recorded(tmp_path: Path, recorder: Recorder) -> None:
    held = {"asked": None, "sent": None, "verdict": "hold", "reason": "deadline"}
    person = {"asked": np.ones(2), "intervened": True, "signals": {"entropy": 0.5}}
    folder = record(recorder, seed=7, steps=4, at={0: held, 2: person})
    found = recordings.read(tmp_path, 1)
    found.verify()
    assert folder == tmp_path / "00001"
    assert (found.number, found.steps, found.success) == (1, 4, True)
    facts = found.facts
    assert (facts.digest, facts.robot, facts.operator, facts.session, facts.seed) == (
        DIGEST,
        "robot-3",
        "ada",
        "monday",
        7,
    )
    assert facts.spec == SPEC
    made = numbers(7, 4, SPEC)
    np.testing.assert_array_equal(found.array("observation"), made["observation"])
    np.testing.assert_array_equal(found.array("action"), np.where(np.arange(4)[:, None] == 0, np.nan, made["action"]))
    np.testing.assert_array_equal(found.array("asked")[[0, 2]], [[np.nan, np.nan], [1, 1]])
    np.testing.assert_allclose(found.array("time_s"), [0, 0.1, 0.2, 0.3], atol=1e-12)
    assert found.array("intervention").tolist() == [False, False, True, False]
    assert found.array("verdict").tolist() == [b"hold", b"pass", b"pass", b"pass"]
    assert found.array("reason").tolist() == [b"deadline", b"", b"", b""]
    np.testing.assert_array_equal(found.array("signal/entropy"), [np.nan, np.nan, 0.5, np.nan])


def test_numpy_alone_reads_every_array(tmp_path: Path, recorder: Recorder) -> None:
    folder = record(recorder, steps=70, signals={"surprise": 1.0})
    assert {len(np.load(path, allow_pickle=False)) for path in folder.rglob("*.npy")} == {70}


def test_cameras_are_recorded_by_name_and_copied(tmp_path: Path, recorder: Recorder) -> None:
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    recorder.start(seed=0)
    for _ in range(3):
        step(recorder, observation={"state": np.zeros(4), "camera/wrist": picture[:, ::-1]})
        picture += 1
    recorder.finish(success=None)
    found = recordings.read(tmp_path, 1)
    first = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)[:, ::-1]
    np.testing.assert_array_equal(found.array("camera/wrist"), np.stack([first, first + 1, first + 2]))
    assert found.success is None


def test_an_episode_without_steps_is_recorded(tmp_path: Path, recorder: Recorder) -> None:
    record(recorder, steps=0)
    assert recordings.read(tmp_path, 1).array("action").shape == (0, 2)


def test_recorders_share_a_folder(tmp_path: Path, recorder: Recorder) -> None:
    other = Recorder(tmp_path, handshake())
    recorder.start(seed=0)
    assert record(other).name == "00002"
    assert recordings.listing(tmp_path) == recordings.Listing((2,), ("00001.running",), ())
    step(recorder)
    assert recorder.finish(success=True).name == "00001"
    assert record(recorder).name == "00003"


def test_an_episode_is_discarded_on_request(tmp_path: Path, recorder: Recorder) -> None:
    recorder.start(seed=0)
    step(recorder)
    recorder.discard()
    assert recordings.listing(tmp_path) == recordings.Listing((), (), ())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"observation": {"state": np.zeros(3)}}, r"state: expected shape \(4,\), got \(3,\)"),
        ({"observation": {"gripper": np.zeros(4)}}, "step 1 cannot be recorded: 'state'"),
        (
            {"observation": {"state": np.zeros(4), "camera/wrist": np.zeros((2, 2, 3), np.uint8)}},
            "as at the first step",
        ),
        ({"observation": {"state": np.zeros(4), "camera/wrist": np.zeros((2, 2, 3))}}, "expected .* uint8"),
        ({"observation": {"state": np.zeros(4), "../wrist": np.zeros((2, 2, 3), np.uint8)}}, "expected a name such as"),
        ({"sent": np.zeros(3)}, r"sent: expected shape \(2,\)"),
        ({"signals": {"../x": 1.0}}, "expected a name such as signal/"),
        ({"reason": "x" * 25}, "at most 24 letters"),
    ],
)
def test_what_cannot_be_recorded_is_a_sentence_not_an_exception(
    tmp_path: Path, recorder: Recorder, fields: dict[str, Any], named: str
) -> None:
    recorder.start(seed=0)
    step(recorder)
    step(recorder, **fields)
    with pytest.raises(ServingError, match=named):
        recorder.finish(success=True)
    assert recordings.listing(tmp_path).finished == ()
    assert record(recorder).name == "00002"  # the next episode is recorded; the broken one stays
    assert Recorder(tmp_path, handshake()).interrupted == ("00001.running",)


def test_an_action_that_the_guard_refused_for_its_shape_is_no_trouble(tmp_path: Path, recorder: Recorder) -> None:
    recorder.start(seed=0)
    step(recorder, asked=np.zeros(5), sent=None, verdict="hold", reason="not_finite")
    step(recorder, asked=np.array([np.inf, 1e300]))
    assert recorder.failed == ""
    recorder.finish(success=False)
    np.testing.assert_array_equal(recordings.read(tmp_path, 1).array("asked"), [[np.nan] * 2, [np.inf] * 2])


def test_calls_out_of_order_are_refused(recorder: Recorder) -> None:
    for call in (lambda: step(recorder), lambda: recorder.finish(success=True), recorder.discard):
        with pytest.raises(ServingError, match=r"call start\(seed=\.\.\.\) first"):
            call()
    recorder.start(seed=0)
    with pytest.raises(ServingError, match="finish or discard that episode first"):
        recorder.start(seed=1)
    recorder.discard()


def test_a_text_that_no_store_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="operator: expected at most 256 characters"):
        Recorder(tmp_path, handshake(), operator="a" * 257)


def test_a_disk_that_is_too_slow_is_said(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setattr(recording_module, "MOST_WAITING_BYTES", 10)
    recorder.start(seed=0)
    step(recorder)
    assert "the disk is 10 bytes behind" in recorder.failed
    recorder.discard()


def test_no_episode_begins_on_a_disk_that_is_nearly_full(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setattr(recording_module, "LEAST_FREE_BYTES", 2**70)
    with pytest.raises(ServingError, match="bytes are free, an episode needs"):
        recorder.start(seed=0)


FULL = """
import resource, sys, time
import numpy as np
from pathlib import Path
from tests.support.recording import handshake, record
from vqbet.contract import ServingError
from vqbet.serving.recorder import Recorder

recorder = Recorder(Path(sys.argv[1]), handshake())
record(recorder, seed=1, steps=20)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
recorder.start(seed=2)
for step in range(100_000):
    recorder.step(observation={"state": np.zeros(4)}, asked=np.zeros(2), sent=np.zeros(2), time_s=step / 10)
    if recorder.failed:
        break
print(recorder.failed)
try:
    recorder.finish(success=True)
except ServingError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(record(recorder, seed=3, steps=20).name)
"""


def test_a_full_disk_ends_the_recording_not_the_robot_and_loses_nothing_earlier(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails in the same way."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True, timeout=120)
    failed, raised, after = done.stdout.splitlines()
    assert failed == raised
    assert failed.startswith(f"{tmp_path / '00002.running'}: cannot be recorded: ")
    assert "stop the robot, then the disk is full" in failed
    assert after == "00003"
    assert recordings.listing(tmp_path) == recordings.Listing((1, 3), (), ("00002.running",))
    for number in (1, 3):
        recordings.read(tmp_path, number).verify()


@pytest.mark.parametrize("file", ["action.npy", "episode.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "add"])
def test_damage_is_seen(tmp_path: Path, recorder: Recorder, file: str, damage: str) -> None:
    path = record(recorder) / file
    content = path.read_bytes()
    changed = {"flip": content[:-2] + bytes([content[-2] ^ 1]) + content[-1:], "cut": content[:-3], "add": content}
    path.write_bytes(changed.get(damage, content))
    if damage == "remove":
        path.unlink()
    if damage == "add":
        path.with_name("more.npy").write_bytes(b"")
    with pytest.raises(ServingError):
        verified(tmp_path)


def verified(folder: Path) -> None:
    recordings.read(folder, 1).verify()


def test_an_array_of_another_kind_is_refused(tmp_path: Path, recorder: Recorder) -> None:
    folder = record(recorder)
    found = recordings.read(tmp_path, 1)
    content = (folder / "time_s.npy").read_bytes()
    (folder / "action.npy").write_bytes(content)
    forged = replace(found, files={**found.files, "action.npy": found.files["time_s.npy"]})
    with pytest.raises(ServingError, match=r"expected shape \(5, 2\) of float32, got \(5,\) of float64"):
        forged.array("action")
    with pytest.raises(ServingError, match="is not part of this recording"):
        found.array("camera/wrist")


@pytest.mark.slow
def test_killed_at_random_moments_it_loses_no_finished_episode(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-m", "tests.support.killed_recorder", str(tmp_path / "recordings"), "10"]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout)
    assert seen["kills"] == 10
    assert seen["finished"] > 0
    assert seen["broken_off"] > 0
