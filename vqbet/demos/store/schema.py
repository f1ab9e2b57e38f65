"""Layout of a demonstration store: its arrays, their dtypes and chunks, and the largest size of each part.

Names follow the replay-buffer convention of Diffusion Policy (arXiv 2303.04137): `data/<field>` arrays share axis 0,
the steps; `meta/episode_ends` cuts them into episodes. docs/schema.md describes the same layout for readers. The files
of pictures are laid out by `shards`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vqbet.contract import COLUMNS, Demonstrations, Spec, StoreError

SCHEMA_VERSION = 3  # of a store with cameras; others are of version 2 with INTERVENTION, else of 1, in unchanged bytes

ENDS = "meta/episode_ends"
INTERVENTION = "data/intervention"
STEP_ARRAYS: Mapping[str, str] = {
    "data/observation": "float32",
    "data/action": "float32",
    "data/time_s": "float64",
    "data/state": "float64",
    INTERVENTION: "bool",
}
OPTIONAL = frozenset({"data/state", INTERVENTION})
EPISODE_ARRAYS: Mapping[str, str] = {f"meta/{name}": dtype for name, dtype in COLUMNS.items()} | {ENDS: "int64"}
ARRAYS: Mapping[str, str] = {**STEP_ARRAYS, **EPISODE_ARRAYS}  # in the order of writing: the ends last
MATRICES = frozenset({"data/observation", "data/action", "data/state"})
GROUPS = ("", "data", "meta")
CAMERAS = "data/camera"  # the group of pictures, of one array per camera; only in a store with cameras
CAMERA_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)  # the name of a folder on every file system

# Values of unwritten elements, none of which could pass for a recording.
FILL: Mapping[str, Any] = {"float32": "NaN", "float64": "NaN", "int64": -1, "bool": False, "string": ""}

CHUNK_ROWS = 1024
SHARD_CHUNKS = 16  # 16,384 steps per file: tens of files for a million steps
MAX_SHARD_BYTES = 128 * 2**20
MAX_STORE_BYTES = 4 * 2**30  # of the arrays that are read into memory as a whole: all but pictures
MAX_DOCUMENT_BYTES = 4 * 2**20  # of one zarr.json
MAX_MANIFEST_BYTES = 32 * 2**20
MAX_FILES = 100_000  # most of them shards of pictures, up to 128 MiB before compression each
MAX_SIDE = 4096  # px of a picture
MAX_EPISODES = 1_000_000
MAX_TEXT = 256  # characters of one value in a string column

VARIABLE = "VQBET_STORE_GIB"


def most_bytes() -> int:
    """Return the size up to which arrays are read whole: $VQBET_STORE_GIB, else MAX_STORE_BYTES. Raises StoreError."""
    value = os.environ.get(VARIABLE, "").strip()
    if not value:
        return MAX_STORE_BYTES
    try:
        size = float(value)
    except ValueError:
        size = math.nan
    if not 0 < size < 2**20:
        raise StoreError(f"{VARIABLE}: expected the GiB of a store that memory has room for, such as 4, got {value!r}")
    return int(size * 2**30)


@dataclass(frozen=True, slots=True)
class Layout:
    """Layout of one array in files: shards of whole rows, cut into chunks; arrays over episodes are a single chunk."""

    dtype: str
    shape: tuple[int, ...]
    chunk_rows: int
    shard_rows: int  # equal to chunk_rows where the array is not sharded
    sharded: bool

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...]) -> Layout:
        """Return the layout in which the array `name` is written. Raises StoreError where a row is too wide."""
        dtype, rows = ARRAYS[name], shape[0]
        if name in EPISODE_ARRAYS:
            return cls(dtype, shape, rows, rows, sharded=False)
        chunk_rows = min(rows, CHUNK_ROWS)
        chunk_bytes = chunk_rows * math.prod(shape[1:]) * np.dtype(dtype).itemsize
        if chunk_bytes > MAX_SHARD_BYTES:
            raise StoreError(f"{name}: rows of {shape[1]} numbers are too wide: {chunk_rows} of them pass the limit")
        chunks = min(SHARD_CHUNKS, -(-rows // chunk_rows), MAX_SHARD_BYTES // chunk_bytes)
        return cls(dtype, shape, chunk_rows, chunks * chunk_rows, sharded=True)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        return (self.chunk_rows, *self.shape[1:])

    @property
    def shard_shape(self) -> tuple[int, ...]:
        return (self.shard_rows, *self.shape[1:])

    @property
    def item_bytes(self) -> int:
        """Return the bytes of one element; of a text, the four that hold its length."""
        return 4 if self.dtype == "string" else np.dtype(self.dtype).itemsize

    @property
    def chunk_bytes(self) -> int:
        """Return the bytes of one chunk without its checksum, and without the characters of texts."""
        return math.prod(self.chunk_shape) * self.item_bytes

    def files(self) -> Iterator[tuple[str, int]]:
        """Yield the key of every shard beside the array's zarr.json, and its number of chunks that hold rows."""
        for shard in range(-(-self.shape[0] // self.shard_rows)):
            rows = min(self.shard_rows, self.shape[0] - shard * self.shard_rows)
            yield "/".join(["c", str(shard), *("0" for _ in self.shape[1:])]), -(-rows // self.chunk_rows)


def arrays(demos: Demonstrations) -> dict[str, np.ndarray]:
    """Return the arrays of `demos` under their names in a store, in the order of writing."""
    found = {
        "data/observation": demos.observation,
        "data/action": demos.action,
        "data/time_s": demos.time_s,
        **({} if demos.state is None else {"data/state": demos.state}),
        **({} if demos.intervention is None else {INTERVENTION: demos.intervention}),
    }
    return {**found, **{f"meta/{name}": demos.columns[name] for name in COLUMNS}, ENDS: demos.episode_ends}


def groups(cameras: bool) -> tuple[str, ...]:
    """Return the groups of a store with pictures, or without."""
    return (*GROUPS, CAMERAS) if cameras else GROUPS


def refuse_malformed(demos: Demonstrations, where: str) -> None:
    """Raise StoreError, naming the field, where `demos` does not fit a store. Values are left to validation."""
    if set(demos.columns) != set(COLUMNS):
        raise StoreError(f"{where}: expected the columns {sorted(COLUMNS)}, got {sorted(demos.columns)}")
    steps, episodes = len(demos.observation), len(demos.episode_ends)
    widths = {"data/observation": len(demos.spec.observation), "data/action": len(demos.spec.action)}
    for name, array in arrays(demos).items():
        _refuse_dtype(array, name, where)
        wanted = [episodes if name in EPISODE_ARRAYS else steps]
        if name in MATRICES:
            wanted.append(widths.get(name, array.shape[-1] if array.ndim else 0))
        if list(array.shape) != wanted or not all(wanted[1:]):
            raise StoreError(f"{where}: {name}: expected shape {wanted}, got {list(array.shape)}")
    if not steps or not episodes:
        raise StoreError(f"{where}: expected at least one episode of one step, got {episodes} episodes, {steps} steps")
    if episodes > MAX_EPISODES:
        raise StoreError(f"{where}: {episodes} episodes are more than the {MAX_EPISODES} that one store may hold")
    refuse_ends(demos.episode_ends, steps, where)
    refuse_cameras(demos.spec, {name: frames.shape for name, frames in demos.cameras.items()}, steps, where)
    for name in (name for name, dtype in COLUMNS.items() if dtype == "string"):
        _refuse_texts(demos.columns[name], f"{where}: meta/{name}")


def refuse_ends(ends: np.ndarray, steps: int, where: str) -> None:
    """Raise StoreError, naming the episode, unless `ends` (E,) rises and its last value is `steps`."""
    before = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    wrong = np.flatnonzero(ends <= before)
    if len(wrong):
        episode = int(wrong[0])
        raise StoreError(
            f"{where}: {ENDS}: episode {episode} ends at step {ends[episode]}, which is not after its start at "
            f"{before[episode]}; ingest the demonstrations again"
        )
    if ends[-1] != steps:
        raise StoreError(
            f"{where}: {ENDS}: the last episode, {len(ends) - 1}, ends at step {ends[-1]}, but the arrays hold "
            f"{steps} steps; ingest the demonstrations again"
        )


def refuse_cameras(found: Spec, shapes: Mapping[str, tuple[int, ...]], steps: int, where: str) -> None:
    """Raise StoreError, naming the camera, unless there are N pictures of each camera of the spec, in its size."""
    for camera in found.cameras:
        wanted = (steps, *camera.shape)
        if camera.name not in shapes:
            raise StoreError(
                f"{where}: camera {camera.name!r}: the spec has it, but there are no pictures of it; ingest the "
                "demonstrations again, or take it out of the spec"
            )
        if tuple(shapes[camera.name]) != wanted:
            raise StoreError(
                f"{where}: camera {camera.name!r}: expected pictures of shape {wanted}, one per step in "
                f"the size of the spec, got {tuple(shapes[camera.name])}; ingest the demonstrations again"
            )
    strangers = sorted(shapes.keys() - {camera.name for camera in found.cameras})
    if strangers:
        raise StoreError(f"{where}: camera {strangers[0]!r}: there are pictures of it, but the spec does not have it")


def attributes(demos: Demonstrations) -> dict[str, Any]:
    """Return the attributes of the store's root group."""
    number = version(demos.intervention is not None, bool(demos.spec.cameras))
    return {"schema_version": number, "spec": demos.spec.to_json()}


def version(recorded: bool, cameras: bool) -> int:
    """Return the schema version of a store with cameras or without, and with INTERVENTION or without."""
    return SCHEMA_VERSION if cameras else 2 if recorded else 1


def spec(value: Any, where: str) -> Spec:
    """Return a spec from JSON after checking its types. Raises StoreError, naming `where` and the key."""
    try:
        found = Spec.from_json(value)
    except (AttributeError, KeyError, TypeError) as error:
        raise StoreError(f"{where}: spec: expected the keys of a spec, but {error}") from error
    refuse_spec(found, where)
    return found


def refuse_spec(found: Spec, where: str) -> None:
    """Raise StoreError, naming `where` and the key, where a spec has a value of the wrong type."""
    texts = {"task": found.task, "frame": found.frame, "action_kind": found.action_kind}
    numbers = {"control_hz": found.control_hz}
    for side, channels in (("observation", found.observation), ("action", found.action)):
        if not channels:
            raise StoreError(f"{where}: spec: {side}: expected at least one channel, got none")
        for index, channel in enumerate(channels):
            texts |= {f"{side}[{index}].{key}": getattr(channel, key) for key in ("name", "unit")}
            numbers |= {f"{side}[{index}].{key}": getattr(channel, key) for key in ("low", "high")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise StoreError(f"{where}: spec: {key}: expected a text, got {text!r}")
    for key, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise StoreError(f"{where}: spec: {key}: expected a finite number, got {number!r}")
    if found.action_kind not in ("absolute", "relative"):
        raise StoreError(f"{where}: spec: action_kind: expected absolute or relative, got {found.action_kind!r}")
    if found.control_hz <= 0:
        raise StoreError(f"{where}: spec: control_hz: expected a positive rate, got {found.control_hz}")
    _refuse_camera_specs(found, where)


def _refuse_camera_specs(found: Spec, where: str) -> None:
    used = set[str]()
    for camera in found.cameras:
        if not isinstance(camera.name, str) or not CAMERA_NAME.fullmatch(camera.name):
            raise StoreError(
                f"{where}: spec: camera {str(camera.name)[:80]!r}: expected a name of 1 to 64 letters, digits, - and _ "
                "that begins with a letter or a digit; rename it"
            )
        if camera.name.lower() in used:
            raise StoreError(f"{where}: spec: camera {camera.name!r}: a second camera of this name; rename it")
        used.add(camera.name.lower())
        for key, size in (("height", camera.height), ("width", camera.width)):
            if type(size) is not int or not 1 <= size <= MAX_SIDE:
                raise StoreError(
                    f"{where}: spec: camera {camera.name!r}: {key}: expected 1 to {MAX_SIDE} px, got {size!r}"
                )
        if not isinstance(camera.lossy, str) or len(camera.lossy) > MAX_TEXT or not _encodable(camera.lossy):
            raise StoreError(
                f"{where}: spec: camera {camera.name!r}: lossy: expected a text of at most {MAX_TEXT} characters, got "
                f"{str(camera.lossy)[:40]!r}"
            )


def _refuse_dtype(array: np.ndarray, name: str, where: str) -> None:
    wanted = ARRAYS[name]
    fits = array.dtype.kind in "UT" if wanted == "string" else array.dtype == np.dtype(wanted)
    if not fits:
        raise StoreError(f"{where}: {name}: expected {wanted}, got {array.dtype}")


def _refuse_texts(column: np.ndarray, where: str) -> None:
    for episode, text in enumerate(column.tolist()):
        if not isinstance(text, str) or len(text) > MAX_TEXT or "\0" in text or not _encodable(text):
            raise StoreError(
                f"{where}: episode {episode}: expected a text of at most {MAX_TEXT} characters that UTF-8 can hold, "
                f"without NUL, got {str(text)[:40]!r}"
            )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
