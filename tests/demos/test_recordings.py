"""Recorded episodes as demonstrations: what moved the robot, once, beside what was there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.pictures import pictured
from tests.support.recording import handshake, numbers, record
from tests.support.synthetic import synthetic, synthetic_spec
from vqbet.contract import Demonstrations, ServingError, Spec, StoreError
from vqbet.demos import store
from vqbet.demos.importers import recordings as importer
from vqbet.demos.importers.recordings import Accepted
from vqbet.demos.validation import validate
from vqbet.demos.validation.knowledge import Knowledge
from vqbet.serving import recordings
from vqbet.serving.recorder import Recorder

NOTHING: dict[str, Any] = {"asked": None, "sent": None, "verdict": "hold", "reason": "deadline"}


def accepted(folder: Path, **fields: Any) -> Accepted:
    recorder = Recorder(folder, handshake(), robot="robot-3", operator="ada", session="monday")
    path = record(recorder, **fields)
    return Accepted(recordings.read(folder, int(path.name)), success=True)


def checked(demos: Demonstrations) -> validate.Report:
    bounds = {"min_steps": 2, "max_steps": 100, "max_saturated": 0.5, "max_duplicates": 0.0, "min_success": 0.0}
    return validate.validate(demos, Knowledge(), **bounds)


def test_recordings_follow_the_present_demonstrations(tmp_path: Path) -> None:
    present = synthetic(3)
    new = accepted(tmp_path, seed=5, steps=6, at={2: {"intervened": True}})
    demos = importer.extended(present, [new])
    made, first = numbers(5, 6, present.spec), present.episode_ends[-1]
    assert demos.lengths.tolist() == [*present.lengths.tolist(), 6]
    np.testing.assert_array_equal(demos.action[:first], present.action)
    np.testing.assert_array_equal(demos.action[first:], made["action"])
    np.testing.assert_array_equal(demos.observation[first:], made["observation"])
    np.testing.assert_allclose(demos.time_s[first:], np.arange(6) / 10, atol=1e-12)
    assert demos.intervention is not None
    assert np.flatnonzero(demos.intervention).tolist() == [first + 2]
    last = {name: column[-1] for name, column in demos.columns.items()}
    assert last == {
        "session": "monday",
        "operator": "ada",
        "source": f"recording {new.recording.digest}",
        "seed": -1,
        "success": True,
        "task": "synthetic",
    }
    assert importer.known(demos) == {new.recording.digest}
    assert importer.known(present) == set()


def test_they_are_stored_and_validated_and_the_others_keep_their_states(tmp_path: Path) -> None:
    present = synthetic(3)
    demos = importer.extended(present, [accepted(tmp_path, steps=30)])
    store.write(tmp_path / "demo.zarr", demos)
    found = store.read(tmp_path / "demo.zarr")
    assert store.recorded(tmp_path / "demo.zarr")
    assert found.stateless.tolist() == [False, False, False, True]
    assert found.state is not None
    assert present.state is not None
    np.testing.assert_array_equal(found.state[: len(present.state)], present.state)
    assert not [each for each in checked(found).errors if each.field == "state"]
    found.state[-5] = 0.0  # an episode has states or has none
    assert {each.field for each in checked(found).errors if each.check == "finite"} == {"state"}
    found.state[...] = np.nan  # and data in which no episode has states holds none
    assert {each.field for each in checked(found).errors if each.check == "finite"} == {"state"}


def test_they_make_demonstrations_alone(tmp_path: Path) -> None:
    demos = importer.extended(None, [accepted(tmp_path, seed=seed) for seed in range(2)])
    assert demos.state is None
    assert demos.episode_ends.tolist() == [5, 10]


def test_further_recordings_leave_earlier_marks(tmp_path: Path) -> None:
    one = importer.extended(synthetic(2), [accepted(tmp_path, intervened=True)])
    two = importer.extended(one, [accepted(tmp_path, seed=1)])
    assert two.intervention is not None
    assert two.intervention.sum() == 5
    assert two.stateless.tolist() == [False, False, True, True]


def test_an_episode_begins_and_ends_with_an_action_that_was_sent(tmp_path: Path) -> None:
    new = accepted(tmp_path, seed=3, steps=9, at={0: NOTHING, 1: NOTHING, 8: {**NOTHING, "verdict": "stop"}})
    demos = importer.extended(None, [new])
    np.testing.assert_array_equal(demos.action, numbers(3, 9, demos.spec)["action"][2:8])
    assert demos.time_s[0] == 0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"at": {2: NOTHING}}, "recording 1: nothing was sent at step 2, in the middle of its motion"),
        ({"at": {2: NOTHING, 3: NOTHING}}, "at step 2 and 1 more, in the middle"),
        ({"sent": None}, "recording 1: no action was sent at any of 5 steps"),
    ],
)
def test_an_episode_with_gaps_is_refused(tmp_path: Path, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(StoreError, match=named):
        importer.extended(None, [accepted(tmp_path, **fields)])


def test_another_spec_is_refused(tmp_path: Path) -> None:
    present = replace(synthetic(2), spec=replace(synthetic_spec(), control_hz=20.0))
    with pytest.raises(StoreError, match=r"recording 1: is of another spec .* control_hz: 20.0 here, 10.0 there"):
        importer.extended(present, [accepted(tmp_path)])


def seeing(folder: Path, *, spec: Spec, steps: int = 6, number: int = 1, **pictures: np.ndarray) -> Accepted:
    """Record an episode with pictures by camera, and one of a camera that no policy sees."""
    recorder, made = Recorder(folder, handshake(spec)), numbers(number, steps, spec)
    recorder.start(seed=0)
    for step in range(steps):
        shown = {f"camera/{name}": each[step] for name, each in pictures.items()}
        shown["camera/scene"] = np.full((8, 8, 3), step, np.uint8)
        sent = made["action"][step] if step else None  # nothing at first
        recorder.step(
            observation={"state": made["observation"][step], **shown}, asked=sent, sent=sent, time_s=step / 10
        )
    recorder.finish(success=True)
    return Accepted(recordings.read(folder, number), success=True)


def test_pictures_follow_those_of_the_present_demonstrations(tmp_path: Path) -> None:
    """From the recorder's files to the store's shards, and further on into one more version."""
    present = pictured(2)
    (camera,) = present.spec.cameras
    shown = np.random.default_rng(0).integers(0, 256, (12, *camera.shape), np.uint8)
    one = seeing(tmp_path / "recordings", spec=present.spec, top=shown[:6])
    two = seeing(tmp_path / "recordings", spec=present.spec, number=2, top=shown[6:])
    before = len(present.action)
    store.write(tmp_path / "demo.zarr", importer.extended(present, [one]))
    store.write(tmp_path / "demo.zarr", importer.extended(store.read(tmp_path / "demo.zarr"), [two]))
    found = store.verify(tmp_path / "demo.zarr")
    assert set(found.cameras) == {"top"}, "a camera of nobody's spec is left out"
    frames = found.cameras["top"]
    assert frames.shape == (before + 10, *camera.shape)
    np.testing.assert_array_equal(frames[np.arange(before)], present.cameras["top"][np.arange(before)])
    kept = np.concatenate([shown[1:6], shown[7:]])  # from the first action that was sent
    np.testing.assert_array_equal(frames[np.arange(before, before + 10)], kept)
    joined = importer.extended(present, [one]).cameras["top"]
    np.testing.assert_array_equal(joined[np.array([[before, 0], [1, before + 4]])][0, 0], shown[1])
    for step in (-1, before + 5):
        with pytest.raises(IndexError, match="expected steps from 0 to"):
            joined[np.array([0, step])]


def test_a_recording_without_a_camera_or_of_another_size_is_refused(tmp_path: Path) -> None:
    present = pictured(2)
    (camera,) = present.spec.cameras
    blind = replace(present.spec, cameras=())
    with pytest.raises(StoreError, match=r"recording 1: is of another spec .* camera 'top': .* here, none there"):
        importer.extended(present, [seeing(tmp_path / "blind", spec=blind)])
    one = seeing(tmp_path / "seen", spec=present.spec, top=np.zeros((6, *camera.shape), np.uint8))
    files = {name: entry for name, entry in one.recording.files.items() if name != "camera/top.npy"}
    lost = Accepted(replace(one.recording, files=files), success=True)
    with pytest.raises(ServingError, match=r"camera/top\.npy: is not part of this recording, whose cameras are scene"):
        importer.extended(present, [lost])
    path = one.recording.folder / "camera" / "top.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ServingError, match=r"camera/top\.npy: .*damaged: its sha256 is not the one in manifest"):
        importer.extended(present, [one])


def test_a_recorder_takes_no_step_without_the_policys_cameras(tmp_path: Path) -> None:
    spec = pictured(2).spec
    recorder = Recorder(tmp_path, handshake(spec))
    recorder.start(seed=0)
    state = np.zeros(len(spec.observation))
    recorder.step(observation={"state": state}, asked=None, sent=None, time_s=0.0)
    assert "step 0 cannot be recorded: camera/top: expected uint8 of shape" in recorder.failed


def test_an_episode_needs_room_for_a_minute_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = pictured(2).spec
    (camera,) = spec.cameras
    needs = 2**26 + round(camera.height * camera.width * 3 * spec.control_hz * 60)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needs - 1))
    with pytest.raises(ServingError, match=f"{needs - 1} bytes are free, an episode needs {needs}"):
        Recorder(tmp_path, handshake(spec)).start(seed=0)
