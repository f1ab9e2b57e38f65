"""Demonstrations as a LeRobot data set, v3.0 or v2.1, which the `lerobot` package opens.

Numbers are written as they are. Pictures are PNG, which is lossless, so that a set that is read back has equal bytes.
What LeRobot has no place for (limits, units, meaning of actions) stands in meta/info.json under OWN, which other
readers ignore. https://huggingface.co/docs/lerobot
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vqbet.contract import Channel, Demonstrations, Frames, Spec, StoreError
from vqbet.files import atomic, canonical

OWN = "vqbet"  # key of meta/info.json
STATE, ACTION, PICTURES = "observation.state", "action", "observation.images."
SUCCESS, INTERVENTION = "next.success", "intervention"
CHUNK_FILES = 1000  # episodes (v2.1) or files (v3.0) in a folder
FILE_BYTES = 100 * 2**20  # beyond which v3.0 begins another file
SAMPLED = 100  # pictures of an episode behind its statistics
Version = Literal["v3.0", "v2.1"]
Progress = Callable[[int, int], None]


def write(folder: Path, demos: Demonstrations, version: Version, progress: Progress) -> None:
    """Write demonstrations to a new folder; progress(done, total) counts episodes.

    Raises StoreError where the folder holds something, or cannot be written; nothing is then left behind.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder}: holds something already; name a new folder")
    with atomic.replacing(folder, StoreError) as staging:
        try:
            (_v3 if version == "v3.0" else _v2)(staging, demos, progress)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _v3(folder: Path, demos: Demonstrations, progress: Progress) -> None:
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    rows, number, writer = [], 0, None
    path = folder
    for episode, table, statistics in _episodes(demos):
        if writer is not None and path.stat().st_size > FILE_BYTES:
            writer.close()
            writer, number = None, number + 1
        if writer is None:
            path = folder / f"data/chunk-{number // CHUNK_FILES:03d}/file-{number % CHUNK_FILES:03d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = parquet.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=len(table))
        place = {"chunk_index": number // CHUNK_FILES, "file_index": number % CHUNK_FILES}
        rows.append(
            {
                "episode_index": episode,
                "tasks": [demos.spec.task],
                "length": len(table),
                **{f"data/{name}": value for name, value in place.items()},
                "dataset_from_index": int(demos.episode_starts[episode]),
                "dataset_to_index": int(demos.episode_ends[episode]),
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **{f"stats/{name}/{key}": value for name, found in statistics.items() for key, value in found.items()},
            }
        )
        progress(episode + 1, len(demos.episode_ends))
    if writer is not None:
        writer.close()
    table = folder / "meta/episodes/chunk-000/file-000.parquet"
    table.parent.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(rows), table)
    tasks = pd.DataFrame({"task_index": [0]}, index=pd.Index([demos.spec.task], name="task"))
    tasks.to_parquet(folder / "meta/tasks.parquet")
    whole = {name: _whole(rows, name) for name in _features(demos.spec, demos)}
    _document(folder / "meta/stats.json", {name: found for name, found in whole.items() if found})
    paths = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "data_files_size_in_mb": FILE_BYTES // 2**20,
    }
    _document(folder / "meta/info.json", _info("v3.0", demos) | paths)


def _v2(folder: Path, demos: Demonstrations, progress: Progress) -> None:
    from pyarrow import parquet

    listed, counted = [], []
    for episode, table, statistics in _episodes(demos):
        path = folder / f"data/chunk-{episode // CHUNK_FILES:03d}/episode_{episode:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path)
        listed.append({"episode_index": episode, "tasks": [demos.spec.task], "length": len(table)})
        counted.append({"episode_index": episode, "stats": statistics})
        progress(episode + 1, len(demos.episode_ends))
    (folder / "meta").mkdir()
    _lines(folder / "meta/episodes.jsonl", listed)
    _lines(folder / "meta/episodes_stats.jsonl", counted)
    _lines(folder / "meta/tasks.jsonl", [{"task_index": 0, "task": demos.spec.task}])
    count = len(listed)
    totals = {
        "total_chunks": -(-count // CHUNK_FILES),
        "total_videos": 0,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": None,
    }
    _document(folder / "meta/info.json", _info("v2.1", demos) | totals)


def _info(version: Version, demos: Demonstrations) -> dict[str, Any]:
    rate = demos.spec.control_hz
    return {
        "codebase_version": version,
        "robot_type": demos.spec.task,
        "total_episodes": len(demos.episode_ends),
        "total_frames": len(demos.action),
        "total_tasks": 1,
        "chunks_size": CHUNK_FILES,
        "fps": int(rate) if rate == int(rate) else rate,
        "splits": {"train": f"0:{len(demos.episode_ends)}"},
        "features": _features(demos.spec, demos),
        OWN: {"spec": demos.spec.to_json()},
    }


def _features(spec: Spec, demos: Demonstrations) -> dict[str, Any]:
    """Return the features of a set by their names, as meta/info.json has them."""
    vectors = {STATE: spec.observation, ACTION: spec.action}
    scalars = {"frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64"}
    flags = [SUCCESS, *([INTERVENTION] if demos.intervention is not None else [])]
    pictures = {
        PICTURES + camera.name: {
            "dtype": "image",
            "shape": list(camera.shape),
            "names": ["height", "width", "channels"],
        }
        for camera in spec.cameras
    }
    return {
        **{name: _vector(channels) for name, channels in vectors.items()},
        **pictures,
        **{name: {"dtype": "bool", "shape": [1], "names": None} for name in flags},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in scalars.items()},
    }


def _vector(channels: tuple[Channel, ...]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(channels)], "names": [channel.name for channel in channels]}


def _episodes(demos: Demonstrations) -> Iterator[tuple[int, Any, dict[str, Any]]]:
    """Yield the number, the table and the statistics of each episode; pictures of one episode are held at a time."""
    import pyarrow as pa

    for episode, (start, end) in enumerate(
        zip(demos.episode_starts.tolist(), demos.episode_ends.tolist(), strict=True)
    ):
        steps = np.arange(start, end)
        numbers = {STATE: demos.observation[start:end], ACTION: demos.action[start:end]}
        done = np.zeros(len(steps), bool)
        done[-1] = demos.columns["success"][episode]
        flags = {SUCCESS: done}
        if demos.intervention is not None:
            flags[INTERVENTION] = demos.intervention[start:end]
        plain = {
            **flags,
            "timestamp": (np.arange(len(steps)) / demos.spec.control_hz).astype(np.float32),
            "frame_index": np.arange(len(steps)),
            "episode_index": np.full(len(steps), episode),
            "index": steps,
            "task_index": np.zeros(len(steps), np.int64),
        }
        columns = {name: _listed(values) for name, values in numbers.items()}
        columns |= {PICTURES + name: _png(frames, steps) for name, frames in demos.cameras.items()}
        columns |= {name: pa.array(values) for name, values in plain.items()}
        statistics = {name: _statistics(values) for name, values in {**numbers, **plain}.items()}
        statistics |= {PICTURES + name: _brightness(frames, steps) for name, frames in demos.cameras.items()}
        yield episode, pa.table(columns), statistics


def _listed(values: np.ndarray) -> Any:
    """Return rows of float32 as a column: lists of equal length, or plain numbers where a row has one."""
    import pyarrow as pa

    values = np.ascontiguousarray(values, np.float32)
    flat = pa.array(values.ravel())
    return flat if values.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _png(frames: Frames, steps: np.ndarray) -> Any:
    """Return pictures as a column of PNG files, as LeRobot has them."""
    import pyarrow as pa
    from PIL import Image

    rows = []
    for step in steps:
        written = io.BytesIO()
        Image.fromarray(frames[np.array([step])][0]).save(written, "png", compress_level=1)
        rows.append({"bytes": written.getvalue(), "path": f"frame-{step - steps[0]:06d}.png"})
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def _statistics(values: np.ndarray) -> dict[str, list[float]]:
    """Return min, max, mean, std and count over axis 0, each a list."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    return {**{name: value.tolist() for name, value in found.items()}, "count": [len(rows)]}


def _brightness(frames: Frames, steps: np.ndarray) -> dict[str, Any]:
    """Return statistics of each colour over some pictures, of shape (3, 1, 1), 0..1."""
    picked = steps[np.unique(np.linspace(0, len(steps) - 1, SAMPLED).round().astype(int))]
    found = _statistics(frames[picked].reshape(-1, 3) / 255.0)
    shaped = {name: [[[value]] for value in found[name]] for name in ("min", "max", "mean", "std")}
    return {**shaped, "count": [len(picked)]}


def _whole(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return the statistics of a feature over all episodes, from those of each episode."""
    count = np.array([row[f"stats/{name}/count"][0] for row in rows], np.float64)
    parts = {key: np.array([row[f"stats/{name}/{key}"] for row in rows]) for key in ("min", "max", "mean", "std")}
    weight = (count / count.sum()).reshape(-1, *([1] * (parts["mean"].ndim - 1)))
    mean = (weight * parts["mean"]).sum(0)
    spread = (weight * (parts["std"] ** 2 + (parts["mean"] - mean) ** 2)).sum(0) ** 0.5
    found = {"min": parts["min"].min(0), "max": parts["max"].max(0), "mean": mean, "std": spread}
    return {**{key: value.tolist() for key, value in found.items()}, "count": [int(count.sum())]}


def _document(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(canonical.document(value, indent=4), encoding="utf-8")


def _lines(path: Path, values: list[Any]) -> None:
    path.write_text("".join(canonical.line(value) + "\n" for value in values), encoding="utf-8")
