"""Small good demonstrations in every foreign format, written without the library that usually writes them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.demos.sources.source import Source

FPS = 10
LENGTHS = (12, 7, 15)
SIZE = (64, 96)  # height, width in px: the least that encodes as AV1 is 64
TASKS = ("push the block", "lift the block")


@dataclass(frozen=True)
class Made:
    """One episode, as every format stores it. Each picture has one colour, which tells its step."""

    state: np.ndarray  # (N, 3) float32
    action: np.ndarray  # (N, 2) float32
    pictures: np.ndarray  # (N, height, width, 3) uint8
    task: str

    @property
    def steps(self) -> int:
        return len(self.state)


def made(lengths: Iterable[int] = LENGTHS, seed: int = 0) -> list[Made]:
    """Return the episodes that the functions below write."""
    generator = np.random.default_rng(seed)
    found = []
    for number, steps in enumerate(lengths):
        colours = np.stack([20 + 12 * np.arange(steps), np.full(steps, 40 * number), np.full(steps, 128)], axis=1)
        pictures = np.broadcast_to(colours[:, None, None].astype(np.uint8), (steps, *SIZE, 3)).copy()
        state = generator.normal(size=(steps, 3)).astype(np.float32)
        found.append(Made(state, np.diff(state, axis=0, append=state[-1:])[:, :2], pictures, TASKS[number % 2]))
    return found


def film(path: Path, pictures: np.ndarray, *, codec: str = "libx264", fps: int = FPS, late: int = 0) -> None:
    """Write a video of the pictures; its first frame has the timestamp late/fps."""
    from fractions import Fraction

    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"crf": "12", "g": "2", "bf": "0"} if codec == "libx264" else {"crf": "20", "g": "2", "preset": "12"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for step, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = step + late, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def png(picture: np.ndarray) -> bytes:
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, format="PNG")
    return sink.getvalue()


def statistics(values: np.ndarray) -> dict[str, list]:
    """Return the statistics of LeRobot for the numbers of a field."""
    columns = values.reshape(len(values), -1).astype(np.float64)
    found = {"min": columns.min(0), "max": columns.max(0), "mean": columns.mean(0), "std": columns.std(0)}
    return {name: value.tolist() for name, value in found.items()} | {"count": [len(values)]}


def _info(version: str, episodes: list[Made], camera: str, **more: Any) -> dict[str, Any]:
    scalar = {name: {"dtype": "int64", "shape": [1], "names": None} for name in COUNTERS}
    features = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": {"axes": ["x", "y", "z"]}},
        "action": {"dtype": "float32", "shape": [2], "names": [["dx", "dy"]]},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **scalar,
    }
    if camera:
        features["observation.images.top"] = {
            "dtype": camera,
            "shape": [*SIZE, 3],
            "names": ["height", "width", "channels"],
            **({"info": {"video.codec": "h264", "video.fps": FPS}} if camera == "video" else {}),
        }
    return {
        "codebase_version": version,
        "fps": FPS,
        "features": features,
        "total_episodes": len(episodes),
        "total_frames": sum(one.steps for one in episodes),
        "total_tasks": len(TASKS),
        "chunks_size": 1000,
        **more,
    }


COUNTERS = ("frame_index", "episode_index", "index", "task_index")


def _table(episodes: list[Made], first: int, start: int, images: bool) -> Any:
    """Return the rows of episodes that follow one another, the first of which has this number and first index."""
    import pyarrow as pa

    steps = [one.steps for one in episodes]
    frame = np.concatenate([np.arange(count) for count in steps])
    columns: dict[str, Any] = {
        "observation.state": pa.FixedSizeListArray.from_arrays(
            np.concatenate([one.state for one in episodes]).ravel(), 3
        ),
        "action": pa.FixedSizeListArray.from_arrays(np.concatenate([one.action for one in episodes]).ravel(), 2),
        "timestamp": pa.array((frame / FPS).astype(np.float32)),
        "frame_index": pa.array(frame),
        "episode_index": pa.array(np.repeat(first + np.arange(len(episodes)), steps)),
        "index": pa.array(start + np.arange(len(frame))),
        "task_index": pa.array(np.repeat([TASKS.index(one.task) for one in episodes], steps)),
    }
    if images:
        rows = [{"bytes": png(picture), "path": ""} for one in episodes for picture in one.pictures]
        columns["observation.images.top"] = pa.array(rows)
    return pa.table(columns)


def lerobot_v2(
    root: Path, camera: str = "video", lengths: Iterable[int] = LENGTHS, episodes: list[Made] | None = None
) -> Path:
    """Write a LeRobot v2.1 set. camera: "video", "image" or ""; episodes: others than those of `made`."""
    from pyarrow import parquet

    episodes, start = episodes or made(lengths), 0
    for folder in ("meta", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    told, counted = [], []
    for index, one in enumerate(episodes):
        path = root / f"data/chunk-000/episode_{index:06d}.parquet"
        parquet.write_table(_table([one], index, start, camera == "image"), path)
        if camera == "video":
            film(root / f"videos/chunk-000/observation.images.top/episode_{index:06d}.mp4", one.pictures)
        told.append({"episode_index": index, "tasks": [one.task], "length": one.steps})
        stats = {"observation.state": statistics(one.state), "action": statistics(one.action)}
        counted.append({"episode_index": index, "stats": stats})
        start += one.steps
    info = _info(
        "v2.1",
        episodes,
        camera,
        data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    )
    _json(root / "meta/info.json", info)
    _lines(root / "meta/episodes.jsonl", told)
    _lines(root / "meta/episodes_stats.jsonl", counted)
    _lines(root / "meta/tasks.jsonl", [{"task_index": n, "task": task} for n, task in enumerate(TASKS)])
    return root


def lerobot_v3(root: Path, camera: str = "video", lengths: Iterable[int] = LENGTHS, shuffled: bool = False) -> Path:
    """Write a LeRobot v3.0 set: one parquet file and one video for all episodes. shuffled: rows out of order."""
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    episodes = made(lengths)
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    ends = np.cumsum([one.steps for one in episodes])
    tables = [_table([one], n, int(ends[n] - one.steps), camera == "image") for n, one in enumerate(episodes)]
    order = list(reversed(range(len(episodes)))) if shuffled else list(range(len(episodes)))
    with parquet.ParquetWriter(root / "data/chunk-000/file-000.parquet", tables[0].schema) as writer:
        for n in order:
            writer.write_table(tables[n])
    rows = []
    for n in order:
        one, end = episodes[n], int(ends[n])
        row: dict[str, Any] = {
            "episode_index": n,
            "tasks": [one.task],
            "length": one.steps,
            "data/chunk_index": 0,
            "data/file_index": 0,
            "dataset_from_index": end - one.steps,
            "dataset_to_index": end,
        }
        if camera == "video":
            key = "videos/observation.images.top"
            row |= {f"{key}/chunk_index": 0, f"{key}/file_index": 0}
            row |= {f"{key}/from_timestamp": (end - one.steps) / FPS + 1e-3, f"{key}/to_timestamp": end / FPS}
        for name, values in (("observation.state", one.state), ("action", one.action)):
            row |= {f"stats/{name}/{kind}": value for kind, value in statistics(values).items()}
        rows.append(row)
    parquet.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    if camera == "video":
        pictures = np.concatenate([one.pictures for one in episodes])
        film(root / "videos/observation.images.top/chunk-000/file-000.mp4", pictures)
    pd.DataFrame({"task_index": range(len(TASKS))}, index=list(TASKS)).to_parquet(root / "meta/tasks.parquet")
    numbers = {
        "observation.state": np.concatenate([one.state for one in episodes]),
        "action": np.concatenate([one.action for one in episodes]),
    }
    _json(root / "meta/stats.json", {name: statistics(values) for name, values in numbers.items()})
    _json(
        root / "meta/info.json",
        _info(
            "v3.0",
            episodes,
            camera,
            data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        ),
    )
    return root


def robomimic(path: Path, lengths: Iterable[int] = (*LENGTHS, *[5] * 8)) -> Path:
    """Write a robomimic HDF5 file of more than ten demonstrations."""
    import h5py

    episodes = made(lengths)
    arguments = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(one.steps for one in episodes)
        data.attrs["env_args"] = json.dumps(arguments)
        for n, one in enumerate(episodes):
            demo = data.create_group(f"demo_{n}")
            demo.attrs["num_samples"] = one.steps
            demo["actions"], demo["rewards"], demo["dones"] = one.action, np.zeros(one.steps), np.zeros(one.steps, int)
            demo["states"] = one.state.astype(np.float64)
            demo["obs/eef_pos"] = one.state
            demo.create_dataset("obs/top_image", data=one.pictures, compression="gzip", chunks=(2, *SIZE, 3))
            demo["next_obs/eef_pos"] = np.roll(one.state, -1, axis=0)
        names = [f"demo_{n}".encode() for n in range(len(episodes))]
        file["mask/train"], file["mask/valid"] = np.array(names[:-2]), np.array(names[-2:])
    return path


def isaac(path: Path) -> Path:
    """Write an HDF5 file as Isaac Lab does: nested states, an initial state of one row, whether it succeeded."""
    import h5py

    arguments = {"env_name": "Isaac-Lift", "type": 2, "sim_args": {"dt": 0.01, "decimation": 5}}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(LENGTHS)
        data.attrs["env_args"] = json.dumps(arguments)
        for n, one in enumerate(made()):
            demo = data.create_group(f"demo_{n}")
            demo.attrs["num_samples"], demo.attrs["success"] = one.steps, n != 1
            demo["actions"] = one.action
            demo["obs/joint_pos"] = one.state
            demo["states/articulation/robot/joint_position"] = one.state
            demo["initial_state/articulation/robot/joint_position"] = one.state[:1]
    return path


def replay_buffer(root: Path, zarr_format: int = 2, *, pictures: str = "float32", shards: bool = False) -> Path:
    """Write a replay buffer of Diffusion Policy. pictures: the dtype of data/img; whole numbers from 0 to 255."""
    import zarr

    episodes = made()
    group = zarr.open_group(root, mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    arrays = {
        "data/state": np.concatenate([one.state for one in episodes]),
        "data/action": np.concatenate([one.action for one in episodes]),
        "data/img": np.concatenate([one.pictures for one in episodes]).astype(pictures),
        "meta/episode_ends": np.cumsum([one.steps for one in episodes]),
    }
    for name, values in arrays.items():
        whole = name == "meta/episode_ends"
        rows = len(values) if whole else 10
        sharded = {"shards": (20, *values.shape[1:])} if shards and not whole else {}
        array = group.create_array(
            name, shape=values.shape, chunks=(rows, *values.shape[1:]), dtype=values.dtype, **sharded
        )
        array[:] = values
    return root


def zipped(folder: Path, path: Path) -> Path:
    """Write a zip of the folder's files, uncompressed, as zarr's ZipStore does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


def npz(root: Path, lengths: Iterable[int] = (*LENGTHS, *[5] * 8)) -> Path:
    """Write a folder of one .npz file an episode."""
    root.mkdir(parents=True)
    for n, one in enumerate(made(lengths)):
        np.savez_compressed(
            root / f"episode_{n}.npz",
            state=one.state,
            action=one.action,
            image=one.pictures,
            timestamp=np.arange(one.steps) / FPS,
            success=np.bool_(n != 1),
            task=np.str_(one.task),
        )
    return root


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def rewrite(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Return a fault that changes a JSON document, the rows of a file of JSON lines, or a parquet table."""

    def fault(root: Path) -> None:
        path = root / name
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            changed = change(rows)
            _lines(path, rows if changed is None else changed)
        elif path.suffix == ".parquet":
            from pyarrow import parquet

            table = parquet.read_table(path)
            parquet.write_table(change(table), path)
        else:
            value = json.loads(path.read_text(encoding="utf-8"))
            changed = change(value)
            _json(path, value if changed is None else changed)

    return fault


def read_all(source: Source) -> int:
    """Read every field of every episode; return how many rows there were."""
    rows = 0
    for episode in range(len(source.episodes)):
        source.time_s(episode)
        for name, field in source.fields.items():
            if field.kind == "numbers":
                rows += len(source.numbers(episode, name))
            else:
                rows += sum(1 for _ in source.frames(episode, name))
    return rows


def bag(path: Path, *, mcap: bool = True, seconds: float = 2.0, packed: bool = False, more: Any = None) -> Path:
    """Write a bag: joints at 50 Hz, a command at 25 Hz, two cameras at 10 Hz, a text, each beginning a little later.

    The first joint counts the messages. more(writer, types): writes further messages.
    """
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), "base")

    def joints(number: int) -> Any:
        position = np.array([number, 0.5])
        return types["sensor_msgs/msg/JointState"](header, ["elbow", "wrist"], position, -position, np.zeros(0))

    def command(number: int) -> Any:
        vector = types["geometry_msgs/msg/Vector3"]
        return types["geometry_msgs/msg/Twist"](vector(float(number), 0.0, 0.0), vector(0.0, 0.0, 1.0))

    def camera(number: int) -> Any:
        data = np.full((16, 24, 3), (number, 100, 200), np.uint8).ravel()
        return types["sensor_msgs/msg/Image"](header, 16, 24, "bgr8", 0, 72, data)

    def still(number: int) -> Any:
        data = np.frombuffer(png(np.full((16, 24, 3), number, np.uint8)), np.uint8)
        return types["sensor_msgs/msg/CompressedImage"](header, "png", data)

    def text(number: int) -> Any:
        return types["std_msgs/msg/String"](str(number))

    topics = {
        "/joints": ("sensor_msgs/msg/JointState", joints, 50),
        "/command": ("geometry_msgs/msg/Twist", command, 25),
        "/camera": ("sensor_msgs/msg/Image", camera, 10),
        "/still": ("sensor_msgs/msg/CompressedImage", still, 10),
        "/log": ("std_msgs/msg/String", text, 10),
    }
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP if mcap else StoragePlugin.SQLITE3)
    if packed:
        mode = CompressionMode.STORAGE if mcap else CompressionMode.FILE
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        for place, (topic, (kind, build, hz)) in enumerate(topics.items()):
            connection = writer.add_connection(topic, kind, typestore=store)
            for number in range(int(seconds * hz)):
                stamp = 10**18 + 10**6 * place + number * 10**9 // hz
                writer.write(connection, stamp, store.serialize_cdr(build(number), kind))
        if more:
            more(writer, store)
    return path
