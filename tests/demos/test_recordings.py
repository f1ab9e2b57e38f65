"""Recorded episodes as demonstrations: what moved the robot, once, beside what was there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.pictures import pictured
from tests.support.recording import handshake, numbers, record
from tests.support.synthetic import synthetic, synthetic_spec
from vqbet.contract import Demonstrations, StoreError
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


def test_recordings_do_not_follow_demonstrations_with_pictures(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"recordings: expected pictures of top, .* but recordings hold none"):
        importer.extended(pictured(2), [accepted(tmp_path)])
