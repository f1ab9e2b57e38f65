"""Replay buffers of Diffusion Policy (Zarr v2), read as untrusted data: metadata first, then content.

Zarr v2 has no checksums, reads a missing chunk as zeros, follows symbolic links, and lets a few bytes request
gigabytes. So nothing is decompressed before the metadata, the presence of every chunk, and every chunk's own header
have been checked.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vqbet.contract import Camera, Spec, StoreError
from vqbet.demos.importers import fetch

ENDS = "meta/episode_ends"
FLOATS = ("<f4", "<f8")
INTEGERS = ("<i4", "<i8")
CODECS = ("blosc", None)
MAX_DOCUMENT_BYTES = 64 * 2**10
MAX_CHUNK_BYTES = 64 * 2**20
MAX_ARRAY_BYTES = 2**30
MAX_PICTURES_BYTES = 2**40  # they are never read whole
BLOSC_HEADER_BYTES = 16


@dataclass(frozen=True, slots=True)
class Claim:
    """Metadata of an array: rows x trailing numbers, chunks of whole rows, compressed with Blosc or not."""

    name: str
    folder: Path
    shape: tuple[int, ...]
    chunk_rows: int
    dtype: np.dtype
    codec: str | None

    @property
    def chunk_bytes(self) -> int:
        """Return the bytes of one chunk in memory; in Zarr v2 the last one is as large as the others."""
        return self.chunk_rows * math.prod(self.shape[1:]) * self.dtype.itemsize

    def chunks(self) -> Iterator[tuple[Path, int]]:
        """Yield the file and the first row of every chunk."""
        for index in range(-(-self.shape[0] // self.chunk_rows)):
            yield self.folder / ".".join([str(index), *("0" for _ in self.shape[1:])]), index * self.chunk_rows


def load(source: Path, fields: Mapping[str, tuple[int, ...]], *, max_bytes: int) -> dict[str, np.ndarray]:
    """Return `read` of the buffer that `find` returns for `source`, or for a zip that unpacks to max_bytes at most."""
    if not source.is_file():
        return read(find(source), fields)
    with tempfile.TemporaryDirectory(prefix="replay-buffer-") as folder:
        fetch.unpack(source, Path(folder), max_bytes=max_bytes)
        return read(find(Path(folder)), fields)


def content(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of the numbers in `arrays`, independent of file, dtype and chunks.

    Each name, its shape and its values as little-endian float64 are hashed in the order of the names; float64 is exact
    for int64 values below 2**53 and all values of 32 bits.
    """
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].shape}\0".encode())
        total.update(np.ascontiguousarray(arrays[name], "<f8").tobytes())
    return total.hexdigest()


def columns(
    spec: Spec, arrays: Mapping[str, np.ndarray], success: Bool[np.ndarray, " E"], *, published: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Return the columns of the episodes in `arrays`, whose content determines source and session.

    published: names of published data sets by people, by the `content` of their arrays. Any other content is named
    "replay_buffer:" and the first 12 characters of its own `content`, and its operator is "unknown".
    """
    digest = content(arrays)
    foreign = f"replay_buffer:{digest[:12]}"
    source = published.get(digest, foreign)
    return {
        "session": np.full(len(success), "published" if digest in published else foreign),
        "operator": np.full(len(success), "human" if digest in published else "unknown"),
        "source": np.full(len(success), source),
        "seed": np.full(len(success), -1, np.int64),
        "success": success,
        "task": np.full(len(success), spec.task),
    }


def time_s(ends: Int[np.ndarray, " E"], control_hz: float) -> Float[np.ndarray, " N"]:
    """Return the seconds of each step since the start of its episode."""
    lengths = np.diff(ends, prepend=0)
    return (np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)) / control_hz


def find(source: Path) -> Path:
    """Return the one replay buffer at `source`, in it, or one folder further down. Raises StoreError otherwise."""
    if not source.is_dir():
        raise StoreError(f"{source}: expected a folder with a Zarr v2 replay buffer, or a zip of one; it is no folder")
    if (source / ".zgroup").exists():
        return source
    found = sorted(path.parent for pattern in ("*/.zgroup", "*/*/.zgroup") for path in source.glob(pattern))
    found = [path for path in found if (path / "data").exists() or (path / "meta").exists()]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(path.relative_to(source)) for path in found)
        raise StoreError(f"{source}: expected one replay buffer, found {len(found)} ({names}); name the one you mean")
    raise StoreError(f"{source}: holds no Zarr v2 replay buffer: no folder with a .zgroup and data/ and meta/ in it")


def read(root: Path, fields: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return the arrays data/<field> (N, *trailing), by the trailing shapes in `fields`, and "episode_ends" (E,) int64.

    Raises StoreError naming file, field and steps: missing or linked files, another layout, another number of steps,
    a dtype, codec or size that is not allowed, a chunk that is missing, truncated or larger than expected, ends that do
    not cut the steps into episodes.
    """
    try:
        return _read(root, {f"data/{field}": trailing for field, trailing in fields.items()})
    except OSError as error:
        raise StoreError(f"{error.filename or root}: cannot be read: {error.strerror or error}") from error


@final
class Pictures:
    """Pictures of the array data/<field>, floats or whole numbers 0..255, as uint8: `contract.Frames` of a camera.

    A chunk is decoded where one of its pictures is asked for, and the last one is kept. Raises StoreError as `read`,
    at once for what metadata and headers show, and naming the step of a value that is not a whole number of 0..255.
    """

    def __init__(self, root: Path, field: str, camera: Camera) -> None:
        name = f"data/{field}"
        self._claim = _claim(root, name, camera.shape, (*FLOATS, "|u1"), most=MAX_PICTURES_BYTES)
        _check_chunks(self._claim)
        self.shape = self._claim.shape
        self._kept, self._chunk = -1, np.zeros((0, *camera.shape), np.uint8)

    def __getitem__(self, steps: Int[np.ndarray, "*B"]) -> UInt8[np.ndarray, "*B height width 3"]:
        if steps.size and (steps.min() < 0 or steps.max() >= self.shape[0]):
            raise IndexError(f"expected steps from 0 to {self.shape[0] - 1}, got {steps.min()} to {steps.max()}")
        found = np.empty((*steps.shape, *self.shape[1:]), np.uint8)
        rows = self._claim.chunk_rows
        for chunk in np.unique(steps // rows).tolist():
            here = steps // rows == chunk
            found[here] = self._decoded(chunk)[steps[here] - chunk * rows]
        return found

    def _decoded(self, chunk: int) -> UInt8[np.ndarray, "M height width 3"]:
        if chunk != self._kept:
            first = chunk * self._claim.chunk_rows
            values = _values(self._claim, slice(first, first + self._claim.chunk_rows))
            whole = values.astype(np.uint8) if values.dtype == np.uint8 else _whole(self._claim, values, first)
            self._kept, self._chunk = chunk, whole
        return self._chunk


def _whole(claim: Claim, values: np.ndarray, first: int) -> UInt8[np.ndarray, "M height width 3"]:
    with np.errstate(invalid="ignore"):
        whole = np.clip(np.nan_to_num(values), 0, 255).astype(np.uint8)
    wrong = np.argwhere(whole != values)
    if len(wrong):
        step, *place = wrong[0].tolist()
        raise StoreError(
            f"{claim.folder}: {claim.name}: expected whole numbers 0..255, got {values[tuple(wrong[0])]} at step "
            f"{first + step}, pixel {tuple(place)}; export the pictures as uint8"
        )
    return whole


def _read(root: Path, arrays: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    claims = {ENDS: _claim(root, ENDS, (), INTEGERS)}
    claims |= {name: _claim(root, name, trailing, FLOATS) for name, trailing in arrays.items()}
    steps = {name: claim.shape[0] for name, claim in claims.items() if name != ENDS}
    if len(set(steps.values())) != 1:
        told = ", ".join(f"{name} has {count}" for name, count in steps.items())
        raise StoreError(f"{root}: expected as many steps in every array, but {told}")
    for claim in claims.values():
        _check_chunks(claim)
    ends = _values(claims[ENDS]).astype(np.int64)
    _check_ends(root, ends, next(iter(steps.values())))
    return {"episode_ends": ends} | {name.removeprefix("data/"): _values(claims[name]) for name in arrays}


def _claim(
    root: Path, name: str, trailing: tuple[int, ...], dtypes: tuple[str, ...], most: int = MAX_ARRAY_BYTES
) -> Claim:
    folder = root / name
    document = folder / ".zarray"
    for path in (root / name.split("/")[0], folder, document):
        if path.is_symlink():
            raise StoreError(f"{path}: is a symbolic link; a store must hold its own files")
    if not document.is_file():
        raise StoreError(f"{document}: missing; expected a Zarr v2 array {name} (found: {_listing(folder.parent)})")
    told = _document(document)
    where = f"{document}: {name}"
    _expect(where, "zarr_format", told.get("zarr_format"), (2,))
    _expect(where, "dtype", told.get("dtype"), dtypes)
    _expect(where, "order", told.get("order"), ("C",))
    _expect(where, "filters", told.get("filters"), (None, []))
    _expect(where, "dimension_separator", told.get("dimension_separator", "."), (".",))
    compressor = told.get("compressor")
    codec = compressor.get("id") if isinstance(compressor, dict) else compressor
    _expect(where, "compressor", codec, CODECS)
    shape, chunks = _sizes(where, "shape", told.get("shape")), _sizes(where, "chunks", told.get("chunks"))
    if shape[1:] != trailing or len(shape) != 1 + len(trailing):
        wanted = ", ".join(["any number", *map(str, trailing)])
        raise StoreError(f"{where}: shape: expected ({wanted}), got {shape}")
    if chunks[1:] != trailing or len(chunks) != len(shape):
        raise StoreError(f"{where}: chunks: expected whole rows of {trailing}, got {chunks}")
    claim = Claim(name, folder, shape, chunks[0], np.dtype(told["dtype"]), codec)
    for what, size, limit in (
        ("the array", math.prod(shape) * claim.dtype.itemsize, most),
        ("a chunk", claim.chunk_bytes, MAX_CHUNK_BYTES),
    ):
        if size > limit:
            raise StoreError(f"{where}: {what} has {size} bytes, more than the {limit} that are read")
    return claim


def _document(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise StoreError(f"{path}: {path.stat().st_size} bytes of metadata, more than the {MAX_DOCUMENT_BYTES} allowed")
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _expect(where: str, key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if not any(type(value) is type(one) and value == one for one in allowed):
        choice = " or ".join(repr(one) for one in allowed)
        raise StoreError(f"{where}: {key}: expected {choice}, got {value!r}")


def _sizes(where: str, key: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(size) is int and size > 0 for size in value):
        raise StoreError(f"{where}: {key}: expected a list of positive whole numbers, got {value!r}")
    return tuple(value)


def _check_chunks(claim: Claim) -> None:
    """Raise StoreError unless every chunk is a file of its own whose header agrees with the metadata."""
    for path, row in claim.chunks():
        where = f"{path}: {claim.name}, from step {row}" if claim.name != ENDS else f"{path}: {ENDS}"
        if path.is_symlink():
            raise StoreError(f"{where}: is a symbolic link; a store must hold its own files")
        if not path.is_file():
            raise StoreError(f"{where}: the chunk is missing; copy the store again, whole")
        size = path.stat().st_size
        if claim.codec is None:
            stored, unpacked = claim.chunk_bytes, size
        else:
            with path.open("rb") as file:
                header = file.read(BLOSC_HEADER_BYTES)
            if len(header) < BLOSC_HEADER_BYTES:
                raise StoreError(f"{where}: the chunk is cut off: {size} bytes; copy the store again")
            unpacked, stored = int.from_bytes(header[4:8], "little"), int.from_bytes(header[12:16], "little")
        if stored != size:
            raise StoreError(f"{where}: the chunk is cut off or padded: {size} bytes of {stored}; copy the store again")
        if unpacked != claim.chunk_bytes:
            raise StoreError(f"{where}: the chunk unpacks to {unpacked} bytes, its metadata says {claim.chunk_bytes}")


def _values(claim: Claim, rows: slice = slice(None)) -> np.ndarray:
    import zarr

    try:
        store = zarr.storage.LocalStore(claim.folder, read_only=True)
        return np.asarray(zarr.open_array(store, mode="r", zarr_format=2)[rows])
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{claim.folder}: {claim.name}: cannot be decoded: {error}; copy the store again") from error


def _check_ends(root: Path, ends: np.ndarray, steps: int) -> None:
    starts = np.concatenate([[0], ends[:-1]])
    wrong = np.flatnonzero(ends <= starts)
    if len(wrong):
        episode = wrong[0]
        raise StoreError(
            f"{root}: {ENDS}: episode {episode} ends at step {ends[episode]}, but starts at step {starts[episode]}"
        )
    if ends[-1] != steps:
        raise StoreError(f"{root}: {ENDS}: the last episode ends at step {ends[-1]}, but there are {steps} steps")


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"
