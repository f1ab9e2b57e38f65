"""Our reading and writing of foreign formats beside the packages that own them: lerobot 0.4.4 and robomimic 0.3.0."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import foreign_sets, oracles
from tests.support.synthetic import synthetic
from vqbet.contract import Camera, Demonstrations
from vqbet.demos import sources
from vqbet.demos.exporters import lerobot
from vqbet.demos.exporters.lerobot import ACTION, PICTURES, STATE

pytestmark = pytest.mark.slow
CAM = "observation.images.cam_high"


@pytest.fixture(scope="module")
def demos() -> Demonstrations:
    """Four episodes with a camera."""
    made = synthetic(4)
    pictures = np.random.default_rng(0).integers(0, 256, (len(made.action), 24, 32, 3), np.uint8)
    return replace(made, spec=replace(made.spec, cameras=(Camera("top", 24, 32),)), cameras={"top": pictures})


def test_lerobot_opens_what_we_export_and_returns_equal_frames(tmp_path: Path, demos: Demonstrations) -> None:
    lerobot.write(tmp_path / "set", demos, "v3.0", lambda done, total: None)
    told = oracles.lerobot(tmp_path / "set", tmp_path, STATE, ACTION, PICTURES + "top")
    assert told[STATE].tobytes() == demos.observation.tobytes()
    assert told[ACTION].tobytes() == demos.action.tobytes()
    pictures = np.rint(told[PICTURES + "top"] * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    assert np.array_equal(pictures, demos.cameras["top"][np.arange(len(demos.action))])
    assert (int(told["episodes"]), int(told["frames"])) == (4, len(demos.action))
    assert float(told["fps"]) == demos.spec.control_hz
    assert str(told["task"]) == demos.spec.task
    assert told["names"].tolist() == [channel.name for channel in demos.spec.observation]
    assert told[f"mean {ACTION}"] == pytest.approx(demos.action.astype(np.float64).mean(0), rel=1e-6)


def test_what_we_export_as_v2_1_is_converted_by_lerobot_and_read_again(tmp_path: Path, demos: Demonstrations) -> None:
    lerobot.write(tmp_path / "set", demos, "v2.1", lambda done, total: None)
    source = sources.opened(oracles.converted(tmp_path / "set", tmp_path))
    assert json.loads((tmp_path / "set/meta/info.json").read_text())["codebase_version"] == "v3.0"
    for episode, (start, end) in enumerate(zip(demos.episode_starts, demos.episode_ends, strict=True)):
        assert source.numbers(episode, STATE).tobytes() == demos.observation[start:end].tobytes()
        assert source.numbers(episode, ACTION).tobytes() == demos.action[start:end].tobytes()
        pictures = np.stack(list(source.frames(episode, PICTURES + "top")))
        assert np.array_equal(pictures, demos.cameras["top"][np.arange(start, end)])


def with_video(folder: Path, whole: Path) -> list[int]:
    """Write the episodes of the v2.1 set `whole` that have their video as a set of their own; return their numbers."""
    from pyarrow import parquet

    information = json.loads((whole / "meta/info.json").read_text())
    numbers = sorted(int(path.stem.split("_")[1]) for path in (whole / "videos").rglob("*.mp4"))
    start, changed = 0, {}
    for new, old in enumerate(numbers):
        for template in ("data/chunk-000/episode_{:06d}.parquet", f"videos/chunk-000/{CAM}/episode_{{:06d}}.mp4"):
            (folder / template.format(new)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(whole / template.format(old), folder / template.format(new))
        path = folder / f"data/chunk-000/episode_{new:06d}.parquet"
        table = parquet.read_table(path)
        changed = {"episode_index": np.full(len(table), new), "index": np.arange(start, start + len(table))}
        for name, values in changed.items():
            table = table.set_column(table.schema.get_field_index(name), name, [values])
        parquet.write_table(table, path)
        start += len(table)
    (folder / "meta").mkdir()
    for name in ("episodes", "episodes_stats"):
        rows = [json.loads(line) for line in (whole / f"meta/{name}.jsonl").read_text().splitlines()]
        kept = [{**rows[old], "episode_index": new} for new, old in enumerate(numbers)]
        for row in kept:  # statistics of the columns that are counted anew
            row["stats"] = {key: value for key, value in row.get("stats", {}).items() if key not in changed}
        (folder / f"meta/{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in kept))
    shutil.copyfile(whole / "meta/tasks.jsonl", folder / "meta/tasks.jsonl")
    information |= {"total_episodes": len(numbers), "total_frames": start, "total_videos": len(numbers)}
    (folder / "meta/info.json").write_text(json.dumps(information | {"splits": {"train": f"0:{len(numbers)}"}}))
    return numbers


def test_the_humanoid_with_video_converted_by_lerobot_is_what_we_read_of_v2_1(
    tmp_path: Path, real_demos: Callable[[str], Path]
) -> None:
    """Four videos become one; every frame of ours is bit for bit the one we read of v2.1, and as LeRobot returns it."""
    whole = sources.opened(real_demos("g1_bottle"))
    numbers = with_video(tmp_path / "set", real_demos("g1_bottle"))
    assert len(numbers) >= 4
    source = sources.opened(oracles.converted(tmp_path / "set", tmp_path))
    assert len(list((tmp_path / "set/videos").rglob("*.mp4"))) == 1
    assert [one.steps for one in source.episodes] == [whole.episodes[number].steps for number in numbers]
    first = 0
    told = oracles.lerobot(tmp_path / "set", tmp_path, STATE, ACTION, CAM, every=97)
    picked = np.arange(0, int(told["frames"]), 97)
    for new, old in enumerate(numbers):
        for name in (STATE, ACTION):
            assert source.numbers(new, name).tobytes() == whole.numbers(old, name).tobytes()
        steps = source.episodes[new].steps
        here = [(row, step - first) for row, step in enumerate(picked) if first <= step < first + steps]
        wanted = {step: row for row, step in here}
        pairs = zip(source.frames(new, CAM), whole.frames(old, CAM), strict=True)
        for step, (mine, before) in enumerate(pairs):
            assert np.array_equal(mine, before), f"episode {old}, step {step}"
            if step in wanted:
                theirs = np.rint(told[CAM][wanted[step]] * 255).transpose(1, 2, 0)
                assert np.abs(mine - theirs).mean() < 1.5, f"episode {old}, step {step}"
        for row, step in here:
            assert told[ACTION][row].tobytes() == source.numbers(new, ACTION)[step].astype(np.float32).tobytes()
        first += steps


def test_robomimic_reads_of_our_file_what_we_read(tmp_path: Path) -> None:
    path = foreign_sets.robomimic(tmp_path / "set.hdf5")
    told = oracles.robomimic(path, tmp_path, "", "eef_pos", "top_image")
    source = sources.opened(path)
    assert sorted(told["demos"].tolist()) == sorted(one.name for one in source.episodes)
    for episode, one in enumerate(source.episodes):
        assert np.array_equal(told[f"{one.name} actions"], source.numbers(episode, "actions"))
        assert np.array_equal(told[f"{one.name} eef_pos"], source.numbers(episode, "obs/eef_pos"))
        pictures = np.stack(list(source.frames(episode, "obs/top_image")))
        assert np.array_equal(told[f"{one.name} top_image"], pictures)
    held = oracles.robomimic(path, tmp_path, "valid", "eef_pos")["demos"].tolist()
    assert held == [one.name for one in source.episodes if "valid" in one.labels["filters"]]
