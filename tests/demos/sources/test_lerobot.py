"""LeRobot sets are read as pyarrow and PyAV read them; a set that contradicts itself ends in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow.parquet import read_table, write_table

from tests.support import foreign_sets
from tests.support.foreign_sets import FPS, LENGTHS, film, made, rewrite
from vqbet.contract import StoreError
from vqbet.demos.sources import opened, parquet

Fault = Callable[[Path], object]
TOP = "observation.images.top"
V2_DATA = "data/chunk-000/episode_000001.parquet"
V2_FILM = f"videos/chunk-000/{TOP}/episode_000001.mp4"
V3_DATA = "data/chunk-000/file-000.parquet"
V3_FILM = f"videos/{TOP}/chunk-000/file-000.mp4"
V3_EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.mark.parametrize("camera", ["video", "image", ""])
@pytest.mark.parametrize("version", ["v2", "v3", "v3 shuffled"])
def test_a_good_set_is_read(tmp_path: Path, version: str, camera: str) -> None:
    if version == "v2":
        root = foreign_sets.lerobot_v2(tmp_path / "set", camera)
    else:
        root = foreign_sets.lerobot_v3(tmp_path / "set", camera, shuffled=version == "v3 shuffled")
    source = opened(root)
    assert (source.format, source.rate_hz, source.notes) == ("lerobot", FPS, ())
    assert [one.steps for one in source.episodes] == list(LENGTHS)
    assert [one.labels["task"] for one in source.episodes] == [one.task for one in made()]
    assert source.fields["action"].names == ("dx", "dy")
    assert source.fields["observation.state"].names == ("x", "y", "z")
    for episode, one in enumerate(made()):
        assert np.array_equal(source.numbers(episode, "observation.state"), one.state)
        assert np.array_equal(source.numbers(episode, "action"), one.action)
        assert np.allclose(source.time_s(episode), np.arange(one.steps) / FPS)
        if camera:
            frames = np.stack(list(source.frames(episode, TOP)))
            assert np.abs(frames.astype(int) - one.pictures).max() <= (3 if camera == "video" else 0)
            assert next(iter(source.frames(episode, TOP, (8, 16)))).shape == (8, 16, 3)
    assert all(path.is_file() for path in source.files())
    assert len(source.files()) == len({path for path in root.rglob("*") if path.is_file()})


def test_every_frame_of_a_video_in_the_middle_of_a_file_is_the_right_one(tmp_path: Path) -> None:
    """Colours tell steps apart by 12 of 255; episodes are asked for out of order."""
    source = opened(foreign_sets.lerobot_v3(tmp_path / "set", lengths=[13, 9, 20, 4]))
    for episode in (2, 0, 3, 1):
        reds = [int(frame[5, 5, 0]) for frame in source.frames(episode, TOP)]
        assert np.abs(np.array(reds) - (20 + 12 * np.arange(len(reds)))).max() <= 3


def test_the_real_humanoid_is_read_as_pyarrow_reads_it(real_demos: Callable[[str], Path]) -> None:
    root = real_demos("g1_bottle")
    source = opened(root)
    assert (len(source.episodes), sum(one.steps for one in source.episodes), source.rate_hz) == (100, 35965, 30)
    whole = [number for number, one in enumerate(source.episodes) if not one.missing]
    assert whole == [29, 30, 31, 59]
    assert source.episodes[0].missing == ("observation.images.cam_high",)
    assert any("96 of 100 episodes have no video" in note for note in source.notes)
    assert source.fields["action"].names[:2] == ("kLeftShoulderPitch", "kLeftShoulderRoll")
    assert source.fields["observation.images.cam_high"].codec == "av1"
    for episode in (0, 29, 99):
        table = read_table(root / f"data/chunk-000/episode_{episode:06d}.parquet")
        for name in ("observation.state", "action"):
            assert np.array_equal(source.numbers(episode, name), np.array(table[name].to_pylist(), np.float32))
    assert sum(1 for _ in source.frames(29, "observation.images.cam_high", (48, 64))) == source.episodes[29].steps
    with pytest.raises(StoreError, match=r"episode_000000.mp4: episode 0: observation.images.cam_high: .*missing"):
        list(source.frames(0, "observation.images.cam_high"))


def _info(*keys: str, value: object) -> Fault:
    def change(info: dict) -> None:
        for key in keys[:-1]:
            info = info[key]
        info[keys[-1]] = value

    return rewrite("meta/info.json", change)


def _column(name: str, change: Callable[[np.ndarray], np.ndarray], path: str = V2_DATA) -> Fault:
    """Change the numbers of a column of one row a step."""

    def one(table: pa.Table) -> pa.Table:
        values = pa.array(change(table[name].to_numpy().copy()))
        return table.set_column(table.schema.get_field_index(name), name, values)

    return rewrite(path, one)


def _state(column: object, path: str = V2_DATA) -> Fault:
    """Replace the column of the state."""
    return rewrite(path, lambda table: table.set_column(0, "observation.state", [pa.array(column)]))


def _late(path: str, frames: int) -> Fault:
    return lambda root: film(root / path, made()[1].pictures, late=frames)


def _row(index: int, **changes: object) -> Fault:
    def change(rows: list[dict]) -> None:
        rows[index].update(changes)

    return rewrite("meta/episodes.jsonl", change)


def _statistics(kind: str, value: object) -> Fault:
    def change(rows: list[dict]) -> None:
        rows[1]["stats"]["action"][kind] = value

    return rewrite("meta/episodes_stats.jsonl", change)


def _of_another_set(root: Path) -> None:
    other = made(seed=9)
    rows = [
        {"episode_index": n, "stats": {"action": foreign_sets.statistics(one.action)}} for n, one in enumerate(other)
    ]
    (root / "meta/episodes_stats.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _nan(root: Path) -> None:
    path = root / "meta/episodes_stats.jsonl"
    path.write_text(path.read_text().replace('"max": [', '"max": [NaN, ', 1))


def _no_footer(path: str) -> Fault:
    return lambda root: os.truncate(root / path, (root / path).stat().st_size - 300)


def _linked(path: str) -> Fault:
    def fault(root: Path) -> None:
        shutil.move(root / path, root.parent / "elsewhere")
        (root / path).symlink_to(root.parent / "elsewhere")

    return fault


def _bomb(root: Path) -> None:
    """A column of sixteen million equal numbers in a few kilobytes; the limit is lower here than in earnest."""
    rows = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2**24, np.float32)), 2**20)
    write_table(pa.table({"observation.state": rows}), root / V2_DATA)
    assert (root / V2_DATA).stat().st_size < 2**17


V2: dict[str, tuple[Fault, str]] = {
    "no info.json": (lambda root: (root / "meta/info.json").unlink(), r"holds no demonstrations"),
    "info.json is cut": (lambda root: os.truncate(root / "meta/info.json", 50), r"info.json: is not strict JSON"),
    "version of the future": (_info("codebase_version", value="v4.0"), r"info.json: codebase_version: .*'v4.0'"),
    "fps 0": (_info("fps", value=0), r"info.json: fps: expected a positive rate in Hz, got 0"),
    "fps of text": (_info("fps", value="10"), r"info.json: fps: .*'10'"),
    "fps of another rate": (_info("fps", value=30), r"info.json: fps: says 30.*episode 0.*make 10"),
    "no features": (_info("features", value=None), r"info.json: features: .*None"),
    "no timestamp": (
        rewrite("meta/info.json", lambda i: i["features"].pop("timestamp") and None),
        r"timestamp is missing",
    ),
    "negative shape": (_info("features", "action", "shape", value=[-2]), r"features: action: shape: .*-2"),
    "too many names": (
        _info("features", "action", "names", value=[["a", "b", "c"]]),
        r"action: names: expected 2 .*got 3",
    ),
    "names that are numbers": (_info("features", "action", "names", value=[1, 2]), r"action: names: .*1"),
    "wrong key": (
        rewrite("meta/info.json", lambda i: i["features"].update(act=i["features"].pop("action"))),
        r"episode_000000.parquet: episode 0: act: .*found .*action",
    ),
    "wrong width": (_info("features", "action", "shape", value=[3]), r"action"),
    "path that leaves the set": (
        _info("data_path", value="../{episode_index}.parquet"),
        r"info.json: data_path: .*inside",
    ),
    "path with attributes": (_info("data_path", value="{episode_index.__class__}"), r"info.json: data_path"),
    "path of unknown parts": (_info("data_path", value="data/{name}.parquet"), r"data_path: .*got name"),
    "total_episodes": (_info("total_episodes", value=5), r"total_episodes: says 5, .* make 3"),
    "total_frames": (_info("total_frames", value=5), r"total_frames: says 5, .* make 34"),
    "total_tasks": (_info("total_tasks", value=5), r"total_tasks: says 5, .* make 2"),
    "gapped episode_index": (_row(1, episode_index=7), r"episodes.jsonl: episode_index: .*episode 1 is missing"),
    "episode twice": (_row(1, episode_index=0), r"episodes.jsonl: line 2: episode_index 0 is there twice"),
    "length 0": (_row(1, length=0), r"episodes.jsonl: line 2: episode 1: length: .*got 0"),
    "length of another episode": (_row(1, length=9), r"total_frames"),
    "unknown task": (_row(1, tasks=["dance"]), r"line 2: episode 1: tasks: 'dance' is not"),
    "tasks of text": (_row(1, tasks="push the block"), r"line 2: episode 1: tasks: expected a list"),
    "no tasks": (lambda root: (root / "meta/tasks.jsonl").unlink(), r"tasks.jsonl: .*missing"),
    "task without index": (
        rewrite("meta/tasks.jsonl", lambda rows: [{"task": row["task"]} for row in rows]),
        r"tasks.jsonl: line 1: task_index: .*None",
    ),
    "missing parquet": (lambda root: (root / V2_DATA).unlink(), rf"{V2_DATA}: episode 1: the file is missing"),
    "footerless parquet": (_no_footer(V2_DATA), rf"{V2_DATA}: episode 1: has no footer"),
    "no parquet": (lambda root: (root / V2_DATA).write_text("x" * 100), rf"{V2_DATA}: episode 1: is no parquet"),
    "damaged parquet": (lambda root: _flip(root / V2_DATA), rf"{V2_DATA}: episode 1"),
    "linked parquet": (_linked(V2_DATA), rf"{V2_DATA}: episode 1: is a link to .* outside"),
    "parquet of another episode": (
        lambda root: shutil.copy(root / V2_DATA.replace("1.p", "0.p"), root / V2_DATA),
        rf"{V2_DATA}: episode 1: expected 7 rows, its length in meta/, got 12",
    ),
    "bomb": (_bomb, rf"{V2_DATA}: episode 1: observation.state.list.element: decodes to \d+ bytes, more than"),
    "column missing": (
        rewrite(V2_DATA, lambda table: table.drop_columns(["action"])),
        rf"{V2_DATA}: episode 1: action: ",
    ),
    "texts for numbers": (_state([["a", "b", "c"]] * 7), rf"{V2_DATA}: episode 1: observation.state: .*string"),
    "rows of two widths": (
        _state([[1.0, 2.0, 3.0]] * 6 + [[1.0, 2.0]]),
        r"episode 1: observation.state: step 6: .*got 2",
    ),
    "a row without numbers": (_state([[1.0, 2.0, 3.0]] * 6 + [None]), r"episode 1: observation.state: .*1 are missing"),
    "a number missing": (_state([[1.0, 2.0, 3.0]] * 6 + [[1.0, None, 2.0]]), r"observation.state: .*1 are missing"),
    "timestamps three frames off": (
        _column("timestamp", lambda t: t + np.float32(3 / FPS)),
        r"episode 1: timestamp: expected 0.0000 s at step 0 .* 3.0 steps off",
    ),
    "one timestamp three frames off": (
        _column("timestamp", lambda t: np.where(np.arange(7) > 3, t + 0.3, t)),
        r"episode 1: timestamp: .*step 4 .* 3.0 steps off",
    ),
    "timestamps go back": (_column("timestamp", lambda t: t[::-1].copy()), r"episode 1: timestamp: .*grow"),
    "timestamp not finite": (_column("timestamp", lambda t: t * np.nan), r"episode 1: timestamp: is not finite"),
    "frame_index skips": (
        _column("frame_index", lambda f: f * 2),
        r"episode 1: frame_index: expected 1 at step 1, got 2",
    ),
    "rows of another episode": (
        _column("episode_index", lambda e: e * 0),
        r"episode 1: episode_index: expected 1 .*got 0",
    ),
    "index of another place": (_column("index", lambda i: i + 1), r"episode 1: index: expected 12 at step 0, got 13"),
    "NaN in statistics": (_nan, r"episodes_stats.jsonl: line 1: .*NaN"),
    "statistics of another set": (_of_another_set, r"episode 0: action: min: its statistics say"),
    "minimum": (_statistics("min", [-9.0, -9.0]), rf"{V2_DATA}: episode 1: action: min: .*say -9"),
    "mean": (_statistics("mean", [0.5, 0.5]), rf"{V2_DATA}: episode 1: action: mean: .*say 0.5"),
    "count": (_statistics("count", [8]), rf"{V2_DATA}: episode 1: action: count: .*say 8.*make 7"),
    "statistics of three": (
        _statistics("max", [1.0, 2.0, 3.0]),
        r"line 2: episode 1: stats: action: max: expected 2 .*got 3",
    ),
    "statistics of a fourth episode": (
        rewrite("meta/episodes_stats.jsonl", lambda rows: rows[2].update(episode_index=3)),
        r"episodes_stats.jsonl: episode 3: is not in",
    ),
    "no video folder": (lambda root: shutil.rmtree(root / "videos"), rf"episode 0: {TOP}: .*no video of any episode"),
    "videos elsewhere": (
        lambda root: (root / "videos").rename(root / "video"),
        rf"episode 0: {TOP}: .*video_path.*video",
    ),
    "one video missing": (lambda root: (root / V2_FILM).unlink(), rf"{V2_FILM}: episode 1: {TOP}: the file is missing"),
    "video too short": (
        lambda root: film(root / V2_FILM, made()[1].pictures[:-1]),
        rf"{V2_FILM}: episode 1: .*7 .*got 6",
    ),
    "video too long": (lambda root: film(root / V2_FILM, made()[0].pictures), rf"{V2_FILM}: episode 1: .*7 .*got 12"),
    "video three frames off": (_late(V2_FILM, 3), rf"{V2_FILM}: episode 1: {TOP}: step 0: .*3.0 steps off"),
    "video of another rate": (
        lambda root: film(root / V2_FILM, made()[1].pictures, fps=30),
        rf"{V2_FILM}: episode 1: .*step 1",
    ),
    "video of another size": (
        lambda root: film(root / V2_FILM, made()[1].pictures[:, :32]),
        rf"{V2_FILM}: .*\(32, 96\)",
    ),
    "no video": (
        lambda root: (root / V2_FILM).write_bytes(b"x" * 1000),
        rf"{V2_FILM}: episode 1: {TOP}: cannot be opened",
    ),
    "linked video": (_linked(V2_FILM), rf"{V2_FILM}: episode 1: {TOP}: is a link to .* outside"),
}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)


def _tasks(index: bool) -> Fault:
    def fault(root: Path) -> None:
        import pandas as pd

        frame = pd.DataFrame({"task": list(foreign_sets.TASKS), "task_index": [0, 1]})
        (frame if index else frame.drop(columns="task")).to_parquet(root / "meta/tasks.parquet", index=False)

    return fault


def _episode(name: str, value: object, row: int = 1) -> Fault:
    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        return table.set_column(table.schema.get_field_index(name), name, pa.array(values))

    return rewrite(V3_EPISODES, change)


def _stats(field: str, kind: str, value: object) -> Fault:
    def change(stats: dict) -> None:
        stats[field][kind] = value

    return rewrite("meta/stats.json", change)


V3: dict[str, tuple[Fault, str]] = {
    "tasks without a column of texts": (_tasks(False), r"tasks.parquet: expected .*index"),
    "texts of tasks in a plain column": (_tasks(True), r"tasks.parquet: expected .*index"),
    "no table of episodes": (
        lambda root: shutil.rmtree(root / "meta/episodes"),
        r"meta/episodes: expected .*no such folder",
    ),
    "footerless table of episodes": (_no_footer(V3_EPISODES), rf"{V3_EPISODES}: .*has no footer"),
    "gapped episode_index": (_episode("episode_index", 5), r"meta/episodes: episode_index: .*episode 1 is missing"),
    "wrong dataset_from_index": (
        _episode("dataset_from_index", 11),
        r"episode 1: dataset_from_index: expected 12 .*got 11",
    ),
    "wrong length": (_episode("length", 8), r"episode 1: "),
    "file that is not there": (_episode("data/file_index", 3), r"file-003.parquet: episode 1: the file is missing"),
    "rows in another order": (
        _column("episode_index", lambda e: np.roll(e, 1), V3_DATA),
        r"file-000.parquet: episode \d: episode_index",
    ),
    "episode without rows": (
        _column("episode_index", lambda e: np.where(e == 1, 9, e), V3_DATA),
        r"episode 1: episode_index: .*no row",
    ),
    "missing parquet": (lambda root: (root / V3_DATA).unlink(), rf"{V3_DATA}: episode 0: the file is missing"),
    "timestamps three frames off": (
        _column("timestamp", lambda t: t + np.float32(0.3), V3_DATA),
        r"episode 0: timestamp: .*3.0 steps",
    ),
    "statistics of an episode": (_episode("stats/action/max", [7.0, 7.0]), r"episode 1: action: max: .*say 7"),
    "NaN in the statistics of an episode": (
        _episode("stats/action/max", [np.nan, 0.0]),
        r"episode 1: stats: action: max: .*NaN",
    ),
    "statistics of another set": (_stats("action", "min", [-99.0, -99.0]), r"stats.json: action: min: .*say -99"),
    "count of another set": (_stats("action", "count", [99]), r"stats.json: action: count: says 99, .*34 steps"),
    "from_timestamp three frames off": (
        _episode(f"videos/{TOP}/from_timestamp", 1.5),
        rf"episode 1: videos/{TOP}/from_timestamp: .*3.0 frames",
    ),
    "no from_timestamp": (
        _episode(f"videos/{TOP}/from_timestamp", None),
        rf"episode 1: videos/{TOP}/from_timestamp: expected seconds",
    ),
    "video too short": (
        lambda root: film(root / V3_FILM, np.concatenate([one.pictures for one in made()])[:-1]),
        rf"{V3_FILM}: episode 0: {TOP}: expected 34 frames .*got 33",
    ),
    "no video folder": (lambda root: shutil.rmtree(root / "videos"), rf"episode 0: {TOP}: .*no video of any episode"),
}


def _picture(content: bytes | None) -> Fault:
    def change(table: pa.Table) -> pa.Table:
        values = table[TOP].to_pylist()
        values[3]["bytes"] = content
        return table.set_column(table.schema.get_field_index(TOP), TOP, pa.array(values))

    return rewrite(V2_DATA, change)


def _huge() -> bytes:
    """A PNG that claims to be a picture of 100,000 x 100,000 px."""
    import struct
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1000))
    parts = [
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (head, body, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


IMAGES: dict[str, tuple[Fault, str]] = {
    "no picture": (_picture(None), rf"{V2_DATA}: episode 1: {TOP}: step 3: .*got none"),
    "text for a picture": (_picture(b"hello"), rf"{V2_DATA}: episode 1: {TOP}: step 3: cannot be decoded"),
    "picture of another size": (
        _picture(foreign_sets.png(np.zeros((8, 8, 3), np.uint8))),
        rf"{TOP}: step 3: expected .*8, 8",
    ),
    "cut picture": (_picture(foreign_sets.png(made()[0].pictures[0])[:100]), rf"{TOP}: step 3: cannot be decoded"),
    "bomb": (_picture(_huge()), rf"{TOP}: step 3: "),
    "texts for pictures": (
        rewrite(V2_DATA, lambda t: t.set_column(7, TOP, [["x"] * 7])),
        rf"episode 1: {TOP}: .*struct",
    ),
}
MUTANTS = [
    pytest.param(write, camera, *table[kind], id=f"{name}: {kind}")
    for name, write, camera, table in (
        ("v2", foreign_sets.lerobot_v2, "video", V2),
        ("v3", foreign_sets.lerobot_v3, "video", V3),
        ("v2 images", foreign_sets.lerobot_v2, "image", IMAGES),
    )
    for kind in table
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable, str], Path]:
    """Return a function that writes each set once."""
    folder, written = tmp_path_factory.mktemp("good"), {}

    def get(write: Callable[[Path, str], Path], camera: str) -> Path:
        key = (write, camera)
        if key not in written:
            written[key] = write(folder / f"{write.__name__}-{camera}", camera)
        return written[key]

    return get


@pytest.mark.parametrize(("write", "camera", "fault", "sentence"), MUTANTS)
def test_a_broken_set_ends_in_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    good: Callable[[Callable, str], Path],
    write: Callable,
    camera: str,
    fault: Fault,
    sentence: str,
) -> None:
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 2**26)
    root = tmp_path / "set"
    shutil.copytree(good(write, camera), root)
    fault(root)
    with pytest.raises(StoreError, match=sentence) as caught:
        foreign_sets.read_all(opened(root))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900
