"""The metadata of a LeRobot set, v2.0 to v3.0: features, episodes, and where their rows and films lie.

https://huggingface.co/docs/lerobot: v2 has one parquet file and one video an episode, v3 has many episodes in a file.
Episodes are found by episode_index, never by the position of a row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.contract import StoreError
from vqbet.demos.sources import checked, parquet
from vqbet.files import reading

VERSIONS = ("v2.0", "v2.1", "v3.0")
NUMBERS = {"float16", "float32", "float64", "bool", *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64))}
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
STATISTICS = ("min", "max", "mean", "count")
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

Statistics = Mapping[str, Mapping[str, np.ndarray]]  # of each feature: min, max, mean, count


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature as meta/info.json promises it."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    info: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Info:
    """meta/info.json."""

    path: Path
    version: str
    fps: float
    features: Mapping[str, Feature]
    chunk_episodes: int
    data_path: str
    video_path: str
    totals: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames of an episode in a video file: frame `first` is the first of them; the file holds `total` frames."""

    path: Path
    first: int
    total: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the episode table. first: `index` of the episode's first step in the whole set."""

    steps: int
    first: int
    tasks: tuple[str, ...]
    data: Path
    where: str
    clips: Mapping[str, Clip]
    statistics: Statistics
    labels: Mapping[str, Any] = field(default_factory=dict)


def info(root: Path) -> Info:
    """Return meta/info.json. Raises StoreError naming the key that is missing or wrong."""
    path = root / "meta" / "info.json"
    value = checked.document(root, path, "what the set holds")
    version = value.get("codebase_version")
    if version not in VERSIONS:
        raise StoreError(f"{path}: codebase_version: expected {' or '.join(VERSIONS)}, got {reading.short(version)}")
    where = f"{path}: features"
    notes: list[str] = []
    features = {
        name: _feature(name, checked.mapping(one, f"{where}: {name}"), f"{where}: {name}", notes)
        for name, one in checked.mapping(value.get("features"), where).items()
    }
    lacking = [name for name in BOOKKEEPING if name not in features]
    if lacking:
        raise StoreError(f"{where}: expected {', '.join(BOOKKEEPING)}, but {', '.join(lacking)} is missing")
    split = version == "v3.0"
    return Info(
        path,
        version,
        checked.rate(value.get("fps"), f"{path}: fps"),
        features,
        checked.count(value.get("chunks_size", 1000), f"{path}: chunks_size", 1),
        checked.text(value.get("data_path", DATA_PATH if split else None), f"{path}: data_path"),
        checked.text(value.get("video_path") or (VIDEO_PATH if split else ""), f"{path}: video_path"),
        {
            name: checked.count(value[name], f"{path}: {name}")
            for name in ("total_episodes", "total_frames", "total_tasks")
            if name in value
        },
        tuple(notes),
    )


def _feature(name: str, value: dict[str, Any], where: str, notes: list[str]) -> Feature:
    dtype = checked.text(value.get("dtype"), f"{where}: dtype")
    shape = value.get("shape")
    if not isinstance(shape, list | tuple) or not all(type(size) is int and 0 < size < 2**31 for size in shape):
        raise StoreError(f"{where}: shape: expected a list of positive whole numbers, got {reading.short(shape)}")
    names = _flat(value.get("names"), f"{where}: names")
    expected = math.prod(shape)
    if dtype in NUMBERS and names and len(names) != expected:
        if len(names) != 1:
            raise StoreError(f"{where}: names: expected {expected} names for shape {shape}, got {len(names)}")
        names = ()  # a name of the whole vector, as in openpi's sets
    if dtype in NUMBERS and len(set(names)) != len(names):
        notes.append(f"meta/info.json: {name}: its names repeat and are not used")
        names = ()
    more = value.get("info") or value.get("video_info") or {}
    return Feature(dtype, tuple(shape), names, checked.mapping(more, f"{where}: info"))


def _flat(names: Any, where: str) -> tuple[str, ...]:
    """Return the names in lists of lists, or in a dict of lists or of places, one after the other."""
    if names is None:
        return ()
    if isinstance(names, str):
        return (reading.cut(names),)
    if isinstance(names, dict):
        if all(type(place) is int for place in names.values()):
            return tuple(sorted(names, key=names.__getitem__))
        names = list(names.values())
    if not isinstance(names, list):
        raise StoreError(f"{where}: expected a list of names, got {reading.short(names)}")
    return tuple(name for one in names for name in _flat(one, where))


def filled(template: str, where: str, **values: int | str) -> str:
    """Return a path template with its {name} and {name:03d} replaced. Any other field in braces is refused."""

    def one(match: re.Match[str]) -> str:
        name, width = match["name"], match["width"]
        if name not in values:
            raise StoreError(f"{where}: {reading.short(template)}: expected {', '.join(values)} in braces, got {name}")
        return f"{values[name]:0{int(width)}d}" if width and isinstance(values[name], int) else str(values[name])

    path = re.sub(r"\{(?P<name>\w+)(?::0(?P<width>\d)d)?\}", one, template)
    if not path or "{" in path or path.startswith("/") or ".." in Path(path).parts:
        raise StoreError(f"{where}: expected a path inside the set, got {reading.short(template)}")
    return path


def entries(root: Path, told: Info) -> list[Entry]:
    """Return the episodes in the order of episode_index, which must be 0, 1, 2 ... without a gap."""
    found = _v3(root, told) if told.version == "v3.0" else _v2(root, told)
    if not found:
        raise StoreError(f"{root / 'meta'}: the table of episodes is empty")
    for name, got in (
        ("total_episodes", len(found)),
        ("total_frames", sum(entry.steps for entry in found)),
        ("total_tasks", len(tasks(root, told.version))),
    ):
        if told.totals.get(name, got) != got:
            raise StoreError(f"{told.path}: {name}: says {told.totals[name]}, but the tables in meta/ make {got}")
    return found


def _in_order(rows: dict[int, Any], where: str) -> list[Any]:
    for expected, got in enumerate(sorted(rows)):
        if got != expected:
            raise StoreError(
                f"{where}: episode_index: expected 0 to {len(rows) - 1} without gaps, but episode {expected} is missing"
            )
    return [rows[index] for index in range(len(rows))]


def tasks(root: Path, version: str) -> dict[int, str]:
    """Return the text of each task by its task_index."""
    found: dict[int, str] = {}
    if version == "v3.0":
        rows: Iterable[tuple[str, Any, Any]] = parquet.texts(
            root, root / "meta" / "tasks.parquet", "task", "task_index"
        )
    else:
        path = root / "meta" / "tasks.jsonl"
        rows = [
            (where, row.get("task_index"), row.get("task")) for where, row in checked.lines(root, path, "the tasks")
        ]
    for where, index, words in rows:
        number = checked.count(index, f"{where}: task_index")
        if number in found:
            raise StoreError(f"{where}: task_index {number} is there twice")
        found[number] = checked.text(words, f"{where}: task")
    return found


def _words(value: Any, known: set[str], where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(words, str) for words in value):
        raise StoreError(f"{where}: tasks: expected a list of texts, got {reading.short(value)}")
    for words in value:
        if words not in known:
            raise StoreError(f"{where}: tasks: {reading.short(words)} is not in the table of tasks")
    return tuple(value)


def _v2(root: Path, told: Info) -> list[Entry]:
    path = root / "meta" / "episodes.jsonl"
    known = set(tasks(root, told.version).values())
    rows: dict[int, tuple[str, dict[str, Any]]] = {}
    for where, row in checked.lines(root, path, "the table of episodes"):
        index = checked.count(row.get("episode_index"), f"{where}: episode_index")
        if index in rows:
            raise StoreError(f"{where}: episode_index {index} is there twice")
        rows[index] = (where, row)
    statistics = _episode_statistics(root, told)
    films = [name for name, feature in told.features.items() if feature.dtype == "video"]
    found, first = [], 0
    for index, (line, row) in enumerate(_in_order(rows, str(path))):
        where = f"{line}: episode {index}"
        steps = checked.count(row.get("length"), f"{where}: length", 1, checked.MAX_STEPS)
        chunk = index // told.chunk_episodes
        data = filled(told.data_path, f"{told.path}: data_path", episode_chunk=chunk, episode_index=index)
        clips = {
            key: Clip(
                root
                / filled(
                    told.video_path, f"{told.path}: video_path", episode_chunk=chunk, episode_index=index, video_key=key
                ),
                0,
                steps,
            )
            for key in films
        }
        words = _words(row.get("tasks"), known, where)
        labels = _labels(row, ("episode_index", "tasks", "length"))
        found.append(Entry(steps, first, words, root / data, where, clips, statistics.get(index, {}), labels))
        first += steps
    unknown = sorted(set(statistics) - set(rows))
    if unknown:
        raise StoreError(f"{root / 'meta' / 'episodes_stats.jsonl'}: episode {unknown[0]}: is not in {path}")
    return found


def _labels(row: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    found = {name: checked.label(value) for name, value in row.items() if name not in known and "/" not in name}
    return {name: value for name, value in found.items() if value is not None}


def _episode_statistics(root: Path, told: Info) -> dict[int, Statistics]:
    path = root / "meta" / "episodes_stats.jsonl"
    found: dict[int, Statistics] = {}
    if path.exists():
        for where, row in checked.lines(root, path, "the statistics of episodes"):
            index = checked.count(row.get("episode_index"), f"{where}: episode_index")
            place = f"{where}: episode {index}: stats"
            found[index] = statistics_of(checked.mapping(row.get("stats"), place), told, place)
    return found


def statistics_of(value: Mapping[str, Any], told: Info, where: str) -> Statistics:
    """Return min, max, mean and count of the features of numbers, flat. Raises StoreError for NaN and a wrong size."""
    found = {}
    for name, feature in told.features.items():
        if feature.dtype not in NUMBERS or name not in value:
            continue
        one = checked.mapping(value[name], f"{where}: {name}")
        kept = {}
        for kind in STATISTICS:
            if one.get(kind) is None:
                continue
            with checked.decoding(f"{where}: {name}: {kind}"):
                numbers = np.asarray(one[kind], np.float64).ravel()
            expected = 1 if kind == "count" else math.prod(feature.shape)
            if len(numbers) != expected:
                raise StoreError(f"{where}: {name}: {kind}: expected {expected} numbers, got {len(numbers)}")
            if not np.isfinite(numbers).all():
                raise StoreError(f"{where}: {name}: {kind}: expected finite numbers, got NaN or infinity")
            kept[kind] = numbers
        found[name] = kept
    return found


def _v3(root: Path, told: Info) -> list[Entry]:
    folder = root / "meta" / "episodes"
    known = set(tasks(root, told.version).values())
    films = [name for name, feature in told.features.items() if feature.dtype == "video"]
    rows: dict[int, tuple[str, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*/*.parquet"), key=lambda path: checked.natural(str(path))):
        for row in parquet.rows(root, path, "the table of episodes"):
            index = checked.count(row.get("episode_index"), f"{path}: episode_index")
            if index in rows:
                raise StoreError(f"{path}: episode_index {index} is there twice")
            rows[index] = (f"{path}: episode {index}", row)
    if not rows:
        raise StoreError(f"{folder}: expected */*.parquet, the table of episodes; found {checked.listing(folder)}")
    ordered = _in_order(rows, str(folder))
    clips: list[dict[str, Clip]] = [{} for _ in ordered]
    for key in films:
        for index, clip in enumerate(_clips(root, told, key, ordered)):
            clips[index][key] = clip
    found, first = [], 0
    for index, (where, row) in enumerate(ordered):
        steps = checked.count(row.get("length"), f"{where}: length", 1, checked.MAX_STEPS)
        for name, expected in (("dataset_from_index", first), ("dataset_to_index", first + steps)):
            if row.get(name) != expected:
                raise StoreError(
                    f"{where}: {name}: expected {expected} by the lengths, got {reading.short(row.get(name))}"
                )
        data = root / filled(told.data_path, f"{told.path}: data_path", **_file(row, "data", where))
        statistics = statistics_of(_nested(row), told, f"{where}: stats")
        labels = _labels(row, ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"))
        words = _words(row.get("tasks"), known, where)
        found.append(Entry(steps, first, words, data, where, clips[index], statistics, labels))
        first += steps
    return found


def _nested(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the columns stats/<feature>/<kind> of a row by feature and kind; a feature's name may hold slashes."""
    found: dict[str, dict[str, Any]] = {}
    for column, value in row.items():
        if column.startswith("stats/") and column.count("/") >= 2:
            name, kind = column.removeprefix("stats/").rsplit("/", 1)
            found.setdefault(name, {})[kind] = value
    return found


def _file(row: Mapping[str, Any], prefix: str, where: str) -> dict[str, int]:
    return {
        name: checked.count(row.get(f"{prefix}/{name}"), f"{where}: {prefix}/{name}")
        for name in ("chunk_index", "file_index")
    }


def _clips(root: Path, told: Info, key: str, rows: list[tuple[str, dict[str, Any]]]) -> list[Clip]:
    """Return where each episode lies in its video file: behind the episodes before it, by their lengths.

    from_timestamp is an accumulated float (lerobot issue 3177): it tells the order and is checked to half a frame, and
    no frame is found by it.
    """
    prefix = f"videos/{key}"
    files: dict[str, list[int]] = {}
    starts: dict[int, int] = {}
    for index, (where, row) in enumerate(rows):
        path = filled(told.video_path, f"{told.path}: video_path", **_file(row, prefix, where), video_key=key)
        began, ended = row.get(f"{prefix}/from_timestamp"), row.get(f"{prefix}/to_timestamp")
        for name, value in (("from_timestamp", began), ("to_timestamp", ended)):
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise StoreError(f"{where}: {prefix}/{name}: expected seconds, got {reading.short(value)}")
        files.setdefault(path, []).append(index)
    totals = {}
    for path, members in files.items():
        first = 0
        for index in sorted(members, key=lambda index: (rows[index][1][f"{prefix}/from_timestamp"], index)):
            where, row = rows[index]
            steps = checked.count(row.get("length"), f"{where}: length", 1, checked.MAX_STEPS)
            for name, frame in (("from_timestamp", first), ("to_timestamp", first + steps)):
                off = row[f"{prefix}/{name}"] * told.fps - frame
                if abs(off) > 0.5:
                    raise StoreError(
                        f"{where}: {prefix}/{name}: expected {frame / told.fps:.4f} s by the lengths of episodes in "
                        f"{path}, got {row[f'{prefix}/{name}']:.4f} s, {abs(off):.1f} frames off"
                    )
            starts[index] = first
            first += steps
        totals[path] = first
    places = {index: path for path, members in files.items() for index in members}
    return [Clip(root / places[index], starts[index], totals[places[index]]) for index in range(len(rows))]
