"""Layout of a demonstration store: its arrays, their dtypes and chunks, and the largest size of each part.

Names follow the replay-buffer convention of Diffusion Policy (arXiv 2303.04137): `data/<field>` arrays share axis 0,
the steps; `meta/episode_ends` cuts them into episodes. docs/schema.md describes the same layout for readers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vqbet.contract import COLUMNS, Demonstrations, Spec, StoreError

SCHEMA_VERSION = 2  # of a store with INTERVENTION; every other store is of version 1, in unchanged bytes

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

# Values of unwritten elements, none of which could pass for a recording.
FILL: Mapping[str, Any] = {"float32": "NaN", "float64": "NaN", "int64": -1, "bool": False, "string": ""}

CHUNK_ROWS = 1024
SHARD_CHUNKS = 16  # 16,384 steps per file: tens of files for a million steps
MAX_SHARD_BYTES = 128 * 2**20
MAX_STORE_BYTES = 4 * 2**30  # the store is read into memory as a whole
MAX_DOCUMENT_BYTES = 4 * 2**20  # of one JSON document
MAX_FILES = 10_000
MAX_EPISODES = 1_000_000
MAX_TEXT = 256  # characters of one value in a string column


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


def attributes(demos: Demonstrations) -> dict[str, Any]:
    """Return the attributes of the store's root group."""
    return {"schema_version": version(demos.intervention is not None), "spec": demos.spec.to_json()}


def version(recorded: bool) -> int:
    """Return the schema version of a store with INTERVENTION, or without."""
    return SCHEMA_VERSION if recorded else 1


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
