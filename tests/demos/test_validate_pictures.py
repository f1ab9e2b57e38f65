"""Faults of pictures: each planted one is found with its episode, camera and frame; good pictures have none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.demos.test_validate import BOUNDS
from tests.support.pictures import pictured
from tests.support.shrunk import shrunk
from vqbet.contract import Camera, Demonstrations, StoreError, ValidationError
from vqbet.coordinates import views
from vqbet.demos import store
from vqbet.demos.validation import pictures, sheets, validate
from vqbet.demos.validation.findings import Finding
from vqbet.demos.validation.knowledge import Knowledge
from vqbet.stages import preflight
from vqbet.stages import validate as stage
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks.pusht import importer

TOP, SIDE = Camera("top", 24, 32), Camera("side", 24, 32)
Plant = Callable[[np.ndarray, np.ndarray, slice, slice], object]


@pytest.fixture(autouse=True)
def exact_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "_expect", lambda measured: [])


@pytest.fixture(scope="module")
def good() -> Demonstrations:
    return pictured(8, cameras=(TOP, SIDE))


def found(demos: Demonstrations, **changes: Any) -> list[Finding]:
    report = validate.validate(demos, Knowledge(), **{**BOUNDS, **changes})
    return [finding for finding in (*report.errors, *report.advice) if finding.field.startswith("camera")]


def _exchange(top: np.ndarray, side: np.ndarray, here: slice, other: slice) -> None:
    top[here], side[here] = side[here].copy(), top[here].copy()


def _later(steps: int) -> Plant:
    def shifted(top: np.ndarray, side: np.ndarray, here: slice, other: slice) -> None:
        top[here.start + steps : here.stop] = top[here.start : here.stop - steps].copy()

    return shifted


def _white(top: np.ndarray, side: np.ndarray, here: slice, other: slice) -> None:
    lit = top[here.start + 4 : here.start + 9]
    lit[:, :20] = np.clip(lit[:, :20].astype(int) * 5 + 60, 0, 255)


PLANTED: dict[str, tuple[Plant, str, str, int, str]] = {
    "black": (
        lambda top, side, here, other: top[here.start + 7 : here.start + 9].fill(3),
        "blank_pictures",
        "error",
        7,
        "camera.top is black at episode 5, step 7; 2 steps in episode 5",
    ),
    "one colour": (
        lambda top, side, here, other: top[here.start + 7].fill(128),
        "blank_pictures",
        "error",
        7,
        "camera.top has a single colour at episode 5, step 7",
    ),
    "over-exposed": (_white, "burnt_pictures", "error", 4, "so is over-exposed, at episode 5, step 4; 5 steps"),
    "frozen": (
        lambda top, side, here, other: top.__setitem__(slice(here.start + 6, here.start + 20), top[here.start + 6]),
        "frozen_pictures",
        "error",
        6,
        "shows the same picture for 14 steps, while the robot moves, so it stood still, at episode 5, step 6",
    ),
    "repeated": (
        lambda top, side, here, other: top.__setitem__(here.start + 9, top[here.start + 8]),
        "repeated_pictures",
        "advice",
        9,
        "camera.top shows the picture of the step before while the robot moves",
    ),
    "of another episode": (
        lambda top, side, here, other: top.__setitem__(here, np.resize(top[other], top[here].shape)),
        "copied_pictures",
        "error",
        0,
        "camera.top is that of episode 2 in 100% of steps, at episode 5, step 0",
    ),
    "exchanged": (
        _exchange,
        "swapped_cameras",
        "error",
        0,
        "camera.top is that of camera 'side', and the other way round, at episode 5, step 0",
    ),
    "BGR": (
        lambda top, side, here, other: top.__setitem__(here, top[here][..., ::-1].copy()),
        "swapped_colours",
        "error",
        0,
        "camera.top has red and blue exchanged (BGR for RGB), unlike the others, at episode 5, step 0",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_with_episode_camera_and_frame(good: Demonstrations, name: str) -> None:
    plant, check, severity, step, message = PLANTED[name]
    top, side = (np.asarray(good.cameras[camera.name]).copy() for camera in (TOP, SIDE))
    here, other = (slice(good.episode_starts[episode], good.episode_ends[episode]) for episode in (5, 2))
    plant(top, side, here, other)
    planted = found(replace(good, cameras={"top": top, "side": side}))
    (finding,) = [finding for finding in planted if finding.check == check]
    assert (finding.field, finding.severity, finding.episode, finding.step) == ("camera.top", severity, 5, step)
    assert message in finding.message
    assert finding.remedy
    assert {each.check for each in planted} <= {check, "repeated_pictures"}


def test_good_pictures_have_no_finding(good: Demonstrations) -> None:
    assert found(good) == []
    assert found(pictured(2)) == []


@pytest.fixture(scope="module")
def jerky() -> Demonstrations:
    """Pictures that change as much as the robot moves, and a robot that moves by fits and starts."""
    demos, random = pictured(8), np.random.default_rng(0)
    pace = random.exponential(size=(len(demos.action), 1)) * 0.02
    path = np.concatenate([np.cumsum(part, axis=0) for part in np.split(pace, demos.episode_ends[:-1])])
    observation = np.repeat(path, 4, axis=1).astype(np.float32)
    shade = np.full((len(path), 24, 32, 3), (1, 2, 3), np.uint8)
    shade += (path[:, :, None, None] * 120).astype(np.uint8) + random.integers(0, 2, shade.shape, np.uint8)
    return replace(demos, observation=observation, action=observation[:, :2], cameras={"top": shade})


def test_pictures_that_are_late_are_found_by_episode(jerky: Demonstrations) -> None:
    assert [finding for finding in found(jerky) if finding.check == "late_pictures"] == []
    for steps in (1, 3):
        top = np.asarray(jerky.cameras["top"]).copy()
        _later(steps)(top, top, slice(jerky.episode_starts[5], jerky.episode_ends[5]), slice(0))
        late = replace(jerky, cameras={"top": top})
        (finding,) = [finding for finding in found(late) if finding.check == "late_pictures"]
        assert (finding.episode, finding.step, finding.severity) == (5, 0, "error")
        words = f"camera.top is {steps} step{'s' * (steps > 1)} (0.{steps} s) behind the motion beside it"
        assert words in finding.message


def test_pictures_that_were_lost_are_found_by_the_rest_of_the_episode(jerky: Demonstrations) -> None:
    start, long = int(jerky.episode_starts[5]), 120  # half of it suffices for a correlation
    steps = jerky.lengths.copy()
    steps[5] = long
    random = np.random.default_rng(1)
    pace = random.exponential(size=(steps.sum(), 1)) * 0.02
    ends = np.cumsum(steps)
    path = np.concatenate([np.cumsum(part, axis=0) for part in np.split(pace, ends[:-1])])
    observation = np.repeat(path, 4, axis=1).astype(np.float32)
    shade = np.full((len(path), 24, 32, 3), (1, 2, 3), np.uint8) + (path[:, :, None, None] * 60).astype(np.uint8)
    shade += random.integers(0, 2, shade.shape, np.uint8)
    first, last = start + 50, start + long - 2
    shade[first:last] = shade[first + 2 : last + 2].copy()
    lost = replace(
        jerky,
        observation=observation,
        action=observation[:, :2],
        time_s=np.concatenate([np.arange(count) / 10 for count in steps]),
        state=None,
        episode_ends=ends,
        cameras={"top": shade},
    )
    (finding,) = [each for each in found(lost, max_steps=200) if each.check == "late_pictures"]
    assert (finding.episode, finding.step) == (5, 60)
    assert "camera.top is 2 steps (0.2 s) ahead of the motion from here on, and not before" in finding.message


def test_all_pictures_that_are_late_are_advice(jerky: Demonstrations) -> None:
    top = np.asarray(jerky.cameras["top"]).copy()
    for start, end in zip(jerky.episode_starts, jerky.episode_ends, strict=True):
        _later(2)(top, top, slice(start, end), slice(0))
    (finding,) = [each for each in found(replace(jerky, cameras={"top": top})) if each.check == "late_pictures"]
    assert finding.severity == "advice"
    assert "camera.top is 2 steps (0.2 s) behind the motion in most episodes" in finding.message


def test_a_robot_that_stands_still_may_repeat_its_pictures(good: Demonstrations) -> None:
    still, top = good.observation.copy(), np.asarray(good.cameras["top"]).copy()
    here = slice(good.episode_starts[5] + 3, good.episode_starts[5] + 17)
    still[here], top[here] = still[here.start], top[here.start]
    assert found(replace(good, observation=still, cameras={**good.cameras, "top": top})) == []


def test_pictures_of_another_size_are_a_broken_structure(good: Demonstrations) -> None:
    top = np.asarray(good.cameras["top"])
    cases = {
        "camera.top has pictures of shape": {**good.cameras, "top": top[:, :12]},
        "camera.top has no pictures, but the spec has it": {"side": good.cameras["side"]},
        "camera.wrist has pictures, but the spec has no such camera": {**good.cameras, "wrist": top},
    }
    for sentence, cameras in cases.items():
        (finding,) = found(replace(good, cameras=cameras))
        assert sentence in finding.message
        assert finding.check == "structure"
    with pytest.raises(ValidationError, match=r"camera 'top': steps 0 to .* of uint8, got .* of float32"):
        found(replace(good, cameras={**good.cameras, "top": top.astype(np.float32)}))


def test_an_error_of_pictures_is_waived_with_a_reason(good: Demonstrations) -> None:
    top = np.asarray(good.cameras["top"]).copy()
    top[3] = 0
    waive = {"blank_pictures": "the flash of the start"}
    (finding,) = found(replace(good, cameras={**good.cameras, "top": top}), waive=waive)
    assert (finding.severity, finding.waiver) == ("advice", "the flash of the start")


def test_blocks_of_any_size_measure_the_same(good: Demonstrations, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pictures.Seen.of(good, "top")
    monkeypatch.setattr(pictures, "BLOCK_BYTES", 7 * 24 * 32 * 3)
    parts = pictures.Seen.of(good, "top")
    for name in ("black", "burnt", "plain", "content", "change", "same", "mean"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), err_msg=name)


def test_the_page_has_a_strip_of_each_camera_and_episode(good: Demonstrations, tmp_path: Path) -> None:
    report = validate.validate(good, Knowledge(), **BOUNDS)
    validate.write(report, tmp_path / "one")
    validate.write(validate.validate(good, Knowledge(), **BOUNDS), tmp_path / "two")
    text = (tmp_path / "one/index.html").read_text()
    assert text.count('<img src="data:image/jpeg;base64,') == 2 * 8
    assert "img-src data:" in text
    assert text == (tmp_path / "two/index.html").read_text()
    assert "data:image" not in (tmp_path / "one/report.json").read_text()


def test_a_page_of_many_episodes_shows_those_with_findings(
    good: Demonstrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "MOST", 4)
    shown = sheets.sheets(good, {6, 3})
    assert [sheet.episode for sheet in shown] == [0, 3, 6, 7]
    assert shown[0].steps[0] == 0
    assert shown[0].steps[-1] == good.lengths[0] - 1
    monkeypatch.setattr(sheets, "MOST", 1)
    assert [sheet.episode for sheet in sheets.sheets(good, {6, 3})] == [3]


@pytest.mark.slow
def test_the_real_pictures_of_pusht_have_no_finding(real_demos: Callable[[str], Path], tmp_path: Path) -> None:
    import zarr

    folder = real_demos("pusht")
    path = next(folder.rglob("data/img"))
    source: Any = zarr.open_array(str(path.parents[1]), path="data/img", mode="r")

    class Whole:
        """The pictures as whole numbers; the source has them as float32."""

        shape = source.shape

        def __getitem__(self, steps: np.ndarray) -> np.ndarray:
            return np.asarray(source[int(steps[0]) : int(steps[-1]) + 1]).astype(np.uint8)

    class Ahead(Whole):
        """Reads 161 pictures at once, a chunk of the source, since each is a file of its own there."""

        first, block = -1, np.zeros(0)

        def __getitem__(self, steps: np.ndarray) -> np.ndarray:
            start = int(steps[0]) // 1610 * 1610
            if start != self.first:
                self.first, self.block = start, super().__getitem__(np.array([start, start + 1619]))
            return self.block[steps - start]

    demos = importer.load(folder)
    spec = replace(demos.spec, cameras=(Camera("top", 96, 96),))
    store.write(tmp_path / "pusht.zarr", replace(demos, spec=spec, cameras={"top": Ahead()}))
    read = store.read(tmp_path / "pusht.zarr")
    assert found(read, max_steps=400, min_success=0.0) == []
    assert sum(path.stat().st_size for path in (tmp_path / "pusht.zarr/data/camera").rglob("c.*")) < 350 * 25650


@pytest.mark.slow
def test_the_stage_reads_every_picture_and_stops_at_a_damaged_one(tmp_path: Path) -> None:
    paths, params = Paths(tmp_path, "synthetic"), shrunk("blockpush", validate={"min_steps": 20, "max_steps": 100})
    store.write(paths.store, pictured(4))
    assert stage.run(paths, params, Watch())["errors"] == 0
    assert "data:image/jpeg" in (paths.validation / "index.html").read_text()
    path = paths.store / "data/camera/top/c.0.0.0.0"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"camera/top/c\.0\.0\.0\.0: damaged"):
        stage.run(paths, params, Watch())


@pytest.mark.parametrize("view", views.BLIND)
def test_a_view_of_numbers_alone_is_refused_before_any_training(good: Demonstrations, view: str) -> None:
    params = shrunk("pusht", demos={"views": [view]})
    wanted = f"'{view}' is of numbers alone, and the demonstrations have pictures of 'top', 'side'; take it from"
    assert [wanted in str(error) for error in preflight.of_data("pusht", params, good)].count(True) == 1
    blind = replace(good, spec=replace(good.spec, cameras=()), cameras={})
    assert not any("of numbers alone" in str(error) for error in preflight.of_data("pusht", params, blind))
