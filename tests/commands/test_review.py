"""Review and ingest of recordings: a person looks at what was unusual, and nothing else comes into the data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.support.recording import handshake, record
from vqbet import config
from vqbet.__main__ import app
from vqbet.commands import ingest, origin, review
from vqbet.commands import recordings as recorded
from vqbet.contract import ServingError, StoreError, ValidationError
from vqbet.demos import store
from vqbet.serving import recordings
from vqbet.serving.recorder import Recorder
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import TASKS

FIRED = {"verdict": "hold", "reason": "rate"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One ordinary recording, and one for each reason to look at it."""
    recorder = Recorder(tmp_path / "recordings", handshake(), robot="robot-3", operator="ada")
    record(recorder)
    record(recorder, seed=1, success=False)
    record(recorder, seed=2, at={3: {"intervened": True}})
    record(recorder, seed=3, at={1: FIRED, 2: FIRED})
    record(recorder, seed=4, success=None)
    recorder.start(seed=5)
    return tmp_path / "recordings"


def reviewed(folder: Path) -> dict[int, review.Reviewed]:
    return {each.number: each for each in review.run(folder)[0]}


def open_ones(folder: Path) -> list[int]:
    return [number for number, each in reviewed(folder).items() if each.open]


def test_each_reason_is_said(folder: Path) -> None:
    assert {number: each.reasons for number, each in reviewed(folder).items()} == {
        1: (),
        2: ("it failed",),
        3: ("a person acted at 1 of 5 steps",),
        4: ("the guard fired: hold 2 of 5 steps (rate)",),
        5: ("no answer whether it succeeded",),
    }
    assert open_ones(folder) == [2, 3, 4, 5]


def test_a_decision_is_kept_and_bound_to_its_recording(folder: Path) -> None:
    review.mark(folder, accept=[3, 4], reject=[2], success=[5], note="looked at the video")
    assert open_ones(folder) == []
    assert reviewed(folder)[5].success is True
    assert reviewed(folder)[3].decision.note == "looked at the video"
    path = folder / "00003" / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"note": ""', '"note": "changed"'), encoding="utf-8")
    assert open_ones(folder) == [3]
    assert reviewed(folder)[3].reasons == ("it changed since it was reviewed", "a person acted at 1 of 5 steps")


def test_an_accepted_recording_needs_an_answer_too(folder: Path) -> None:
    review.mark(folder, accept=[5])
    assert "accepted, but nobody says whether it succeeded" in reviewed(folder)[5].sentence()
    assert 5 in open_ones(folder)
    review.mark(folder, failure=[5])  # a failure is looked at, which it was
    assert 5 not in open_ones(folder)
    assert reviewed(folder)[5].success is False


def test_a_damaged_recording_waits_and_can_be_rejected(folder: Path) -> None:
    (folder / "00001" / "verdict.npy").write_bytes(b"")
    assert 1 in open_ones(folder)
    assert "damaged" in reviewed(folder)[1].sentence()
    review.mark(folder, accept=[1])
    assert 1 in open_ones(folder)
    review.mark(folder, reject=[1])
    assert 1 not in open_ones(folder)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"accept": [9]}, "there is no finished recording 9; there are 1-5"),
        ({"accept": [1], "reject": [1]}, "recording 1: is named for a decision and for its opposite"),
        ({"success": [1], "failure": [1]}, "recording 1: is named for a decision and for its opposite"),
    ],
)
def test_a_decision_that_cannot_be_meant_is_refused(folder: Path, said: dict[str, Any], named: str) -> None:
    with pytest.raises(ServingError, match=named):
        review.mark(folder, **said)
    assert not (folder / review.NAME).exists()


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"format": "vqbet review", "version": 1, "decisions": {"1": {}}}']
)
def test_a_review_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / review.NAME).write_text(content, encoding="utf-8")
    with pytest.raises(ServingError, match=r"review\.json"):
        review.run(folder)


def test_numbers_and_spans() -> None:
    assert review.numbers("3, 5-7,") == [3, 5, 6, 7]
    assert review.numbers("") == []
    for text in ("a", "3-", "-3", "5-3", "1-9999999", "3.5"):
        with pytest.raises(ServingError, match="expected"):
            review.numbers(text)


def test_the_command_lists_marks_and_names_what_was_broken_off(folder: Path) -> None:
    (folder / "00009.running").mkdir()  # nobody holds its lock
    shown = CliRunner().invoke(app, ["review", str(folder), "--reject", "2", "--accept", "3-4"]).output
    assert "it failed  [rejected]" in shown
    assert "00009.running  broken off" in shown
    assert "00006.running" not in shown, "it is being recorded"
    assert "nothing unusual" not in shown
    assert "5 recordings, 1 without a decision" in shown
    assert "nothing unusual" in CliRunner().invoke(app, ["review", str(folder), "--all"]).output
    assert set(json.loads((folder / review.NAME).read_text(encoding="utf-8"))["decisions"]) == {"2", "3", "4"}


class Robot:
    """A project with ten BlockPush demonstrations, and recordings that replay some of their actions elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.paths = root, root / "recordings", Paths(root, "blockpush")
        shipped = config.task(Path(__file__).parents[2] / "params.yaml", "blockpush")
        self.params = shipped.model_copy(update={"demos": shipped.demos.model_copy(update={"episodes": 10})})
        oracle = TASKS["blockpush"].oracle
        assert oracle is not None
        self.shown = oracle(14, 500, None)
        store.write(self.paths.store, oracle(10, 0, None))
        self.recorder = Recorder(self.folder, handshake(self.shown.spec), robot="robot-3", operator="ada")

    def record(self, episode: int, **fields: Any) -> None:
        first, end = self.shown.episode_starts[episode], self.shown.episode_ends[episode]
        self.recorder.start(seed=episode)
        for place, step in enumerate(range(first, end)):
            action, state = self.shown.action[step], {"state": self.shown.observation[step]}
            self.recorder.step(observation=state, asked=action, sent=action, time_s=place / 10, **fields)
        self.recorder.finish(success=True)

    def ingest(self) -> recorded.Collected:
        return recorded.collect(self.root, "blockpush", self.params, self.folder, Watch())


@pytest.fixture
def robot(tmp_path: Path) -> Robot:
    return Robot(tmp_path)


@pytest.mark.slow
def test_reviewed_recordings_become_the_next_version_once(robot: Robot) -> None:
    robot.record(0)
    robot.record(1, intervened=True)
    before = store.digest(robot.paths.store)
    with pytest.raises(StoreError, match=r"1 of 2 recordings wait for a person's decision(.|\n)*\n  2  "):
        robot.ingest()
    assert store.digest(robot.paths.store) == before
    review.mark(robot.folder, accept=[2])
    made = robot.ingest()
    demos = store.read(robot.paths.store)
    assert (made.made, made.episodes, made.digest) == (True, 12, demos.digest)
    assert demos.intervention is not None
    assert demos.intervention.sum() == robot.shown.lengths[1]
    assert f"demonstrations {before[:12]} and 2 recordings" in origin.told(robot.paths, demos.digest)
    again = robot.ingest()
    assert (again.made, again.episodes, again.digest) == (False, 12, demos.digest)
    robot.record(2)
    assert robot.ingest().episodes == 13
    with pytest.raises(StoreError, match="holds episodes recorded on a robot, which would be lost"):
        ingest.collect(robot.root, "blockpush", robot.params, "", Watch())


@pytest.mark.slow
def test_rejected_recordings_stay_out_and_unfit_ones_are_named(robot: Robot) -> None:
    robot.record(0)
    robot.record(0)  # a copy of it
    before = store.digest(robot.paths.store)
    with pytest.raises(ValidationError, match=r"repeat episode 10 (.|\n)*10 is recording 1, 11 is recording 2; reject"):
        robot.ingest()
    assert store.digest(robot.paths.store) == before
    review.mark(robot.folder, reject=[2])
    assert robot.ingest().episodes == 11


@pytest.mark.slow
def test_recordings_that_are_not_of_the_task_are_refused(robot: Robot) -> None:
    spec = replace(robot.shown.spec, control_hz=5.0)
    robot.recorder.handshake = handshake(spec)
    robot.record(0)
    with pytest.raises(StoreError, match="recording 1: is of another spec than the demonstrations: control_hz"):
        robot.ingest()
    (robot.folder / "00001" / "action.npy").write_bytes(b"")
    with pytest.raises(StoreError, match="damaged"):
        robot.ingest()


def test_nothing_is_ingested_from_a_folder_without_recordings(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="holds no finished recording"):
        review.run(tmp_path)
    with pytest.raises(ServingError, match="no folder of recordings"):
        review.run(tmp_path / "elsewhere")
    assert recordings.digest(tmp_path, 1) == ""
    assert np.array_equal(recordings.listing(tmp_path).finished, ())
