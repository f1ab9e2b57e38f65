"""Every kind of broken demonstrations is refused, by the reader or by validation, with its place; no good one is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic import synthetic
from vqbet.contract import Demonstrations, StoreError, ValidationError
from vqbet.demos import store
from vqbet.demos.store.manifest import Manifest
from vqbet.demos.validation import validate
from vqbet.demos.validation.knowledge import Knowledge
from vqbet.files.manifest import Fingerprint

BOUNDS: dict[str, Any] = {
    "min_steps": 20,
    "max_steps": 100,
    "max_saturated": 0.05,
    "max_duplicates": 0.01,
    "min_success": 0.9,
}
SHARD = "data/action/c/0/0"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact checks must see every kind by themselves; and there is no waiting for the disk."""
    monkeypatch.setattr(validate, "_expect", lambda measured: [])
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def load(path: Path) -> Demonstrations:
    """What a stage does before it trains: read, validate, refuse."""
    demos = store.read(path)
    validate.raise_for_errors(validate.validate(demos, Knowledge(), **BOUNDS), path)
    return demos


@pytest.mark.parametrize(("episodes", "seed", "D", "A"), [(20, 0, 4, 2), (1, 1, 1, 1), (45, 2, 16, 7), (8, 3, 2, 3)])
def test_good_stores_are_accepted(tmp_path: Path, episodes: int, seed: int, D: int, A: int) -> None:
    demos = synthetic(episodes, seed, D, A)
    store.write(tmp_path / "good.zarr", demos)
    assert load(tmp_path / "good.zarr").observation.shape == demos.observation.shape


Damage = Callable[[Path], object]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _link(path: Path) -> None:
    target = path.parent.parent.parent.parent.parent / "elsewhere"
    shutil.move(path, target)
    path.symlink_to(target)


def _resealed(folder: Path) -> None:
    """A manifest for whatever lies there now: what somebody does who changes a store on purpose."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    entries = {path.relative_to(folder).as_posix(): Fingerprint.of(path.read_bytes()) for path in paths}
    (folder / "manifest.json").write_bytes(Manifest(entries).encode())


def _document(name: str, change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change an array's or group's zarr.json, and make the manifest agree."""

    def damage(folder: Path) -> None:
        path = folder / name / "zarr.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))
        _resealed(folder)

    return damage


def _set(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


def _without_array(folder: Path) -> None:
    shutil.rmtree(folder / "data" / "action")
    _resealed(folder)


def _version_2(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / ".zgroup").write_text('{"zarr_format": 2}')


UNREADABLE: dict[str, tuple[Damage, str]] = {
    "no store": (shutil.rmtree, "set.zarr"),
    "a file instead of a folder": (lambda f: (shutil.rmtree(f), f.write_text("x")), "set.zarr"),
    "empty folder": (lambda f: (shutil.rmtree(f), f.mkdir()), "set.zarr"),
    "zarr version 2": (_version_2, "v2|version 2|format 2"),
    "truncated shard": (lambda f: os.truncate(f / SHARD, 100), SHARD),
    "empty shard": (lambda f: os.truncate(f / SHARD, 0), SHARD),
    "one bit flipped": (lambda f: _flip(f / SHARD), SHARD),
    "one bit flipped in the ends": (lambda f: _flip(f / "meta/episode_ends/c/0"), "meta/episode_ends/c/0"),
    "one bit flipped in the metadata": (lambda f: _flip(f / "zarr.json"), "zarr.json"),
    "missing shard": (lambda f: (f / SHARD).unlink(), SHARD),
    "missing metadata": (lambda f: (f / "meta/seed/zarr.json").unlink(), "meta/seed"),
    "missing array": (_without_array, "data/action"),
    "missing manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json"),
    "manifest cut short": (lambda f: os.truncate(f / "manifest.json", 60), "manifest.json"),
    "file that nobody listed": (lambda f: (f / "data" / "notes.txt").write_text("x"), "data/notes.txt"),
    "shard of another store": (lambda f: (f / SHARD).write_bytes(b"x" * (f / SHARD).stat().st_size), SHARD),
    "link out of the store": (lambda f: _link(f / SHARD), SHARD),
    "object dtype": (_document("data/action", _set("data_type", value="object")), "data/action"),
    "float64 actions": (_document("data/action", _set("data_type", value="float64")), "data/action"),
    "a trillion rows": (_document("data/action", _set("shape", value=[10**12, 2])), "data/action"),
    "huge chunks": (
        _document("data/action", _set("chunk_grid", "configuration", "chunk_shape", value=[2**40, 2])),
        "data/action",
    ),
    "negative shape": (_document("data/action", _set("shape", value=[-5, 2])), "data/action"),
    "unknown codec": (_document("data/action", _set("codecs", value=[{"name": "pickle"}])), "data/action"),
    "schema of the future": (_document("", _set("attributes", "schema_version", value=99)), "99"),
    "no spec": (_document("", lambda value: value["attributes"].pop("spec")), "spec"),
    "channel missing in the spec": (
        _document("", lambda value: value["attributes"]["spec"]["action"].pop()),
        "data/action|action",
    ),
    "rate of zero": (_document("", _set("attributes", "spec", "control_hz", value=0)), "control_hz"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_stores_are_refused(tmp_path: Path, kind: str) -> None:
    damage, place = UNREADABLE[kind]
    store.write(tmp_path / "set.zarr", synthetic())
    damage(tmp_path / "set.zarr")
    with pytest.raises(StoreError, match=place):
        load(tmp_path / "set.zarr")


Change = Callable[[Demonstrations], Demonstrations]


def _values(field: str, place: Callable[[Demonstrations], Any], value: Any) -> Change:
    def change(demos: Demonstrations) -> Demonstrations:
        array = getattr(demos, field).copy()
        array[place(demos)] = value
        return replace(demos, **{field: array})

    return change


def _columns(name: str, place: Any, value: Any) -> Change:
    def change(demos: Demonstrations) -> Demonstrations:
        column = demos.columns[name].astype(object) if name == "task" else demos.columns[name].copy()
        column[place] = value
        column = column.astype(str) if name == "task" else column
        return replace(demos, columns={**demos.columns, name: column})

    return change


def _step(episode: int, step: int, *column: int) -> Callable[[Demonstrations], Any]:
    return lambda demos: (demos.episode_starts[episode] + step, *column)


def _from(episode: int, step: int) -> Callable[[Demonstrations], Any]:
    """That step and the rest of its episode."""
    return lambda demos: slice(demos.episode_starts[episode] + step, demos.episode_ends[episode])


def _copied(demos: Demonstrations) -> Demonstrations:
    """Episode 7 becomes a second recording of episode 2, as long as the shorter of the two."""
    parts = [slice(start, end) for start, end in zip(demos.episode_starts, demos.episode_ends, strict=True)]
    parts[7] = parts[2]
    steps = np.concatenate([np.arange(part.start, part.stop) for part in parts])
    return replace(
        demos,
        observation=demos.observation[steps],
        action=demos.action[steps],
        time_s=demos.time_s[steps],
        state=None,
        episode_ends=np.cumsum([part.stop - part.start for part in parts]),
    )


def _shifted_clock(demos: Demonstrations) -> Demonstrations:
    time = demos.time_s.copy()
    time[slice(demos.episode_starts[4], demos.episode_ends[4])] += 0.5
    return replace(demos, time_s=time)


def _lost_frames(demos: Demonstrations) -> Demonstrations:
    time = demos.time_s.copy()
    time[demos.episode_starts[4] + 9 : demos.episode_ends[4]] += 0.1
    return replace(demos, time_s=time)


def _slow_clock(demos: Demonstrations) -> Demonstrations:
    time = demos.time_s.copy()
    time[demos.episode_starts[4] : demos.episode_ends[4]] *= 1.2
    return replace(demos, time_s=time)


def _saturated(demos: Demonstrations) -> Demonstrations:
    return replace(
        demos, action=np.where(np.arange(len(demos.action))[:, None] % 9 == 0, np.float32(1.5), demos.action)
    )


def _merged(demos: Demonstrations) -> Demonstrations:
    """Somebody forgot to write an end: episodes 3 and 4 are one, and its time starts again in the middle."""
    columns = {name: np.delete(column, 4) for name, column in demos.columns.items()}
    return replace(demos, episode_ends=np.delete(demos.episode_ends, 3), columns=columns)


UNFIT: dict[str, tuple[Change, str]] = {
    "NaN observed": (
        _values("observation", _step(3, 17, 2), np.nan),
        r"observation\.feature_2 is nan at episode 3, step 17",
    ),
    "infinite observation": (
        _values("observation", _step(0, 0, 0), np.inf),
        r"observation\.feature_0 is inf at episode 0, step 0",
    ),
    "NaN action": (
        _values("action", _from(5, 20), np.nan),
        r"action\.target_0 is nan at episode 5, step 20; .* in episode 5",
    ),
    "NaN state": (_values("state", _step(2, 4, 1), np.nan), "state is nan at episode 2, step 4"),
    "NaN time": (_values("time_s", _step(6, 8), np.nan), "time_s is nan at episode 6, step 8"),
    "time backwards": (
        _values("time_s", _step(6, 8), 0.05),
        r"time_s goes from 0\.7 s to 0\.05 s at episode 6, step 8",
    ),
    "time stands still": (_values("time_s", _step(6, 8), 0.7), r"goes from 0\.7 s to 0\.7 s at episode 6, step 8"),
    "time does not start at 0": (_shifted_clock, r"time_s starts at 0\.5 s instead of 0 at episode 4, step 0"),
    "frames lost": (_lost_frames, r"time_s has a step of 0\.2 s.* at episode 4, step 9"),
    "another rate": (_slow_clock, r"time_s has steps of 0\.12 s on average.* at episode 4"),
    "rate in the spec wrong": (
        lambda d: replace(d, spec=replace(d.spec, control_hz=30.0)),
        "on average, control_hz 30 .* at episode 0; 20 episodes",
    ),
    "observation out of limits": (
        _values("observation", _step(9, 1, 3), 1.6),
        r"observation\.feature_3 is 1\.6, outside \[-1\.5, 1\.5\] m, at episode 9, step 1",
    ),
    "action out of limits": (_values("action", _step(9, 1, 1), -99), r"action\.target_1 is -99, outside .* episode 9"),
    "limits the wrong way round": (
        lambda d: replace(
            d, spec=replace(d.spec, action=(replace(d.spec.action[0], low=1.5, high=-1.5), d.spec.action[1]))
        ),
        r"spec\.action\.target_0 has low 1\.5, high -1\.5",
    ),
    "two channels of one name": (
        lambda d: replace(d, spec=replace(d.spec, action=(d.spec.action[0],) * 2)),
        r"spec\.action\[1\] repeats the channel name 'target_0'",
    ),
    "dead action": (_values("action", lambda d: (slice(None), 1), 0.25), r"action\.target_1 is 0\.25 at every step"),
    "saturated actions": (_saturated, r"action\.target_0 lies at its limits in 11\.\d+% of steps.* at episode"),
    "episode twice": (_copied, "observation and action repeat episode 2 bit for bit at episode 7"),
    "two episodes in one": (_merged, "time_s goes from .* to 0 s at episode 3"),
    "failures": (_columns("success", slice(4, 9), False), r"columns\.success is false at episode 4; 5 episodes"),
    "episode of another task": (_columns("task", 11, "kitchen"), r"columns\.task is 'kitchen', .* at episode 11"),
    "seed twice": (_columns("seed", 11, 3), r"columns\.seed is 3, used before, at episode 11"),
    "impossible seed": (_columns("seed", 11, -7), r"columns\.seed is -7, .* at episode 11"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_unfit_demonstrations_are_refused(tmp_path: Path, kind: str) -> None:
    change, sentence = UNFIT[kind]
    store.write(tmp_path / "set.zarr", change(synthetic()))
    with pytest.raises(ValidationError, match=sentence) as caught:
        load(tmp_path / "set.zarr")
    assert "set.zarr" in str(caught.value)
    assert "->" in str(caught.value)


@pytest.mark.parametrize(
    ("bound", "sentence"), [({"min_steps": 50}, "below min_steps 50"), ({"max_steps": 40}, "above max")]
)
def test_lengths_out_of_bounds_are_refused(bound: dict[str, int], sentence: str) -> None:
    report = validate.validate(synthetic(), Knowledge(), **{**BOUNDS, **bound})
    with pytest.raises(ValidationError, match=f"length is .* steps, {sentence}.* at episode"):
        validate.raise_for_errors(report, "here")


MALFORMED: dict[str, tuple[Change, str]] = {  # what no store holds, and an importer may still hand over
    "flat observations": (lambda d: replace(d, observation=d.observation.ravel()), "observation has shape"),
    "an action short": (lambda d: replace(d, action=d.action[:-1]), "action has shape"),
    "a channel too many": (lambda d: replace(d, action=np.tile(d.action, 2)), "action has shape"),
    "float64": (lambda d: replace(d, observation=d.observation.astype(float)), "observation has dtype float64"),
    "objects": (lambda d: replace(d, action=d.action.astype(object)), "action has dtype object"),
    "float32 time": (lambda d: replace(d, time_s=d.time_s.astype(np.float32)), "time_s has dtype float32"),
    "state short": (lambda d: replace(d, state=d.state[:-1]), "state has shape"),
    "no episodes": (lambda d: replace(d, episode_ends=d.episode_ends[:0]), "episode_ends is empty"),
    "ends fall": (lambda d: replace(d, episode_ends=d.episode_ends[::-1].copy()), "grow .* at episode 1"),
    "empty episode": (_values("episode_ends", lambda d: 0, 0), "grow .* at episode 0"),
    "ends beyond the data": (_values("episode_ends", lambda d: -1, 9999), "9999, beyond the .* at episode 19"),
    "ends short of the data": (
        lambda d: replace(d, episode_ends=d.episode_ends[:-1]), "short of the .* at episode 18",
    ),
    "column missing": (lambda d: replace(d, columns={"seed": d.columns["seed"]}), r"columns\.operator is missing"),
    "column unknown": (lambda d: replace(d, columns={**d.columns, "mood": d.columns["seed"]}), r"columns\.mood is unk"),
    "column short": (
        lambda d: replace(d, columns={**d.columns, "seed": d.columns["seed"][:-1]}), r"columns\.seed has shape \(19,\)",
    ),
    "column of objects": (
        lambda d: replace(d, columns={**d.columns, "task": d.columns["task"].astype(object)}),
        r"columns\.task has dtype object",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_demonstrations_are_refused(kind: str) -> None:
    change, sentence = MALFORMED[kind]
    report = validate.validate(change(synthetic()), Knowledge(), **BOUNDS)
    with pytest.raises(ValidationError, match=sentence):
        validate.raise_for_errors(report, "here")


def test_there_are_many_kinds() -> None:
    assert len({*UNREADABLE, *UNFIT, *MALFORMED}) >= 60


def test_a_refusal_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "set.zarr"
    store.write(path, UNFIT["NaN observed"][0](synthetic()))
    before = {file: hashlib.sha256(file.read_bytes()).digest() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(ValidationError):
        load(path)
    assert before == {file: hashlib.sha256(file.read_bytes()).digest() for file in path.rglob("*") if file.is_file()}
